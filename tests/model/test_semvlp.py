"""Properties of the whole encoder: what may depend on what, in either mode."""

import dataclasses
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from semvlp.model import PackedBatch, SemVLPConfig, SemVLPForPreTraining, SemVLPModel
from semvlp.model.layers.encoder import self_attention_layout
from semvlp.model.packing import Mode
from semvlp.model.semvlp import Encoded

# Sums of the same float32 numbers in another order, over three layers.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}
# Gradients in double precision below this are zero but for rounding.
ROUNDING = 1e-10
LENGTHS = [(3, 2), (1, 0), (5, 4), (2, 7)]
MakeBatch = Callable[..., PackedBatch]

MODES: tuple[Mode, ...] = ("single", "two")

both_modes = pytest.mark.parametrize("mode", MODES)


@pytest.fixture
def model(config: SemVLPConfig) -> SemVLPModel:
    return SemVLPModel(config).eval()


def text_of(encoded: Encoded, batch: PackedBatch) -> Sequence[Tensor]:
    return encoded.text.split(batch.text_lengths.tolist())


def regions_of(encoded: Encoded, batch: PackedBatch) -> Sequence[Tensor]:
    return encoded.regions.split(batch.region_lengths.tolist())


def select(batch: PackedBatch, order: Sequence[int]) -> PackedBatch:
    """The pairs of `batch` in another order."""
    tokens = batch.input_ids.split(batch.text_lengths.tolist())
    features = batch.region_features.split(batch.region_lengths.tolist())
    boxes = batch.region_boxes.split(batch.region_lengths.tolist())
    return PackedBatch(
        input_ids=torch.cat([tokens[pair] for pair in order]),
        region_features=torch.cat([features[pair] for pair in order]),
        region_boxes=torch.cat([boxes[pair] for pair in order]),
        text_lengths=batch.text_lengths[list(order)],
        region_lengths=batch.region_lengths[list(order)],
    )


def select_text(batch: PackedBatch) -> PackedBatch:
    """The texts of `batch` without any regions."""
    return PackedBatch(
        input_ids=batch.input_ids,
        text_lengths=batch.text_lengths,
        region_features=batch.region_features[:0],
        region_boxes=batch.region_boxes[:0],
        region_lengths=torch.zeros_like(batch.region_lengths),
    )


def other_regions(batch: PackedBatch) -> PackedBatch:
    return batch.replace(region_features=batch.region_features.flip(1) + 1)


def other_text(batch: PackedBatch) -> PackedBatch:
    return batch.replace(input_ids=batch.input_ids.roll(1))


@both_modes
def test_shapes(model: SemVLPModel, make_batch: MakeBatch, mode: Mode) -> None:
    encoded = model(make_batch(LENGTHS), mode)
    assert encoded.text.shape == (11, 16)
    assert encoded.regions.shape == (13, 16)
    assert encoded.pooled.shape == (4, 16)


@both_modes
def test_some_positions_are_a_selection_of_all(
    model: SemVLPModel, make_batch: MakeBatch, mode: Mode
) -> None:
    batch = make_batch(LENGTHS)
    tokens, regions = torch.tensor([4, 0, 4]), torch.tensor([12, 3])
    whole = model(batch, mode)
    some = model(batch, mode, token_positions=tokens, region_positions=regions)
    torch.testing.assert_close(some.text, whole.text[tokens], **CLOSE)
    torch.testing.assert_close(some.regions, whole.regions[regions], **CLOSE)
    torch.testing.assert_close(some.pooled, whole.pooled, **CLOSE)


@both_modes
def test_each_pair_alone_is_the_same(model: SemVLPModel, make_batch: MakeBatch, mode: Mode) -> None:
    batch = make_batch(LENGTHS)
    together = model(batch, mode)
    for pair in range(batch.num_pairs):
        alone = model(select(batch, [pair]), mode)
        torch.testing.assert_close(alone.text, text_of(together, batch)[pair], **CLOSE)
        torch.testing.assert_close(alone.regions, regions_of(together, batch)[pair], **CLOSE)
        torch.testing.assert_close(alone.pooled[0], together.pooled[pair], **CLOSE)


@both_modes
def test_permuted_pairs_give_permuted_outputs(
    model: SemVLPModel, make_batch: MakeBatch, mode: Mode
) -> None:
    batch, order = make_batch(LENGTHS), [2, 0, 3, 1]
    given, permuted = model(batch, mode), model(select(batch, order), mode)
    torch.testing.assert_close(permuted.pooled, given.pooled[order], **CLOSE)
    expected = torch.cat([regions_of(given, batch)[pair] for pair in order])
    torch.testing.assert_close(permuted.regions, expected, **CLOSE)


@both_modes
def test_the_order_of_regions_means_nothing(
    model: SemVLPModel, make_batch: MakeBatch, mode: Mode
) -> None:
    batch = make_batch([(4, 5)])
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled = batch.replace(
        region_features=batch.region_features[order], region_boxes=batch.region_boxes[order]
    )
    given, other = model(batch, mode), model(shuffled, mode)
    torch.testing.assert_close(other.text, given.text, **CLOSE)
    torch.testing.assert_close(other.regions, given.regions[order], **CLOSE)


@both_modes
def test_the_order_of_words_means_something(
    model: SemVLPModel, make_batch: MakeBatch, mode: Mode
) -> None:
    batch = make_batch([(4, 2)])
    swapped = batch.replace(input_ids=batch.input_ids[[0, 2, 1, 3]])
    pooled = [model(given, mode).pooled for given in (batch, swapped)]
    assert not torch.allclose(*pooled, atol=1e-3)


@both_modes
def test_text_and_regions_reach_each_other(
    model: SemVLPModel, make_batch: MakeBatch, mode: Mode
) -> None:
    batch = make_batch([(3, 2), (2, 4)])
    given = model(batch, mode)
    assert (model(other_regions(batch), mode).text - given.text).abs().amax(1).min() > 1e-3
    assert (model(other_text(batch), mode).regions - given.regions).abs().amax(1).min() > 1e-3


def test_unplugged_two_stream_keeps_modalities_apart(
    config: SemVLPConfig, make_batch: MakeBatch
) -> None:
    model = SemVLPModel(dataclasses.replace(config, cross_layers=0)).eval()
    batch = make_batch(LENGTHS)
    given = model(batch, "two")
    assert torch.equal(model(other_regions(batch), "two").text, given.text)
    assert torch.equal(model(other_text(batch), "two").regions, given.regions)


def test_unplugging_gives_two_independent_encoders(
    model: SemVLPModel, make_batch: MakeBatch
) -> None:
    """A network with empty cross-attention slots is one without, for either modality alone."""
    batch = make_batch(LENGTHS)
    unplugged = SemVLPModel(dataclasses.replace(model.config, cross_layers=0)).eval()
    own = {k: v for k, v in model.state_dict().items() if "cross_attention" not in k}
    unplugged.load_state_dict(own)
    row, layout = model._embed(batch), self_attention_layout(batch, "two")
    for block in model.encoder.blocks:
        row = block(row, layout, None)
    expected = unplugged(batch, "two")
    torch.testing.assert_close(row[batch.text_rows], expected.text, **CLOSE)
    torch.testing.assert_close(row[batch.region_rows], expected.regions, **CLOSE)
    alone = unplugged(select_text(batch), "single")
    torch.testing.assert_close(alone.text, expected.text, **CLOSE)


def test_lower_layers_of_two_stream_are_each_modality_alone(
    model: SemVLPModel, make_batch: MakeBatch
) -> None:
    batch = make_batch(LENGTHS)
    rows = {}

    def lower(given: PackedBatch, mode: Mode) -> Tensor:
        """The packed row as it enters the first block with a cross-attention."""
        hook = model.encoder.blocks[1].register_forward_pre_hook(
            lambda _, inputs: rows.update(entering=inputs[0])
        )
        model(given, mode)
        hook.remove()
        return rows["entering"]

    text = lower(batch, "two")[batch.text_rows]
    torch.testing.assert_close(text, lower(select_text(batch), "single"), **CLOSE)
    regions = lower(batch, "two")[batch.region_rows]
    assert torch.equal(regions, lower(other_text(batch), "two")[batch.region_rows])


def test_modes_agree_where_there_are_no_regions_below_the_slots(
    config: SemVLPConfig, make_batch: MakeBatch
) -> None:
    model = SemVLPModel(dataclasses.replace(config, cross_layers=0)).eval()
    batch = make_batch([(3, 0), (2, 0)])
    torch.testing.assert_close(model(batch, "two").text, model(batch, "single").text, **CLOSE)


def test_single_stream_ignores_the_cross_attention(
    model: SemVLPModel, make_batch: MakeBatch
) -> None:
    batch = make_batch(LENGTHS)
    single, two = model(batch, "single"), model(batch, "two")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "cross_attention" in name:
                parameter.add_(1)
    assert torch.equal(model(batch, "single").text, single.text)
    assert not torch.allclose(model(batch, "two").text, two.text, atol=1e-3)


@both_modes
def test_a_pair_without_regions(model: SemVLPModel, make_batch: MakeBatch, mode: Mode) -> None:
    encoded = model(make_batch([(3, 0), (2, 0)]), mode)
    assert encoded.regions.shape == (0, 16)
    assert encoded.text.isfinite().all()
    (encoded.text.sum() + encoded.pooled.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@both_modes
def test_pooled_is_tanh_of_the_first_token(
    model: SemVLPModel, make_batch: MakeBatch, mode: Mode
) -> None:
    batch = make_batch(LENGTHS)
    encoded = model(batch, mode)
    first = torch.stack([text[0] for text in text_of(encoded, batch)])
    expected = torch.tanh(first @ model.pooler.weight.T + model.pooler.bias)
    torch.testing.assert_close(encoded.pooled, expected)


def test_mask_embedding_marks_masked_regions_only(
    model: SemVLPModel, make_batch: MakeBatch
) -> None:
    batch = make_batch([(2, 3)])
    none_masked = batch.replace(region_mask=torch.zeros(3, dtype=torch.bool))
    masked = batch.replace(region_mask=torch.tensor([False, True, False]))
    assert torch.equal(model(none_masked, "two").text, model(batch, "two").text)
    rows = [model._embed_regions(given) for given in (batch, masked)]
    assert ((rows[0] - rows[1]).abs().amax(1) > 1e-3).tolist() == [False, True, False]


def test_types_tell_text_from_regions(model: SemVLPModel, make_batch: MakeBatch) -> None:
    batch = make_batch([(2, 3)])
    embedded = [model._embed_text(batch), model._embed_regions(batch)]
    with torch.no_grad():
        model.text_embeddings.token_type_embeddings.weight[1] += torch.arange(16.0)
    torch.testing.assert_close(model._embed_text(batch), embedded[0])
    torch.testing.assert_close(
        model._embed_regions(batch), embedded[1] + torch.arange(16.0), **CLOSE
    )


def test_what_is_too_long_or_of_another_detector(model: SemVLPModel, make_batch: MakeBatch) -> None:
    with pytest.raises(ValueError, match=r"at most 12 tokens .*, got 13"):
        model(make_batch([(13, 1)]), "single")
    batch = make_batch([(2, 1)])
    with pytest.raises(ValueError, match=r"must be \[R, 6\] as region_feature_size.*\(1, 5\)"):
        model(batch.replace(region_features=torch.zeros(1, 5)), "single")


@both_modes
def test_gradient_checkpointing_changes_nothing(
    config: SemVLPConfig, make_batch: MakeBatch, mode: Mode
) -> None:
    model = SemVLPModel(
        dataclasses.replace(config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ).train()
    batch = make_batch(LENGTHS)
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
        model.zero_grad()
        model(batch, mode).pooled.sum().backward()
        gradients.append(
            {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@both_modes
def test_bfloat16_weights_run(model: SemVLPModel, make_batch: MakeBatch, mode: Mode) -> None:
    batch = make_batch(LENGTHS)
    expected = model(batch, mode).pooled
    actual = model.to(torch.bfloat16)(batch, mode).pooled
    assert actual.dtype == torch.bfloat16
    assert (actual.float() - expected).abs().mean() < 0.05


def test_gradients_reach_every_parameter(config: SemVLPConfig, make_batch: MakeBatch) -> None:
    model = SemVLPForPreTraining(config).double().train()
    batch = make_batch(LENGTHS).replace(region_mask=torch.arange(13) % 3 == 0)
    reached: dict[Mode, set[str]] = {}
    for mode in MODES:
        model.zero_grad()
        output = model(
            batch,
            mode,
            token_positions=torch.tensor([1, 4]),
            region_positions=torch.tensor([0, 3]),
        )
        torch.stack([part.pow(2).sum() for part in output.values()]).sum().backward()
        reached[mode] = {
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is not None and parameter.grad.abs().max() > ROUNDING
        }
    every = {name for name, _ in model.named_parameters()}
    # A softmax does not see what is added to all its scores alike.
    blind = {name for name in every if name.endswith("key.bias")}
    assert every - reached["two"] == blind
    assert every - reached["single"] == blind | {name for name in every if "cross_att" in name}
