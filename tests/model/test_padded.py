"""The conventions of Hugging Face: padded inputs, labels and a loss, the weights of attention."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from semvlp.model import PackedBatch, SemVLPConfig, SemVLPForTask, SemVLPModel
from semvlp.model.layers.heads import label_loss
from semvlp.model.packing import Mode, to_padded
from semvlp.names import CrossAttention, ImageToken

MakeBatch = Callable[..., PackedBatch]
LENGTHS = [(3, 2), (5, 4), (2, 1), (2, 0)]
both_modes = pytest.mark.parametrize("mode", ["single", "two"])


def padded(batch: PackedBatch) -> dict[str, Tensor]:
    """The same pairs as a processor gives them."""
    ids, text_mask = to_padded(batch.input_ids, batch.text_lengths)
    features, region_mask = to_padded(batch.region_features, batch.region_lengths)
    return {
        "input_ids": ids,
        "attention_mask": text_mask.long(),
        "region_features": features,
        "region_boxes": to_padded(batch.region_boxes, batch.region_lengths)[0],
        "region_attention_mask": region_mask.long(),
    }


@both_modes
def test_padding_changes_nothing(config: SemVLPConfig, make_batch: MakeBatch, mode: Mode) -> None:
    model, batch = SemVLPModel(config).eval(), make_batch(LENGTHS)
    inputs = padded(batch)
    packed, encoded = model(batch, mode), model(**inputs, mode=mode)
    assert torch.equal(encoded.pooled, packed.pooled)
    assert torch.equal(encoded.text[inputs["attention_mask"].bool()], packed.text)
    assert torch.equal(encoded.regions[inputs["region_attention_mask"].bool()], packed.regions)
    assert not encoded.regions[~inputs["region_attention_mask"].bool()].any()


def test_without_masks_nothing_is_padding(config: SemVLPConfig, make_batch: MakeBatch) -> None:
    model, batch = SemVLPModel(config).eval(), make_batch([(3, 2), (3, 2)])
    inputs = {name: value for name, value in padded(batch).items() if "mask" not in name}
    assert torch.equal(model(**inputs).pooled, model(batch, "two").pooled)


def test_two_images_of_an_example_are_side_by_side(
    config: SemVLPConfig, make_batch: MakeBatch
) -> None:
    model = SemVLPForTask(config.for_task("pair", ["a", "b"])).eval()
    batch = make_batch([(3, 2), (3, 4), (4, 1), (4, 3)])
    ids = batch.input_ids.split([3, 3, 4, 4])
    batch = batch.replace(input_ids=torch.cat([ids[0], ids[0], ids[2], ids[2]]))
    inputs = padded(batch)
    pairs = {name: value[::2] for name, value in inputs.items() if not name.startswith("region")}
    pairs |= {n: v.unflatten(0, (2, 2)) for n, v in inputs.items() if n.startswith("region")}
    assert torch.equal(model(**pairs, mode="two").logits, model(batch, "two").logits)


def test_what_is_missing_is_told(config: SemVLPConfig) -> None:
    model = SemVLPForTask(config.for_task("pooled", ["yes", "no"]))
    with pytest.raises(ValueError, match="input_ids, region_features and region_boxes"):
        model(input_ids=torch.ones(1, 3, dtype=torch.int64))


@pytest.mark.parametrize("task", ["vqa", "snli-ve"])
def test_both_passes_average_probabilities(
    config: SemVLPConfig, make_batch: MakeBatch, task: str
) -> None:
    model = SemVLPForTask(config.for_task("pooled", ["yes", "no", "red"], task=task)).eval()
    batch = make_batch(LENGTHS)
    chances = (lambda x: x.softmax(1)) if task == "snli-ve" else torch.sigmoid
    passes = [chances(model(batch, mode).logits) for mode in ("single", "two")]
    expected = (passes[0] + passes[1]) / 2
    torch.testing.assert_close(chances(model(batch, "both").logits), expected)
    assert not torch.allclose(passes[0], passes[1], atol=1e-4)


def test_the_loss_is_that_of_fine_tuning(config: SemVLPConfig, make_batch: MakeBatch) -> None:
    """Its sum over examples, by the examples that teach something, mean over both passes."""
    batch = make_batch(LENGTHS)
    scores = torch.tensor([[1, 0, 0.3], [0, 0, 0], [0.6, 0.6, 0], [0, 1, 0]])
    for task, count in (("vqa", 4), ("snli-ve", 3)):
        model = SemVLPForTask(config.for_task("pooled", ["yes", "no", "red"], task=task)).eval()
        exclusive = task == "snli-ve"
        losses = [
            label_loss(model(batch, mode).logits, scores, exclusive=exclusive) / count
            for mode in ("single", "two")
        ]
        inputs = padded(batch)
        torch.testing.assert_close(model(**inputs, mode="two", labels=scores).loss, losses[1])
        loss = model(**inputs, labels=scores).loss
        torch.testing.assert_close(loss, sum(losses) / 2)
        loss.backward()
        assert model.head.outer.weight.grad.any()


def test_labels_may_be_indices(config: SemVLPConfig, make_batch: MakeBatch) -> None:
    model = SemVLPForTask(config.for_task("match", ["no", "yes"])).eval()
    output = model(make_batch(LENGTHS), "two", labels=torch.tensor([0, 1, 1, 0]))
    expected = torch.nn.functional.cross_entropy(output.logits, torch.tensor([0, 1, 1, 0]))
    torch.testing.assert_close(output.loss, expected)


def test_unknown_labels_teach_an_exclusive_head_nothing() -> None:
    scores = torch.tensor([[0.5, 0.5], [0.0, 0.0]])
    loss = label_loss(torch.zeros(2, 2), scores, exclusive=True)
    assert loss.item() == pytest.approx(0.693147, abs=1e-6)


def test_binary_cross_entropy_is_summed_over_labels() -> None:
    loss = label_loss(torch.zeros(1, 3), torch.tensor([[0.3, 0.0, 1.0]]), exclusive=False)
    assert loss.item() == pytest.approx(3 * 0.693147, abs=1e-5)


@both_modes
@pytest.mark.parametrize("image_token", ["none", "mean"])
@pytest.mark.parametrize("cross", ["shared", "separate", "tied"])
def test_attention_adds_up_over_what_is_seen(
    config: SemVLPConfig,
    make_batch: MakeBatch,
    mode: Mode,
    cross: CrossAttention,
    image_token: ImageToken,
) -> None:
    config.cross_attention, config.image_token = cross, image_token
    model, batch = SemVLPModel(config).eval(), make_batch(LENGTHS)
    encoded = model(batch, mode, output_attentions=True)
    assert torch.equal(encoded.pooled, model(batch, mode).pooled)
    assert model(batch, mode).attentions is None
    assert (len(encoded.attentions), len(encoded.cross_attentions)) == (3, 2 * (mode == "two"))
    more = int(image_token == "mean")
    for weights in (*encoded.attentions, *encoded.cross_attentions):
        assert weights.shape == (4, 2, 9 + more, 9 + more)
        assert not weights[0, :, :, 5 + more :].any(), "padding"
    for weights in encoded.attentions:
        torch.testing.assert_close(weights[1].sum(2), torch.ones(2, 9 + more))
        assert bool(weights[1, :, :5, 5:].any()) == (mode == "single")
    for weights in encoded.cross_attentions:
        torch.testing.assert_close(weights[1].sum(2), torch.ones(2, 9 + more))
        assert not weights[1, :, :5, :5].any()
        assert not weights[1, :, 5:, 5:].any()


@pytest.mark.parametrize("cross", ["shared", "separate", "tied"])
def test_attention_is_what_the_kernel_computed(
    config: SemVLPConfig, make_batch: MakeBatch, cross: CrossAttention
) -> None:
    """Gradients tell: where a weight is, changing a value moves the query's output."""
    config.cross_attention = cross
    model, batch = SemVLPModel(config).eval(), make_batch([(3, 2)])
    block, calls = model.encoder.blocks[-1], []
    attention = block.cross_attention or block.self_attention
    attention.output.register_forward_pre_hook(lambda _, given: calls.append(given[0]))
    inputs = []
    attention.register_forward_pre_hook(lambda _, given: inputs.append(given))
    encoded = model(batch, "two", output_attentions=True)
    hidden, _, context = (*inputs[-1], None)[:3]
    values = attention.value(hidden if context is None else context)
    heads = values.view(len(values), 2, -1).transpose(0, 1)  # [H, S, K]
    text = encoded.cross_attentions[-1][0][:, :3]  # [H, T, L]
    keys = heads if len(values) == 5 else torch.cat([torch.zeros(2, 3, 8), heads], dim=1)
    torch.testing.assert_close((text @ keys).transpose(0, 1).flatten(1), calls[-1][:3])


def test_a_task_gives_the_attention_of_its_passes(
    config: SemVLPConfig, make_batch: MakeBatch
) -> None:
    model = SemVLPForTask(config.for_task("pooled", ["yes", "no"])).eval()
    output = model(make_batch(LENGTHS), output_attentions=True)
    assert (len(output.attentions), len(output.cross_attentions)) == (6, 2)
    assert output[0] is output.logits
