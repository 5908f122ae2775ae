"""Options of the configuration: what each changes, and that the rest of the network bears it."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch.nn import functional
from transformers import BertConfig, BertModel

from semvlp.model import PackedBatch, SemVLPConfig, SemVLPForPreTraining, SemVLPModel
from semvlp.model.layers.embeddings import RegionEmbeddings, box_numbers, fourier
from semvlp.model.layers.image_tokens import with_image_tokens
from semvlp.model.published.bert import load_bert
from semvlp.names import CrossAttention, RegionEmbedding

MakeBatch = Callable[..., PackedBatch]

LENGTHS = [(3, 2), (1, 0), (5, 4), (2, 7)]
# Sums of the same float32 numbers in another order, over three layers.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def test_box_numbers() -> None:
    boxes = torch.tensor([[0.1, 0.2, 0.6, 0.4]])
    assert box_numbers(boxes, 4) is boxes
    torch.testing.assert_close(box_numbers(boxes, 5), torch.tensor([[0.1, 0.2, 0.6, 0.4, 0.1]]))
    torch.testing.assert_close(
        box_numbers(boxes, 7), torch.tensor([[0.1, 0.2, 0.6, 0.4, 0.5, 0.2, 0.1]])
    )


def test_fourier_features_of_boxes() -> None:
    numbers = torch.tensor([[0.25, 1.0]])
    angles = [number * 2**k * math.pi for number in (0.25, 1.0) for k in range(7)]
    waves = [*map(math.sin, angles), *map(math.cos, angles)]
    torch.testing.assert_close(
        fourier(numbers), torch.tensor([[0.25, 1.0, *waves]]), rtol=0, atol=1e-4
    )


def test_boxes_that_differ_by_little_are_told_apart(config: SemVLPConfig) -> None:
    """A pixel of a hundred hardly moves a linear encoding; the fourier one it moves at once."""
    boxes = torch.tensor([[0.30, 0.30, 0.40, 0.40], [0.31, 0.30, 0.41, 0.40]])
    moved = {}
    for encoding in ("linear", "fourier"):
        torch.manual_seed(0)
        embeddings = RegionEmbeddings(dataclasses.replace(config, box_encoding=encoding)).eval()
        rows = embeddings(torch.zeros(2, 6), boxes, None, torch.zeros(16))
        moved[encoding] = float((rows[0] - rows[1]).detach().norm())
    assert moved["fourier"] > 5 * moved["linear"] > 0


def test_a_configuration_that_does_not_say_is_linear(config: SemVLPConfig, tmp_path: Path) -> None:
    """Checkpoints of before have no such field."""
    SemVLPModel(config).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    fields = json.loads(file.read_text())
    assert fields.pop("box_encoding") == "linear"
    file.write_text(json.dumps(fields))
    assert SemVLPModel.from_pretrained(tmp_path).region_embeddings.boxes.in_features == 4


@pytest.mark.parametrize("kind", get_args(RegionEmbedding))
@pytest.mark.parametrize("box_size", [4, 7])
def test_region_embeddings_are_their_formula(
    config: SemVLPConfig, kind: RegionEmbedding, box_size: int
) -> None:
    config.region_embedding, config.box_size = kind, box_size
    embeddings = RegionEmbeddings(config).eval()
    features, corners, token_type = torch.randn(3, 6), torch.rand(3, 2, 2), torch.randn(16)
    boxes = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    feature = embeddings.features(features)
    box = embeddings.boxes(box_numbers(boxes, box_size))

    def normed(rows: torch.Tensor, eps: float) -> torch.Tensor:
        return functional.layer_norm(rows, (16,), eps=eps)

    expected = {
        "mean-of-norms": (normed(feature, 1e-5) + normed(box, 1e-5)) / 2 + token_type,
        "sum": normed(feature + box + token_type, 1e-12),
        "sum-of-norms": normed(normed(feature, 1e-5) + normed(box, 1e-5) + token_type, 1e-12),
    }
    actual = embeddings(features, boxes, None, token_type)
    torch.testing.assert_close(actual, expected[kind])


def test_image_tokens_stand_before_the_regions(make_batch: MakeBatch) -> None:
    batch = make_batch([(3, 2), (1, 0), (2, 3)])
    mask = torch.tensor([False, True, False, False, True])
    larger, indices = with_image_tokens(batch.replace(region_mask=mask))
    assert larger.region_lengths.tolist() == [3, 1, 4]
    assert indices.tolist() == [1, 2, 5, 6, 7]
    assert torch.equal(larger.region_features[indices], batch.region_features)
    assert torch.equal(larger.region_boxes[indices], batch.region_boxes)
    # The mean of what is not masked; of nothing, zeros.
    features = batch.region_features
    torch.testing.assert_close(larger.region_features[0], features[0])
    assert not larger.region_features[3].any()
    torch.testing.assert_close(larger.region_features[4], features[2:4].mean(0))
    assert larger.region_boxes[[0, 3, 4]].tolist() == [[0, 0, 1, 1]] * 3
    assert larger.region_mask is not None
    assert larger.region_mask.tolist() == [False, False, True, False, False, False, False, True]


@pytest.mark.parametrize("mode", ["single", "two"])
def test_image_tokens_are_seen_and_not_given_back(
    config: SemVLPConfig, make_batch: MakeBatch, mode: str
) -> None:
    config.image_token = "mean"
    model = SemVLPModel(config).eval()
    batch = make_batch(LENGTHS)
    encoded = model(batch, mode)
    assert encoded.regions.shape == (13, 16)
    larger, indices = with_image_tokens(batch)
    config.image_token = "none"
    expected = model(larger, mode)
    torch.testing.assert_close(encoded.text, expected.text, **CLOSE)
    torch.testing.assert_close(encoded.regions, expected.regions[indices], **CLOSE)
    assert not torch.allclose(model(batch, mode).text, encoded.text, atol=1e-3)


def test_image_tokens_in_both_halves(config: SemVLPConfig, make_batch: MakeBatch) -> None:
    config.image_token = "mean"
    model, batch = SemVLPModel(config).eval(), make_batch(LENGTHS)
    with torch.inference_mode():
        text, regions = model.lower(batch)
        assert torch.equal(regions.lengths, batch.region_lengths + config.num_image_tokens)
        pooled = model.upper(text, regions)
        torch.testing.assert_close(pooled, model(batch, "two").pooled, **CLOSE)


def test_separate_weights_that_are_equal_are_shared_ones(
    config: SemVLPConfig, make_batch: MakeBatch
) -> None:
    shared = SemVLPModel(config).eval()
    separate = SemVLPModel(dataclasses.replace(config, cross_attention="separate")).eval()
    state = shared.state_dict()
    copied = {name.replace("region_cross_", "cross_"): name for name in separate.state_dict()}
    assert copied.keys() == state.keys()
    state |= {
        name: state[name.replace("region_cross_", "cross_")] for name in separate.state_dict()
    }
    separate.load_state_dict(state)
    for mode in ("single", "two"):
        for own, other in zip(
            separate(make_batch(LENGTHS), mode).values(),
            shared(make_batch(LENGTHS), mode).values(),
            strict=True,
        ):
            torch.testing.assert_close(own, other, **CLOSE)


def test_each_direction_has_its_own_weights(config: SemVLPConfig, make_batch: MakeBatch) -> None:
    """In the last block a change of the regions' weights does not reach the text."""
    config.cross_attention = "separate"
    model, batch = SemVLPModel(config).eval(), make_batch(LENGTHS)
    given = model(batch, "two")
    with torch.no_grad():
        model.encoder.blocks[-1].region_cross_attention.output.bias.normal_()
    changed = model(batch, "two")
    assert torch.equal(changed.text, given.text)
    assert (changed.regions - given.regions).abs().amax(1).min() > 1e-3


def untied(config: SemVLPConfig, tied: SemVLPModel) -> SemVLPModel:
    """The same network whose cross-attentions have copies of the weights that tied ones borrow."""
    shared = SemVLPModel(dataclasses.replace(config, cross_attention="shared")).eval()
    state = tied.state_dict()
    copies = {
        name: name.replace(".cross_attention.", ".self_attention.") for name in shared.state_dict()
    }
    assert not [name for name in state if ".cross_attention." in name]
    shared.load_state_dict({name: state[source] for name, source in copies.items()})
    return shared


@pytest.mark.parametrize("cross_layers", [1, 3])
def test_tied_weights_are_copies_of_the_self_attention(
    config: SemVLPConfig, make_batch: MakeBatch, cross_layers: int
) -> None:
    """Forward in both modes, and backward, where the gradient is the sum of both uses."""
    config.cross_attention, config.cross_layers = "tied", cross_layers
    tied = SemVLPModel(config).eval()
    shared, batch = untied(config, tied), make_batch(LENGTHS)
    for mode in ("single", "two"):
        for own, other in zip(
            tied(batch, mode).values(), shared(batch, mode).values(), strict=True
        ):
            torch.testing.assert_close(own, other)
    for model in (tied, shared):
        model(batch, "two").pooled.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in shared.named_parameters()}
    for name, parameter in tied.named_parameters():
        twin = gradients.get(name.replace(".self_attention.", ".cross_attention."))
        both = [gradients[name]] + [twin] * (".self_attention." in name)
        expected = sum(each for each in both if each is not None)
        assert (parameter.grad is None) == (not isinstance(expected, torch.Tensor)), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected, msg=name, **CLOSE)


@pytest.mark.parametrize("cross_layers", [1, 3])
def test_separate_weights_in_both_halves(
    config: SemVLPConfig, make_batch: MakeBatch, cross_layers: int
) -> None:
    config.cross_attention, config.cross_layers = "separate", cross_layers
    model, batch = SemVLPModel(config).eval(), make_batch(LENGTHS)
    with torch.inference_mode():
        pooled = model.upper(*model.lower(batch))
        torch.testing.assert_close(pooled, model(batch, "two").pooled, **CLOSE)


@pytest.mark.parametrize("cross_attention", get_args(CrossAttention))
def test_pairs_without_any_region_reach_every_cross_attention(
    config: SemVLPConfig, make_batch: MakeBatch, cross_attention: str
) -> None:
    """A gradient of zeros, not none at all: ranks that share gradients wait for each of them."""
    config.cross_attention = cross_attention
    model = SemVLPModel(config)
    model(make_batch([(3, 0), (2, 0)]), "two").pooled.sum().backward()
    for name, parameter in model.encoder.blocks[1].named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("cross_attention", ["shared", "separate"])
def test_cross_attention_may_start_as_the_self_attention(
    config: SemVLPConfig, tmp_path: Path, cross_attention: str
) -> None:
    config.cross_attention, config.cross_start = cross_attention, "self-attention"
    model = SemVLPModel(config)
    fresh = model.encoder.blocks[1].self_attention.query.weight.clone()
    bert = BertModel(
        BertConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=12,
        )
    )
    bert.save_pretrained(tmp_path)
    starts = [fresh, bert.encoder.layer[1].attention.self.query.weight]
    for expected in starts:
        block = model.encoder.blocks[1]
        crosses = [block.cross_attention, block.region_cross_attention]
        assert sum(cross is not None for cross in crosses) == 1 + (cross_attention == "separate")
        for cross in crosses:
            assert cross is None or torch.equal(cross.query.weight, expected)
        report = load_bert(model, str(tmp_path))
    assert not [name for name in report.new if "attention" in name]


def test_options_survive_saving(
    config: SemVLPConfig, make_batch: MakeBatch, tmp_path: Path
) -> None:
    config.cross_attention, config.box_size, config.box_encoding = "separate", 7, "fourier"
    config.region_embedding, config.image_token = "sum-of-norms", "mean"
    model, batch = SemVLPForPreTraining(config).eval(), make_batch(LENGTHS)
    model.save_pretrained(tmp_path)
    again = SemVLPForPreTraining.from_pretrained(tmp_path)
    indices = torch.arange(2)
    for own, other in zip(
        *(
            network(batch, "two", token_positions=indices, region_positions=indices).values()
            for network in (model, again)
        ),
        strict=True,
    ):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cross_attention", "none"),
        ("cross_start", "bert"),
        ("box_size", 6),
        ("box_encoding", "sine"),
        ("region_embedding", "mean"),
        ("image_token", "first"),
    ],
)
def test_options_are_literals(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field}' expected one of"):
        SemVLPConfig.preset("tiny", **{field: value})
