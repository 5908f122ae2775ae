"""What fine-tuning may start from."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import BertConfig, BertModel, GPT2Config

from semvlp.errors import ConfigError, InputError
from semvlp.model.semvlp import SemVLPForPreTraining, SemVLPForTask
from semvlp.model.tokenizer import load_tokenizer
from semvlp.train.run.report import RunReport
from tests.train.finetuning import Colours

Run = Callable[..., RunReport]


def test_the_encoder_comes_from_the_checkpoint(finetuned: Run, init: Path, tmp_path: Path) -> None:
    finetuned("train.steps=1", "train.lr=0.0", "model.dropout=0.25", init=init)
    model = SemVLPForTask.from_pretrained(tmp_path / "last")
    before = SemVLPForPreTraining.from_pretrained(init)
    for name, tensor in before.semvlp.state_dict().items():
        assert torch.equal(model.semvlp.state_dict()[name], tensor), name
    assert model.config.hidden_dropout_prob == 0.25


def test_from_nothing(finetuned: Run, tmp_path: Path) -> None:
    report = finetuned("train.steps=2")
    assert (report.steps, report.pairs) == (2, 16)
    assert SemVLPForTask.from_pretrained(tmp_path / "last").config.num_hidden_layers == 3


def test_a_bert_may_be_the_start(finetuned: Run, init: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(init))
    bert = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=512,
        )
    )
    bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    start, out = str(tmp_path / "bert"), tmp_path / "run"
    finetuned("train.steps=1", "train.lr=0.0", init=start, out=out)
    model = SemVLPForTask.from_pretrained(tmp_path / "run" / "last")
    ours = model.semvlp.text_embeddings.word_embeddings.weight
    assert torch.equal(ours, bert.embeddings.word_embeddings.weight)
    told = json.loads((tmp_path / "run" / "inputs.json").read_text())
    assert told["init"] == str(tmp_path / "bert")


def test_a_name_on_the_hub_is_fetched(
    finetuned: Run, init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        assert not any("bin" in pattern or "pt" in pattern for pattern in allow_patterns)
        asked.append(name)
        return str(init)

    monkeypatch.setattr("semvlp.model.hub.snapshot_download", fetch)
    finetuned("train.steps=1", "train.lr=0.0", init="someone/semvlp")
    assert asked == ["someone/semvlp"]
    assert json.loads((tmp_path / "inputs.json").read_text())["init"] == "someone/semvlp"


def test_what_is_no_start_says_so(
    finetuned: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, **options: Any) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("semvlp.model.hub.snapshot_download", refuse)
    with pytest.raises(InputError, match="no folder here, and the Hub says: no connection"):
        finetuned("train.steps=1", init="some/name", out=tmp_path / "a")
    GPT2Config().save_pretrained(tmp_path / "gpt")
    with pytest.raises(ConfigError, match="gpt2 model"):
        finetuned("train.steps=1", init=tmp_path / "gpt", out=tmp_path / "b")


def test_answers_that_are_no_labels_are_told_and_refused_where_there_are_no_others(
    finetuned: Run,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Colours, "labels", lambda self, examples: ["red", "blue"])
    finetuned("train.steps=1", out=tmp_path / "some")
    told = re.search(r"(\d+) of 24 examples have a right answer among the labels", caplog.text)
    assert told is not None
    assert 0 < int(told[1]) < 24
    monkeypatch.setattr(Colours, "labels", lambda self, examples: ["Rot", "Blau"])
    with pytest.raises(InputError, match=r"colours\.jsonl: 0 of 24 examples have a right answer"):
        finetuned("train.steps=1", out=tmp_path / "none")
