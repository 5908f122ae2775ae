"""Evaluations by the heads of pre-training, without fine-tuning."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from semvlp.errors import ConfigError, InputError
from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.eval.lookup import RegionLookup
from semvlp.eval.matching.score_matrix import score_matrix
from semvlp.eval.network import Network, open_network
from semvlp.eval.predict import probabilities
from semvlp.eval.tasks.table import TASKS
from semvlp.model.config import SemVLPConfig
from semvlp.model.semvlp import SemVLPForPreTraining
from semvlp.shards.open import open_store

Checkpoint = Callable[..., Path]  # the fixture of that name


def test_matching_head_of_pre_training_ranks_without_fine_tuning(
    checkpoint: Checkpoint,
    network: Callable[..., Network],
    official: dict[str, Path],
    shards: Path,
    tmp_path: Path,
) -> None:
    net = network("retrieval")
    config = SemVLPConfig.from_pretrained(checkpoint("retrieval")).to_diff_dict()
    del config["task_head"], config["id2label"], config["label2id"]
    pretrained = SemVLPForPreTraining(SemVLPConfig(**config))
    pretrained.save_pretrained(tmp_path / "pretrained")
    net.tokenizer.save_pretrained(tmp_path / "pretrained")
    found = open_network(
        tmp_path / "pretrained", device="cpu", batch_size=4, zero_shot=TASKS["retrieval"]
    )
    assert found.labels == ["mismatch", "match"]
    assert torch.equal(found.model.head.weight, pretrained.match_head.weight)
    arguments = tmp_path / "pretrained", [official["retrieval"]], shards
    report = evaluate(
        TASKS["retrieval"], *arguments, tmp_path / "eval", EvalOptions(split="test", mode="both")
    )
    assert report.scores is not None
    assert json.loads((tmp_path / "eval" / "provenance.json").read_text())["zero_shot"]
    weights, _, store = arguments
    with pytest.raises(InputError, match="must be fine-tuned on a task"):
        evaluate(
            TASKS["nlvr"],
            weights,
            [official["nlvr"]],
            store,
            tmp_path / "n",
            EvalOptions(split="test"),
        )


@pytest.mark.parametrize(
    ("name", "answers", "labels"),
    [
        ("vqa", ["yes", "2", "3"], ["yes", "2", "3"]),
        ("gqa", ["blue", "2", "red"], ["blue", "2", "red"]),
        # A task with labels of its own takes their rows, in its own order, and no others.
        ("nlvr", ["red", "true", "false"], ["false", "true"]),
    ],
)
def test_answer_head_of_pre_training_answers_without_fine_tuning(
    name: str,
    answers: list[str],
    labels: list[str],
    network: Callable[..., Network],
    official: dict[str, Path],
    shards: Path,
    tmp_path: Path,
) -> None:
    weights = _pretrained(network(name), answers, tmp_path / "pretrained")
    task, paths, out = TASKS[name], [official[name]], tmp_path / "eval"
    evaluate(task, weights, paths, shards, out, EvalOptions(split="test", mode="both"))
    assert json.loads((out / "provenance.json").read_text())["zero_shot"]
    given = task.read_answers(out / task.file_name("test"))
    assert set(given.values()) <= set(labels)

    found = open_network(weights, device="cpu", batch_size=4, zero_shot=task)
    assert found.labels == labels
    rows = [answers.index(label) for label in labels]
    head = SemVLPForPreTraining.from_pretrained(weights).answer_head
    assert torch.equal(found.model.head.outer.weight, head.outer.weight[rows])
    assert torch.equal(found.model.head.inner.weight, head.inner.weight)


def test_answers_of_pre_training_exclude_each_other_whatever_the_task_is_trained_with(
    network: Callable[..., Network], official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    weights = _pretrained(network("vqa"), ["yes", "2"], tmp_path / "pretrained")
    task = TASKS["vqa"]
    examples = task.read([official["vqa"]], split="test")
    opened = open_network(weights, device="cpu", batch_size=4, zero_shot=task)
    with open_store(shards) as store:
        lookup = RegionLookup(store, examples, max_regions=9)
        assert probabilities(opened, task, examples, lookup, "two").sum(1) == pytest.approx(1.0)
        tuned = dataclasses.replace(opened, zero_shot=False)
        assert probabilities(tuned, task, examples, lookup, "two").sum(1) != pytest.approx(1.0)


@pytest.mark.parametrize("name", ["nlvr", "nlvr2", "vqa"])
def test_pre_training_that_cannot_answer_a_task_must_be_fine_tuned(
    name: str,
    network: Callable[..., Network],
    official: dict[str, Path],
    shards: Path,
    tmp_path: Path,
) -> None:
    """One label of NLVR is no answer; NLVR2 has two images; without answers there is no head."""
    answers = [] if name == "vqa" else ["true", "True", "False"]
    weights = _pretrained(network(name), answers, tmp_path / "pretrained")
    options = EvalOptions(split="test")
    with pytest.raises(InputError, match=f"no head of its own answers {name}; run `semvlp finet"):
        evaluate(TASKS[name], weights, [official[name]], shards, tmp_path / "e", options)
    assert not (tmp_path / "e").exists()


def _pretrained(net: Network, answers: list[str], path: Path) -> Path:
    """Save a random network of pre-training that knows these answers, sizes as in `net`."""
    config = net.model.config.to_diff_dict()
    for name in ("task_head", "id2label", "label2id"):
        del config[name]
    torch.manual_seed(1)
    SemVLPForPreTraining(SemVLPConfig(**{**config, "answers": answers})).save_pretrained(path)
    net.tokenizer.save_pretrained(path)
    return path


def test_a_shortlist_and_what_it_costs(
    checkpoint: Checkpoint, official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    """No caption names the one object class, so of two images the first is everyone's choice."""
    arguments = checkpoint("retrieval"), [official["retrieval"]], shards
    report = evaluate(
        TASKS["retrieval"],
        *arguments,
        tmp_path / "eval",
        EvalOptions(split="test", mode="both", shortlist=1),
    )
    assert report.scores is not None
    assert report.scores["shortlist"] == {"size": 1, "ir_lost": 50, "tr_lost": 50, "pairs": 62.5}
    assert report.scores["ir_r1"] <= 50
    page = (tmp_path / "eval" / "report.html").read_text()
    assert re.search(r"captions without their image</dt>\s*<dd>50\.0 %", page)
    with pytest.raises(ConfigError, match="a shortlist is for retrieval"):
        evaluate(
            TASKS["nlvr"],
            checkpoint("nlvr"),
            [official["nlvr"]],
            shards,
            tmp_path / "e",
            EvalOptions(split="dev", shortlist=1),
        )


def test_bf16_keeps_the_head_in_float32(
    checkpoint: Checkpoint, official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    """Scores of a head in bfloat16 would tie."""
    net = open_network(checkpoint("retrieval"), device="cpu", batch_size=4, precision="bf16")
    kinds = {name: parameter.dtype for name, parameter in net.model.named_parameters()}
    coarse = {name for name, kind in kinds.items() if kind == torch.bfloat16}
    assert coarse
    assert not any(name.startswith(("head.", "semvlp.pooler.")) for name in coarse)
    examples = TASKS["retrieval"].read([official["retrieval"]], split="test")
    with open_store(shards) as store:
        lookup = RegionLookup(store, examples, max_regions=100)
        odds = score_matrix(net, examples, lookup, "two")
        exact = score_matrix(
            open_network(checkpoint("retrieval"), device="cpu", batch_size=4),
            examples,
            lookup,
            "two",
        )
    assert len(np.unique(odds)) == odds.size
    np.testing.assert_allclose(odds, exact, atol=0.3)
