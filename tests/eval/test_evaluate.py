"""Whole evaluations: what is written, and what does not go together."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from semvlp.errors import InputError
from semvlp.eval.evaluate import EvalReport, evaluate, score
from semvlp.eval.network import Network, open_network
from semvlp.eval.tasks import TASKS

Checkpoint = Callable[..., Path]


@pytest.fixture
def checkpoint(network: Callable[..., Network], tmp_path: Path) -> Checkpoint:
    """`checkpoint("nlvr2")` saves a tiny random network and returns its directory."""

    def _save(name: str, **options: int) -> Path:
        path = tmp_path / f"checkpoint-{name}"
        net = network(name, **options)
        net.model.save_pretrained(path)
        net.tokenizer.save_pretrained(path)
        return path

    return _save


@pytest.mark.parametrize("name", TASKS)
def test_everything_is_written(
    name: str, checkpoint: Checkpoint, official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    task, weights, out = TASKS[name], checkpoint(name), tmp_path / "eval"
    report = evaluate(task, weights, [official[name]], shards, out, split="test", mode="both")
    leaderboard = task.file_name("test")
    assert {path.name for path in out.iterdir()} == {leaderboard, "scores.json", "provenance.json"}

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
    assert set(provenance["versions"]) == {"semvlp", "python", "torch", "transformers"}

    again = score(task, [official[name]], out / leaderboard)
    assert again["counts"] == scores["counts"]
    assert {key: again[key] for key in scores["modes"]["both"]} == scores["modes"]["both"]


def test_a_split_without_labels_gets_no_scores(
    checkpoint: Checkpoint, save: Callable[..., Path], make: type, shards: Path, tmp_path: Path
) -> None:
    task, out = TASKS["nlvr2"], tmp_path / "eval"
    arguments = checkpoint("nlvr2"), shards, out

    def run(name: str, label: str | None) -> EvalReport:
        weights, store, into = arguments
        path = save(name, [make.nlvr2("dev-1-0-0", label), make.nlvr2("dev-2-0-0", label)])
        return evaluate(task, weights, [path], store, into, split="x")

    assert run("labelled.json", "True").scores is not None
    assert run("test.json", None).scores is None
    assert {path.name for path in out.iterdir()} == {"nlvr2_x.csv", "provenance.json"}
    with pytest.raises(InputError, match="must hold labels to score against"):
        score(task, [tmp_path / "test.json"], out / "nlvr2_x.csv")
    mixed = save("mixed.json", [make.nlvr2("dev-1-0-0"), make.nlvr2("dev-2-0-0", None)])
    with pytest.raises(InputError, match="1 of 2 have"):
        evaluate(task, arguments[0], [mixed], shards, out, split="x")


def test_one_mode_has_no_others(
    checkpoint: Checkpoint, official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    weights = checkpoint("nlvr")
    report = evaluate(
        TASKS["nlvr"], weights, [official["nlvr"]], shards, tmp_path / "e", split="d", mode="two"
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
    evaluate(TASKS["nlvr"], weights, [official["nlvr"]], shards, tmp_path / "e", split="dev")
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
        evaluate(TASKS[task], weights, [official[task]], shards, out, split="test")
    assert not out.exists()


def test_a_checkpoint_of_other_features(
    checkpoint: Checkpoint, official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    weights = checkpoint("nlvr", feature_size=16)
    with pytest.raises(InputError, match=r"features of size 16, but those of .* have 8"):
        evaluate(TASKS["nlvr"], weights, [official["nlvr"]], shards, tmp_path / "e", split="dev")


def test_damaged_checkpoints(checkpoint: Checkpoint, tmp_path: Path) -> None:
    def refuse(message: str) -> None:
        with pytest.raises(InputError, match=message):
            open_network(weights, device="cpu", batch_size=1)

    weights = tmp_path / "nowhere"
    refuse("config.json is missing")
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
    refuse(f"1 are missing or too many, first {lost}")
    (weights / "model.safetensors").write_bytes(b"not weights")
    refuse("is no fine-tuned SemVLP checkpoint")


def test_a_file_for_other_annotations_is_not_scored(
    official: dict[str, Path], save: Callable[..., Path], make: type, tmp_path: Path
) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("dev-1-0-0,True\ndev-1-1-0,True\ndev-9-9-9,True\n")
    with pytest.raises(InputError, match=r"answers\.csv: .*1 missing \('dev-2-0-0'\) and 1 not in"):
        score(TASKS["nlvr2"], [official["nlvr2"]], path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
