"""Published weights against the models of transformers they were made for."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    LxmertConfig,
    LxmertForPreTraining,
    LxmertModel,
    VisualBertConfig,
    VisualBertForPreTraining,
    VisualBertModel,
)

from semvlp.errors import ConfigError, InputError
from semvlp.model import PackedBatch, SemVLPConfig, SemVLPForPreTraining, SemVLPModel
from semvlp.model.layers.segments import Segments, attention_layout
from semvlp.model.packing import from_padded, to_padded
from semvlp.model.published.load import load_published
from semvlp.model.published.lxmert import load_lxmert, lxmert_names
from semvlp.model.published.visual_bert import load_visual_bert
from semvlp.model.weights import WeightsError

MakeBatch = Callable[..., PackedBatch]

LENGTHS = [(5, 3), (1, 0), (7, 4)]
# Two implementations of the same float32 sums, over up to five layers.
CLOSE = {"rtol": 0.0, "atol": 2e-5}
SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 12,
    "initializer_range": 0.3,
}


def shaken(model: nn.Module) -> nn.Module:
    """Biases and norms start alike, which would hide a mix-up."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def visual_bert(tmp_path: Path) -> VisualBertModel:
    """A random VisualBERT, saved with its pre-training heads in tmp_path."""
    whole = VisualBertForPreTraining(
        VisualBertConfig(num_hidden_layers=3, visual_embedding_dim=6, **SIZES)
    )
    shaken(whole).save_pretrained(tmp_path)
    model: VisualBertModel = whole.visual_bert
    return model


@pytest.fixture
def lxmert(tmp_path: Path) -> LxmertModel:
    """A random LXMERT, saved with its pre-training heads in tmp_path."""
    config = LxmertConfig(
        l_layers=3, r_layers=2, x_layers=2, visual_feat_dim=6, num_qa_labels=3, **SIZES
    )
    whole = LxmertForPreTraining(config)
    shaken(whole).save_pretrained(tmp_path)
    model: LxmertModel = whole.lxmert
    return model


@pytest.fixture
def network(config: SemVLPConfig) -> SemVLPModel:
    """A network that has a place for LXMERT's weights."""
    return SemVLPModel(replace(config, num_hidden_layers=5, cross_layers=2)).eval()


def test_single_stream_is_visual_bert(
    config: SemVLPConfig, make_batch: MakeBatch, visual_bert: VisualBertModel, tmp_path: Path
) -> None:
    model = SemVLPModel(replace(config, region_embedding="sum")).eval()
    report = load_visual_bert(model, str(tmp_path))
    batch = make_batch(LENGTHS)
    ids, real_tokens = to_padded(batch.input_ids, batch.text_lengths)
    features, real_regions = to_padded(batch.region_features, batch.region_lengths)
    expected = visual_bert(
        input_ids=ids,
        attention_mask=real_tokens.long(),
        visual_embeds=features,
        visual_attention_mask=real_regions.long(),
    )
    text, regions = expected.last_hidden_state.split([ids.shape[1], features.shape[1]], dim=1)
    actual = model(batch, "single")
    torch.testing.assert_close(actual.text, from_padded(text, batch.text_lengths), **CLOSE)
    torch.testing.assert_close(actual.regions, from_padded(regions, batch.region_lengths), **CLOSE)
    torch.testing.assert_close(actual.pooled, expected.pooler_output, **CLOSE)
    assert {name.split(".")[-1] for name in report.new if "cross" not in name} == {"mask"}
    assert all(name.startswith("cls.") for name in report.unused)


def test_a_visual_bert_needs_sums(
    config: SemVLPConfig, visual_bert: VisualBertModel, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="need region_embedding = 'sum', got 'mean-of-norms'"):
        load_published(SemVLPModel(config), str(tmp_path))


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_embeddings_are_lxmerts(
    network: SemVLPModel, make_batch: MakeBatch, lxmert: LxmertModel, tmp_path: Path, scale: float
) -> None:
    """Also where regions hardly differ: normalisation then hangs on its eps."""
    load_lxmert(network, str(tmp_path))
    batch = make_batch([(5, 3)])
    for module in (lxmert.encoder.visn_fc.visn_fc, lxmert.encoder.visn_fc.box_fc):
        module.weight.data.mul_(scale)
        module.bias.data.mul_(scale)
    for linear in (network.region_embeddings.features, network.region_embeddings.boxes):
        linear.weight.data.mul_(scale)
        linear.bias.data.mul_(scale)
    types = torch.zeros_like(batch.input_ids[None])
    text = lxmert.embeddings(batch.input_ids[None], token_type_ids=types)[0]
    torch.testing.assert_close(network._embed_text(batch), text, **CLOSE)
    regions = lxmert.encoder.visn_fc(batch.region_features[None], batch.region_boxes[None])[0]
    torch.testing.assert_close(network._embed_regions(batch), regions, **CLOSE)


def test_lower_blocks_are_lxmerts_language_layers(
    network: SemVLPModel, make_batch: MakeBatch, lxmert: LxmertModel, tmp_path: Path
) -> None:
    load_lxmert(network, str(tmp_path))
    batch = make_batch([(5, 3)])
    output = lxmert(
        input_ids=batch.input_ids[None],
        visual_feats=batch.region_features[None],
        visual_pos=batch.region_boxes[None],
        output_hidden_states=True,
    )
    entering: list[torch.Tensor] = []
    hook = network.encoder.blocks[3].register_forward_pre_hook(
        lambda _, inputs: entering.append(inputs[0])
    )
    network(batch, "two")
    hook.remove()
    expected = output.language_hidden_states[2][0]
    torch.testing.assert_close(entering[0][batch.text_rows], expected, **CLOSE)


@pytest.mark.parametrize("layer", [0, 1])
def test_parts_of_the_upper_blocks_are_lxmerts(
    network: SemVLPModel, lxmert: LxmertModel, tmp_path: Path, layer: int
) -> None:
    load_lxmert(network, str(tmp_path))
    other, block = lxmert.encoder.x_layers[layer], network.encoder.blocks[3 + layer]
    text, regions = torch.randn(5, 16), torch.randn(3, 16)
    tokens = Segments(torch.tensor([0]), torch.tensor([5]))
    objects = Segments(torch.tensor([5]), torch.tensor([3]))
    row = torch.cat([text, regions])
    crossed = other.cross_att(text[None], None, regions[None], None)
    actual = block.cross_attend(row, attention_layout([(tokens, objects), (objects, tokens)]))
    torch.testing.assert_close(actual, torch.cat([part[0][0] for part in crossed]), **CLOSE)
    attended = other.lang_self_att(text[None], None)[0][0]
    torch.testing.assert_close(
        block.self_attend(text, attention_layout([(tokens, tokens)])), attended, **CLOSE
    )
    fed = other.output_fc(text[None], regions[None])[0][0]
    torch.testing.assert_close(block.apply_feed_forward(text), fed, **CLOSE)


def test_what_lxmert_has_no_place_for(
    network: SemVLPModel, lxmert: LxmertModel, tmp_path: Path
) -> None:
    report = load_lxmert(network, str(tmp_path))
    assert report.new == ("region_embeddings.mask",)
    state = lxmert.state_dict()
    names = lxmert_names(3, 2)
    assert set(report.unused) & set(state) == set(state) - set(names)
    left = {tuple(name.split(".")[1:4:2]) for name in set(state) - set(names)}
    assert left == {("r_layers", part) for part in ("attention", "intermediate", "output")} | {
        ("x_layers", part) for part in ("visn_self_att", "visn_inter", "visn_output")
    }
    assert {name.split(".")[0] for name in report.unused} == {
        "encoder",
        "cls",
        "obj_predict_head",
        "answer_head",
    }


def test_the_report_names_whatever_was_not_loaded(
    network: SemVLPModel, lxmert: LxmertModel, tmp_path: Path
) -> None:
    report = load_lxmert(network, str(tmp_path))
    line = str(report)
    assert line.startswith(f"{tmp_path}: {len(report.loaded)} tensors loaded; 1 keep their initial")
    assert "values: region_embeddings.mask (1); " in line
    assert "encoder.r_layers.*.attention.self.query (4)" in line
    assert "encoder.x_layers.*.visn_inter.dense (4)" in line


@pytest.mark.usefixtures("lxmert")
def test_features_of_published_weights_are_not_standardised(
    network: SemVLPModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    embeddings = network.region_embeddings
    embeddings.standardise(torch.ones(6), torch.full((6,), 2.0))
    report = load_published(network, str(tmp_path))
    assert caplog.messages == [str(report)]
    assert embeddings.feature_mean.tolist() == [0.0] * 6
    assert embeddings.feature_deviation.tolist() == [1.0] * 6
    with pytest.raises(
        ConfigError, match=r"model\.standardise must be false with weights of LXMERT"
    ):
        embeddings.standardise(torch.ones(6), torch.ones(6))


@pytest.mark.usefixtures("lxmert")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 6}, "need num_hidden_layers = 5, got 6"),
        ({"cross_layers": 3}, "need cross_layers = 2, got 3"),
        ({"cross_attention": "separate"}, "need cross_attention = 'shared', got 'separate'"),
        ({"box_size": 7}, "need box_size = 4, got 7"),
    ],
)
def test_an_lxmert_needs_its_own_options(
    network: SemVLPModel, tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        load_published(SemVLPModel(replace(network.config, **fields)), str(tmp_path))


def test_the_family_is_read_from_the_checkpoint(config: SemVLPConfig, tmp_path: Path) -> None:
    bert = BertModel(BertConfig(num_hidden_layers=3, **SIZES))
    bert.save_pretrained(tmp_path)
    model = SemVLPModel(config)
    load_published(model, str(tmp_path))
    assert torch.equal(model.pooler.weight, bert.pooler.dense.weight)
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="of bert, lxmert, visual_bert, semvlp, got"):
        load_published(model, str(tmp_path))
    with pytest.raises(ConfigError, match="could not be read"):
        load_published(model, str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", "1000000000"),
        ("num_hidden_layers", "1000000000"),
        ("vocab_size", "1000000"),
        ("seed", "9" * 5000),
        ("seed", "[" * 100_000),
    ],
)
def test_a_config_of_far_more_than_its_weights_is_refused(
    config: SemVLPConfig, tmp_path: Path, name: str, value: str
) -> None:
    sizes = {**SIZES, "hidden_size": 256, "num_attention_heads": 4}
    BertModel(BertConfig(num_hidden_layers=1, **sizes)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    text = json.dumps(json.loads(path.read_text()) | {name: "VALUE"})
    path.write_text(text.replace('"VALUE"', value))
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        load_published(SemVLPModel(config), str(tmp_path))


def test_our_own_encoder_goes_on(config: SemVLPConfig, tmp_path: Path) -> None:
    earlier = SemVLPForPreTraining(replace(config, answers=["yes", "no"]))
    earlier.semvlp.region_embeddings.feature_mean.fill_(3)
    earlier.save_pretrained(tmp_path)
    model = SemVLPModel(config)
    report = load_published(model, str(tmp_path))
    assert not report.new
    expected = earlier.semvlp.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    with pytest.raises(WeightsError):
        load_published(SemVLPModel(replace(config, cross_layers=1)), str(tmp_path))
