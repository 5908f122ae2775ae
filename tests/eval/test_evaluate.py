"""Whole evaluations: what is written, and what does not go together."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from semvlp.errors import InputError
from semvlp.eval.eval_report import EvalReport
from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.eval.files.credits_file import read_credits
from semvlp.eval.network import open_network
from semvlp.eval.score_table import score
from semvlp.eval.tasks.table import TASKS

Checkpoint = Callable[..., Path]  # the fixture of that name


@pytest.mark.parametrize("name", TASKS)
def test_everything_is_written(
    name: str, checkpoint: Checkpoint, official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    task, weights, out = TASKS[name], checkpoint(name), tmp_path / "eval"
    report = evaluate(
        task, weights, [official[name]], shards, out, EvalOptions(split="test", mode="both")
    )
    leaderboard = task.file_name("test")
    side_files = {"scores.json", "credits.jsonl", "provenance.json", "report.html"}
    assert {path.name for path in out.iterdir()} == {leaderboard, *side_files}

    scores = json.loads((out / "scores.json").read_text())
    assert scores == report.scores
    assert (scores["task"], scores["split"], scores["mode"]) == (name, "test", "both")
    assert list(scores["modes"]) == ["single", "two", "both"]
    assert scores[task.metric] == scores["modes"]["both"][task.metric]
    assert scores["counts"]["examples"] == report.examples

    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["checkpoint"]["sha256"] == _sha256(weights / "model.safetensors")
    assert provenance["annotations"][0]["sha256"] == _sha256(official[name])
    assert provenance["submission"]["sha256"] == _sha256(out / leaderboard)
    assert provenance["shards"]["profile"]
    assert provenance["submission"]["bytes"] == (out / leaderboard).stat().st_size
    names = {"semvlp", "revision", "python", "torch", "transformers"}
    assert set(provenance["versions"]) == names

    again = score(task, [official[name]], out / leaderboard)
    assert again["counts"] == scores["counts"]
    of_file = {**scores["modes"]["both"]}
    # A leaderboard file has no probabilities.
    assert ("ece" in of_file) == (name != "retrieval")
    of_file.pop("ece", None)
    if name == "refcoco":
        # The file does not tell the regions, and so not what other choices among them reach.
        of_file = {key: value for key, value in of_file.items() if "accuracy" in key}
    assert {key: again[key] for key in of_file} == of_file
    _check_intervals(task.metric, scores, read_credits(out / "credits.jsonl"))


def _check_intervals(metric: str, scores: dict[str, Any], credits: dict[str, Any]) -> None:
    """Every mean has an interval around it, and the credits that it is the mean of."""
    assert list(credits) == list(scores["modes"])
    for mode, of_mode in scores["modes"].items():
        means = {n: v for n, v in of_mode.items() if isinstance(v, float)}
        assert credits[mode].keys() == means.keys() - {"ece", "distribution"}
        assert metric in credits[mode]
        for name, own in credits[mode].items():
            low, high = of_mode[f"{name}_interval"]
            assert low <= means[name] <= high
            assert own.percent == pytest.approx(means[name], abs=0.006)


def test_a_split_without_labels_gets_no_scores(
    checkpoint: Checkpoint, save: Callable[..., Path], make: type, shards: Path, tmp_path: Path
) -> None:
    task, out = TASKS["nlvr2"], tmp_path / "eval"
    arguments = checkpoint("nlvr2"), shards, out

    def run(name: str, label: str | None) -> EvalReport:
        weights, store, into = arguments
        path = save(name, [make.nlvr2("dev-1-0-0", label), make.nlvr2("dev-2-0-0", label)])
        return evaluate(task, weights, [path], store, into, EvalOptions(split="x"))

    assert run("labelled.json", "True").scores is not None
    assert run("test.json", None).scores is None
    assert {path.name for path in out.iterdir()} == {
        "nlvr2_x.csv",
        "provenance.json",
        "report.html",
    }
    with pytest.raises(InputError, match="must hold labels to score against"):
        score(task, [tmp_path / "test.json"], out / "nlvr2_x.csv")
    mixed = save("mixed.json", [make.nlvr2("dev-1-0-0"), make.nlvr2("dev-2-0-0", None)])
    with pytest.raises(InputError, match="1 of 2 have"):
        evaluate(task, arguments[0], [mixed], shards, out, EvalOptions(split="x"))


def test_one_mode_has_no_others(
    checkpoint: Checkpoint, official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    weights = checkpoint("nlvr")
    report = evaluate(
        TASKS["nlvr"],
        weights,
        [official["nlvr"]],
        shards,
        tmp_path / "e",
        EvalOptions(split="d", mode="two"),
    )
    assert report.scores is not None
    assert report.scores["mode"] == "two"
    assert "modes" not in report.scores


def test_the_limits_of_training_hold(
    checkpoint: Checkpoint, official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    weights = checkpoint("nlvr")
    (weights / "training").mkdir()
    settings = "[data]\nmax_regions = 2\nmax_text_length = 7\ncache_images = 0\n"
    (weights / "training" / "config.toml").write_text(settings)
    limits = open_network(weights, device="cpu", batch_size=1).limits
    assert (limits.max_regions, limits.max_text_length) == (2, 7)
    evaluate(
        TASKS["nlvr"], weights, [official["nlvr"]], shards, tmp_path / "e", EvalOptions(split="dev")
    )
    provenance = json.loads((tmp_path / "e" / "provenance.json").read_text())
    assert provenance["checkpoint"]["max_regions"] == 2


@pytest.mark.parametrize(
    ("trained", "task", "message"),
    [
        ("nlvr", "nlvr2", "needs the pair head, but .* has the pooled head"),
        ("retrieval", "vqa", "needs the pooled head, but .* has the match head"),
        ("nlvr", "snli-ve", "answers false, true, but the right answers of task snli-ve are neu"),
        ("vqa", "gqa", "answers 2, yes, but the right answers of task gqa are blue, red"),
    ],
)
def test_a_checkpoint_of_another_task(
    trained: str,
    task: str,
    message: str,
    checkpoint: Checkpoint,
    official: dict[str, Path],
    shards: Path,
    tmp_path: Path,
) -> None:
    weights, out = checkpoint(trained), tmp_path / "eval"
    with pytest.raises(InputError, match=message):
        evaluate(TASKS[task], weights, [official[task]], shards, out, EvalOptions(split="test"))
    assert not out.exists()


def test_a_checkpoint_of_other_features(
    checkpoint: Checkpoint, official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    weights = checkpoint("nlvr", feature_size=16)
    with pytest.raises(InputError, match=r"features of size 16, but those of .* have 8"):
        evaluate(
            TASKS["nlvr"],
            weights,
            [official["nlvr"]],
            shards,
            tmp_path / "e",
            EvalOptions(split="dev"),
        )


def test_damaged_checkpoints(checkpoint: Checkpoint, tmp_path: Path) -> None:
    def refuse(message: str) -> None:
        with pytest.raises(InputError, match=message):
            open_network(weights, device="cpu", batch_size=1)

    weights = tmp_path / "nowhere"
    refuse("there is no such folder")
    weights = checkpoint("nlvr")
    config = json.loads((weights / "config.json").read_text())
    (weights / "config.json").write_text(json.dumps({**config, "task_head": None}))
    refuse("must be fine-tuned on a task")
    (weights / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    refuse("its config.json says 'bert'")
    (weights / "config.json").write_text(json.dumps(config))
    tensors = load_file(weights / "model.safetensors")
    lost = next(name for name in tensors if name.startswith("head."))
    rest = {name: tensor for name, tensor in tensors.items() if name != lost}
    save_file(rest, weights / "model.safetensors", {"format": "pt"})
    refuse(f"the tensor {lost} .* is missing")
    save_file({**tensors, "more": torch.zeros(1)}, weights / "model.safetensors")
    refuse("no place for the tensor more")
    (weights / "model.safetensors").write_bytes(b"not weights")
    refuse("not a readable safetensors file")


def test_a_file_for_other_annotations_is_not_scored(
    official: dict[str, Path], save: Callable[..., Path], make: type, tmp_path: Path
) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("dev-1-0-0,True\ndev-1-1-0,True\ndev-9-9-9,True\n")
    with pytest.raises(InputError, match=r"answers\.csv: .*1 missing \('dev-2-0-0'\) and 1 not in"):
        score(TASKS["nlvr2"], [official["nlvr2"]], path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("damage", [b"", b"\0\0", b"[data", b"\xff"])
def test_damaged_settings_of_a_checkpoint_are_named(checkpoint: Checkpoint, damage: bytes) -> None:
    """Without them it would be evaluated with other limits than it was trained with."""
    weights = checkpoint("nlvr")
    (weights / "training").mkdir()
    (weights / "training" / "config.toml").write_bytes(damage)
    with pytest.raises(InputError, match=r"config\.toml: must be the settings of the training run"):
        open_network(weights, device="cpu", batch_size=1)
