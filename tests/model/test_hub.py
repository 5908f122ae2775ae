"""Checkpoints as Hugging Face has them: quiet, with a card, on the hub."""

import dataclasses
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModel, AutoModelForVisualQuestionAnswering

from semvlp.errors import InputError
from semvlp.model import (
    PackedBatch,
    SemVLPConfig,
    SemVLPForPreTraining,
    SemVLPForTask,
    SemVLPForVisualQuestionAnswering,
    SemVLPModel,
)
from semvlp.model.card import model_card
from semvlp.model.config import TaskHead

MakeBatch = Callable[..., PackedBatch]


def test_nothing_is_printed(
    config: SemVLPConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    SemVLPForPreTraining(config).save_pretrained(tmp_path)
    SemVLPForPreTraining.from_pretrained(tmp_path)
    SemVLPForTask.from_pretraining(tmp_path, head="pooled", labels=["yes"])
    assert capfd.readouterr() == ("", "")


def test_word_embeddings_are_found_and_replaced(config: SemVLPConfig) -> None:
    whole = SemVLPForPreTraining(config)
    for model in (whole.semvlp, whole, SemVLPForTask(config.for_task("pooled", ["yes"]))):
        inner = getattr(model, "semvlp", model)
        assert model.get_input_embeddings() is inner.text_embeddings.word_embeddings
        table = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        model.set_input_embeddings(table)
        assert inner.text_embeddings.word_embeddings is table


def test_the_vocabulary_may_grow(config: SemVLPConfig, make_batch: MakeBatch) -> None:
    model = SemVLPForPreTraining(config).eval()
    before = model.get_input_embeddings().weight.clone()
    model.resize_token_embeddings(43)
    table = model.get_input_embeddings().weight
    assert model.config.vocab_size == 43
    assert model.token_head.decoder.weight is table
    assert torch.equal(table[:40], before)
    place = torch.tensor([0])
    batch = make_batch([(3, 2)])
    actual = model(batch, "two", token_positions=place, region_positions=place)
    assert actual.token_logits.shape == (1, 43)


def test_activation_checkpointing_says_nothing_and_evaluation_still_runs(
    config: SemVLPConfig, make_batch: MakeBatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = SemVLPForTask(config.for_task("pooled", ["yes"]))
    logging.getLogger("transformers").addHandler(caplog.handler)
    try:
        model.activation_checkpointing_enable({"use_reentrant": False})
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert caplog.messages == []
    with torch.inference_mode():
        assert model(make_batch([(3, 2)]), "single").logits.shape == (1, 1)


def test_weights_that_are_not_there_are_reported(
    config: SemVLPConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """transformers' own report, which our loading must not silence."""
    SemVLPModel(config).save_pretrained(tmp_path)
    logging.getLogger("transformers").addHandler(caplog.handler)
    try:
        _, info = SemVLPForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert {name.split(".")[0] for name in info["missing_keys"]} == {
        "token_head",
        "region_head",
        "match_head",
        "answer_head",
    }
    for name in ("region_head.transform.dense.weight", "match_head.bias"):
        assert name in info["missing_keys"]
        assert name in caplog.text


@pytest.mark.parametrize("options", [{}, {"use_safetensors": False}])
def test_pickled_weights_are_not_read(
    config: SemVLPConfig, tmp_path: Path, options: dict[str, bool]
) -> None:
    model = SemVLPModel(config)
    model.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    AutoModel.from_pretrained(tmp_path, **options)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModel.from_pretrained(tmp_path, **options)


def test_the_card_states_the_configuration(config: SemVLPConfig, tmp_path: Path) -> None:
    model = SemVLPForPreTraining(config)
    model.save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "transformers"
    assert "semvlp" in card.data.tags
    assert "# SemVLPForPreTraining" in card.text
    assert f"| parameters | {model.num_parameters():,} |" in card.text
    assert "| cross-attention | upper 2 layers, shared weights |" in card.text
    assert "| answers | 4 |" in card.text
    task = SemVLPForTask(config.for_task("pair", ["False", "True"]))
    task.save_pretrained(tmp_path / "task")
    assert "| head | pair, 2 labels |" in (tmp_path / "task" / "README.md").read_text()


def test_the_card_tells_task_detector_and_scores(config: SemVLPConfig) -> None:
    profile = {"backend": "torchvision", "network": {"trunk": "small"}, "weights_sha256": "a1" * 32}
    asked = config.for_task("pooled", ["yes", "no"], task="vqa", region_profile=profile)
    card = ModelCard(model_card(asked, "SemVLPForTask", 7, {"accuracy": 59.44, "yes/no": 80.0}))
    assert card.data.pipeline_tag == "visual-question-answering"
    assert {one.metric_type: one.metric_value for one in card.data.eval_results} == {
        "accuracy": 59.44,
        "yes/no": 80.0,
    }
    assert "| detector | torchvision, weights a1a1a1a1a1a1 |" in card.text
    assert "| regions: network.trunk | small |" in card.text
    assert "| task | vqa |" in card.text
    assert "| validation: accuracy | 59.44 |" in card.text
    foreign = dataclasses.replace(asked, region_profile={"source": "features.tsv", "size": 7})
    assert "| detector | features.tsv |" in model_card(foreign, "SemVLPForTask", 7, {})
    assert "| detector | not told |" in model_card(config, "SemVLPModel", 7, {})


@pytest.mark.parametrize(
    ("head", "task", "pipeline"),
    [
        (None, None, "feature-extraction"),
        ("match", "retrieval", "zero-shot-image-classification"),
        ("pooled", "snli-ve", None),
        ("pooled", "gqa", "visual-question-answering"),
        ("pair", "nlvr2", None),
        ("region", "refcoco", "zero-shot-object-detection"),
    ],
)
def test_the_card_has_a_pipeline_where_one_fits(
    config: SemVLPConfig, head: TaskHead | None, task: str | None, pipeline: str | None
) -> None:
    labels = ["referred"] if head == "region" else ["no", "yes"]
    made = config if head is None else config.for_task(head, labels, task=task)
    assert ModelCard(model_card(made, "SemVLP", 7, {})).data.pipeline_tag == pipeline


def test_weights_may_be_read_by_who_may_read_their_neighbours(
    config: SemVLPConfig, tmp_path: Path
) -> None:
    before = os.umask(0o027)
    try:
        SemVLPModel(config).save_pretrained(tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("README.md", "config.json", "model.safetensors"), 0o640)


def test_questions_are_answered_by_who_has_learned_to(config: SemVLPConfig, tmp_path: Path) -> None:
    SemVLPForTask(config.for_task("pooled", ["yes", "no"], task="vqa")).save_pretrained(tmp_path)
    model = AutoModelForVisualQuestionAnswering.from_pretrained(tmp_path)
    assert isinstance(model, SemVLPForVisualQuestionAnswering)
    for other in (config, config.for_task("pair", ["a", "b"], task="nlvr2")):
        with pytest.raises(InputError, match="fine-tuned on vqa or gqa"):
            AutoModelForVisualQuestionAnswering.from_config(other)


def test_a_card_written_by_hand_stays(config: SemVLPConfig, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("ours")
    SemVLPModel(config).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "ours"


@pytest.mark.parametrize("card_there", [False, True])
def test_push_to_hub(
    config: SemVLPConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, card_there: bool
) -> None:
    calls: dict[str, Any] = {}

    class Api:
        def __init__(self, token: str | None = None) -> None:
            calls["token"] = token

        def create_repo(self, repo_id: str, **options: Any) -> SimpleNamespace:
            calls["created"] = repo_id, options
            return SimpleNamespace(repo_id=f"someone/{repo_id}")

        def file_exists(self, repo_id: str, name: str, **_: Any) -> bool:
            return card_there and (repo_id, name) == ("someone/semvlp", "README.md")

        def upload_folder(self, *, folder_path: str, **options: Any) -> str:
            calls["files"] = {path.name for path in Path(folder_path).iterdir()}
            calls["model"] = AutoModel.from_pretrained(folder_path)
            calls["options"] = options
            return "https://huggingface.co/someone/semvlp/commit/1"

    monkeypatch.setattr("semvlp.model.hub.HfApi", Api)
    model = SemVLPModel(config)
    address = model.push_to_hub("semvlp", private=True, token="secret", create_pr=True)
    assert address == "https://huggingface.co/someone/semvlp/commit/1"
    assert calls["token"] == "secret"
    assert calls["created"] == ("semvlp", {"private": True, "exist_ok": True})
    card = set() if card_there else {"README.md"}
    assert calls["files"] == {"config.json", "model.safetensors"} | card
    assert calls["options"] == {
        "repo_id": "someone/semvlp",
        "commit_message": "Upload SemVLPModel",
        "revision": None,
        "create_pr": True,
    }
    assert torch.equal(calls["model"].pooler.weight, model.pooler.weight)


def test_the_attention_is_honoured_when_loading(config: SemVLPConfig, tmp_path: Path) -> None:
    SemVLPModel(config).save_pretrained(tmp_path)
    model = SemVLPModel.from_pretrained(tmp_path, attn_implementation="sdpa")
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(ValueError, match="one of auto, varlen, sdpa, got 'eager'"):
        AutoModel.from_pretrained(tmp_path, attn_implementation="eager")
