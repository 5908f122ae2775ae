"""The shared stack against transformers' BERT with the same weights."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, BertModel

from semvlp.errors import ConfigError
from semvlp.model import PackedBatch, SemVLPConfig, SemVLPModel
from semvlp.model.packing import from_padded, to_padded
from semvlp.model.published.bert import bert_names, load_bert, to_bert
from semvlp.model.weights import WeightsError

MakeBatch = Callable[..., PackedBatch]

# Two implementations of the same float32 sums, over three layers.
ATOL = 1e-5


@pytest.fixture
def bert(tmp_path: Path) -> BertModel:
    """A random BERT, saved with its pre-training heads in tmp_path."""
    whole = BertForPreTraining(
        BertConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=12,
            initializer_range=0.3,
        )
    )
    with torch.no_grad():  # biases and norms start alike, which would hide a mix-up
        for parameter in whole.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    whole.save_pretrained(tmp_path)
    model: BertModel = whole.eval().bert
    return model


def test_text_alone_gives_the_hidden_states_of_bert(
    config: SemVLPConfig, make_batch: MakeBatch, bert: BertModel, tmp_path: Path
) -> None:
    model = SemVLPModel(config).eval()
    load_bert(model, str(tmp_path))
    batch = make_batch([(5, 0), (1, 0), (7, 0)])
    ids, real = to_padded(batch.input_ids, batch.text_lengths)
    expected = bert(input_ids=ids, attention_mask=real.long())
    actual = model(batch, "single")
    hidden = from_padded(expected.last_hidden_state, batch.text_lengths)
    torch.testing.assert_close(actual.text, hidden, rtol=0, atol=ATOL)
    torch.testing.assert_close(actual.pooled, expected.pooler_output, rtol=0, atol=ATOL)


def test_single_stream_is_berts_stack_over_text_and_regions(
    config: SemVLPConfig, make_batch: MakeBatch, bert: BertModel, tmp_path: Path
) -> None:
    model = SemVLPModel(config).eval()
    load_bert(model, str(tmp_path))
    batch = make_batch([(4, 3)])
    embedded = torch.cat([model._embed_text(batch), model._embed_regions(batch)])
    expected = bert.encoder(embedded[None])[0][0]
    actual = model(batch, "single")
    torch.testing.assert_close(torch.cat(actual[:2]), expected, rtol=0, atol=ATOL)


def test_report(config: SemVLPConfig, bert: BertModel, tmp_path: Path) -> None:
    model = SemVLPModel(config)
    report = load_bert(model, str(tmp_path))
    new = {name.removeprefix("encoder.").split(".")[0] for name in report.new}
    assert new == {"region_embeddings", "blocks"}
    assert all("cross_attention" in name for name in report.new if name.startswith("encoder."))
    assert set(report.loaded) | set(report.new) == set(model.state_dict())
    assert all(name.startswith("cls.") for name in report.unused)
    assert len(report.loaded) == len(bert.state_dict())


def test_the_table_names_every_tensor_once(bert: BertModel) -> None:
    names = bert_names(3)
    assert set(names) == set(bert.state_dict())
    assert len(set(names.values())) == len(names)


def test_out_again(config: SemVLPConfig, bert: BertModel, tmp_path: Path) -> None:
    model = SemVLPModel(config)
    load_bert(model, str(tmp_path))
    back = to_bert(model)
    assert back.keys() == bert.state_dict().keys()
    for name, tensor in bert.state_dict().items():
        assert torch.equal(back[name], tensor), name


@pytest.mark.usefixtures("bert")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 2}, r"no place for the tensor encoder\.blocks\.2"),
        ({"num_hidden_layers": 4}, r"encoder\.blocks\.3.* is missing"),
        ({"vocab_size": 41}, r"word_embeddings\.weight must be \[41, 16\].*got \[40, 16\]"),
    ],
)
def test_other_sizes(
    config: SemVLPConfig, tmp_path: Path, fields: dict[str, int], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        load_bert(SemVLPModel(dataclasses.replace(config, **fields)), str(tmp_path))


def test_a_bert_without_its_pooler(config: SemVLPConfig, bert: BertModel, tmp_path: Path) -> None:
    BertForMaskedLM(bert.config).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"not a whole BertModel, it lacks pooler\.dense"):
        load_bert(SemVLPModel(config), str(tmp_path))


def test_pickled_weights_are_not_read(
    config: SemVLPConfig, bert: BertModel, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").unlink()
    torch.save(bert.state_dict(), tmp_path / "pytorch_model.bin")
    convert = re.escape("BertModel.from_pretrained(OLD).save_pretrained(NEW)")
    with pytest.raises(ConfigError, match=rf"in safetensors.*{convert}.*model\.safetensors"):
        load_bert(SemVLPModel(config), str(tmp_path))


@pytest.mark.usefixtures("bert")
def test_damaged_weights(config: SemVLPConfig, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=re.escape(f"{str(tmp_path)!r} could not be read")):
        load_bert(SemVLPModel(config), str(tmp_path))


def test_no_checkpoint(config: SemVLPConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.pretrained must be a local directory"):
        load_bert(SemVLPModel(config), str(tmp_path))
