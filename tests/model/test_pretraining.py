"""SemVLPForPreTraining: its predictions, its names, its files."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForPreTraining

from semvlp.model import PackedBatch, SemVLPConfig, SemVLPForPreTraining, SemVLPModel
from semvlp.model.packing import Mode
from semvlp.model.semvlp import PreTrainingOutput

MakeBatch = Callable[..., PackedBatch]

LENGTHS = [(3, 2), (2, 4)]
TOKENS, REGIONS = torch.tensor([4, 1, 1]), torch.tensor([5])

# Written by hand: these names are a public format.
KEYS = {
    "semvlp.text_embeddings.word_embeddings.weight": (40, 16),
    "semvlp.text_embeddings.position_embeddings.weight": (12, 16),
    "semvlp.text_embeddings.token_type_embeddings.weight": (2, 16),
    "semvlp.text_embeddings.norm.bias": (16,),
    "semvlp.region_embeddings.features.weight": (16, 6),
    "semvlp.region_embeddings.feature_norm.weight": (16,),
    "semvlp.region_embeddings.boxes.weight": (16, 4),
    "semvlp.region_embeddings.box_norm.weight": (16,),
    "semvlp.region_embeddings.mask": (16,),
    "semvlp.encoder.blocks.0.self_attention.query.weight": (16, 16),
    "semvlp.encoder.blocks.0.self_attention.output.bias": (16,),
    "semvlp.encoder.blocks.0.self_attention_norm.weight": (16,),
    "semvlp.encoder.blocks.0.feed_forward.inner.weight": (32, 16),
    "semvlp.encoder.blocks.0.feed_forward.outer.weight": (16, 32),
    "semvlp.encoder.blocks.0.feed_forward_norm.bias": (16,),
    "semvlp.encoder.blocks.1.cross_attention.key.weight": (16, 16),
    "semvlp.encoder.blocks.2.cross_attention_norm.weight": (16,),
    "semvlp.pooler.weight": (16, 16),
    "token_head.transform.dense.weight": (16, 16),
    "token_head.transform.norm.weight": (16,),
    "token_head.decoder.weight": (40, 16),
    "token_head.decoder.bias": (40,),
    "region_head.transform.dense.weight": (16, 16),
    "region_head.features.weight": (6, 16),
    "region_head.objects.weight": (5, 16),
    "region_head.attributes.weight": (4, 16),
    "match_head.weight": (2, 16),
    "answer_head.inner.weight": (32, 16),
    "answer_head.norm.weight": (32,),
    "answer_head.outer.weight": (4, 32),
}


def predict(
    model: SemVLPForPreTraining, batch: PackedBatch, mode: Mode = "two"
) -> PreTrainingOutput:
    with torch.no_grad():
        output: PreTrainingOutput = model(
            batch, mode, token_positions=TOKENS, region_positions=REGIONS
        )
    return output


@pytest.mark.parametrize("mode", ["single", "two"])
def test_shapes(config: SemVLPConfig, make_batch: MakeBatch, mode: Mode) -> None:
    output = predict(SemVLPForPreTraining(config), make_batch(LENGTHS), mode)
    assert [tuple(part.shape) for part in output.values()] == [
        (3, 40),
        (1, 6),
        (1, 5),
        (1, 4),
        (2, 2),
        (2, 4),
    ]


def test_predictions_are_those_at_the_positions(
    config: SemVLPConfig, make_batch: MakeBatch
) -> None:
    model, batch = SemVLPForPreTraining(config).eval(), make_batch(LENGTHS)
    encoded, output = model.semvlp(batch, "two"), predict(model, batch)
    torch.testing.assert_close(output.token_logits, model.token_head(encoded.text)[TOKENS])
    features, objects, attributes = model.region_head(encoded.regions)
    torch.testing.assert_close(output.region_features, features[REGIONS])
    torch.testing.assert_close(output.object_logits, objects[REGIONS])
    torch.testing.assert_close(output.attribute_logits, attributes[REGIONS])
    torch.testing.assert_close(output.match_logits, model.match_head(encoded.pooled))


def test_nothing_masked_gives_empty_predictions(
    config: SemVLPConfig, make_batch: MakeBatch
) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    output = SemVLPForPreTraining(config)(
        make_batch(LENGTHS), "single", token_positions=none, region_positions=none
    )
    assert (len(output.token_logits), len(output.region_features)) == (0, 0)


def test_vocabularies_may_be_empty(config: SemVLPConfig, make_batch: MakeBatch) -> None:
    bare = dataclasses.replace(config, answers=[], num_attributes=0, num_objects=0)
    model = SemVLPForPreTraining(bare)
    output = predict(model, make_batch(LENGTHS))
    assert output.answer_logits.shape == (2, 0)
    assert output.attribute_logits.shape == output.object_logits.shape == (1, 0)
    assert not [name for name in model.state_dict() if name.startswith("answer_head")]


def test_state_dict_names(config: SemVLPConfig) -> None:
    state = SemVLPForPreTraining(config).state_dict()
    assert {name: tuple(state[name].shape) for name in KEYS} == KEYS
    slots = {name.split(".")[3] for name in state if "cross_attention" in name}
    assert slots == {"1", "2"}


def test_every_module_is_initialised(config: SemVLPConfig) -> None:
    model = SemVLPForPreTraining(dataclasses.replace(config, initializer_range=0.02))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert 0.01 < parameter.std() < 0.03, name


def test_decoder_is_tied_before_and_after_saving(config: SemVLPConfig, tmp_path: Path) -> None:
    model = SemVLPForPreTraining(config)
    assert model.token_head.decoder.weight is model.semvlp.text_embeddings.word_embeddings.weight
    model.save_pretrained(tmp_path)
    assert "token_head.decoder.weight" not in load_file(tmp_path / "model.safetensors")
    again = SemVLPForPreTraining.from_pretrained(tmp_path)
    assert again.token_head.decoder.weight is again.semvlp.text_embeddings.word_embeddings.weight


@pytest.mark.parametrize("auto", [SemVLPForPreTraining, AutoModelForPreTraining])
def test_round_trip_is_exact(
    config: SemVLPConfig,
    make_batch: MakeBatch,
    tmp_path: Path,
    auto: type[SemVLPForPreTraining],
) -> None:
    model, batch = SemVLPForPreTraining(config).eval(), make_batch(LENGTHS)
    model.save_pretrained(tmp_path)
    again, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert again.config.answers == ["yes", "no", "red", "2"]
    state = again.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name
    # Not equal to the last bit: tensors of a mapped file lie at other offsets in memory.
    for given, actual in zip(
        *(predict(one, batch).values() for one in (model, again)), strict=True
    ):
        torch.testing.assert_close(given, actual)


def test_the_encoder_alone_from_a_pretraining_checkpoint(
    config: SemVLPConfig, make_batch: MakeBatch, tmp_path: Path
) -> None:
    model, batch = SemVLPForPreTraining(config).eval(), make_batch(LENGTHS)
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert isinstance(again, SemVLPModel)
    torch.testing.assert_close(again(batch, "two").pooled, model.semvlp(batch, "two").pooled)
