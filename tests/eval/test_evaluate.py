"""Whole evaluations: what is written, and what does not go together."""

import dataclasses
import hashlib
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from semvlp.errors import ConfigError, InputError
from semvlp.eval.eval_report import EvalReport
from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.eval.files.credits_file import read_credits
from semvlp.eval.lookup import RegionLookup
from semvlp.eval.matching.score_matrix import score_matrix
from semvlp.eval.network import Network, open_network
from semvlp.eval.predict import probabilities
from semvlp.eval.score_table import score
from semvlp.eval.tasks.table import TASKS
from semvlp.model.config import SemVLPConfig
from semvlp.model.semvlp import SemVLPForPreTraining
from semvlp.names import EvalMode
from semvlp.shards.open import open_store

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


def test_an_evaluation_that_is_there_is_kept(
    checkpoint: Checkpoint, official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    """The same inputs: nothing is computed again. Others: nothing is overwritten."""
    out, weights = tmp_path / "eval", checkpoint("retrieval")

    def run(mode: EvalMode, **options: Any) -> EvalReport:
        paths = [official["retrieval"]]
        given = {"split": "test", "existing": "keep", **options}
        return evaluate(
            TASKS["retrieval"], weights, paths, shards, out, EvalOptions(mode=mode, **given)
        )

    first = run("two")
    (out / "retrieval_test.json").write_text("edited")
    assert run("two").scores == first.scores
    assert (out / "retrieval_test.json").read_text() == "edited"
    for options in ({"mode": "both"}, {"mode": "two", "shortlist": 1}):
        with pytest.raises(ConfigError, match="other inputs; give another --out, or --overwrite"):
            run(**options)
    run("both", existing="replace")
    assert (out / "retrieval_test.json").read_text() != "edited"


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


def test_parts_baselines_and_page(
    checkpoint: Checkpoint, save: Callable[..., Path], make: type, shards: Path, tmp_path: Path
) -> None:
    lines = [make.nlvr2("dev-1-0-0"), make.nlvr2("dev-1-1-0", "False"), make.nlvr2("dev-2-0-0")]
    lines[2]["sentence"] = "There are two <b>cats</b>."
    data = save("nlvr2.json", lines)
    categories = tmp_path / "categories.txt"
    categories.write_text(
        "There are two dogs.\r\n* hard cardinality\r\n* coordination\r\n\r\n"
        "There are two <b>cats</b>.\r\n* coordination\r\n\r\n"
    )
    report = evaluate(
        TASKS["nlvr2"],
        checkpoint("nlvr2"),
        [data, categories],
        shards,
        tmp_path / "eval",
        EvalOptions(split="dev", mode="both", train=[data]),
    )
    assert report.scores is not None
    rows = report.scores["parts"]["category"]
    assert {name: row["count"] for name, row in rows.items()} == {
        "coordination": 3,
        "hard cardinality": 2,
    }
    assert rows["coordination"]["two"] == report.scores["modes"]["two"]["accuracy"]
    assert set(report.scores["baselines"]) == {"majority", "text only"}
    assert report.scores["baselines"]["majority"]["accuracy"] == pytest.approx(200 / 3)
    low, high = rows["coordination"]["both_interval"]
    assert low <= rows["coordination"]["both"] <= high
    assert len(report.scores["baselines"]["majority"]["consistency_interval"]) == 2
    curves = report.scores["calibration"]["both"]
    assert sum(entry["count"] for entry in curves["bins"]) == 3
    assert curves["coverage"][-1]["accuracy"] == report.scores["accuracy"]
    page = (tmp_path / "eval" / "report.html").read_text()
    assert f"<small>{low:.1f} to {high:.1f}</small>" in page
    for text in (
        "Reliability, mean of both",
        "Accuracy by coverage",
        "By category",
        "hard cardinality",
        "majority",
        "mean of both",
        "dev-1-0-0",
    ):
        assert text in page
    assert "<b>cats" not in page
    assert "<option>category: hard cardinality</option>" in page
    types = [json.loads(html.unescape(t)) for t in re.findall(r'data-types="([^"]*)"', page)]
    assert ["subset: balanced", "category: hard cardinality", "category: coordination"] in types
    assert not re.search(r"https?://|<script src|<link", page)


def test_the_page_of_retrieval_marks_the_right_one_of_what_was_retrieved(
    checkpoint: Checkpoint, official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "eval"
    options = EvalOptions(split="test", mode="both")
    evaluate(
        TASKS["retrieval"], checkpoint("retrieval"), [official["retrieval"]], shards, out, options
    )
    page = (out / "report.html").read_text()
    ranks = json.loads((out / "retrieval_test.json").read_text())["captions"]
    right = re.findall(r'<li class="right">.*</svg>(\d)\. (\w), the right one</li>', page)
    assert len(right) == len(ranks) == 4
    assert "the right one framed" in page
    assert sorted(int(place) for place, _ in right) == sorted(rank["rank"] for rank in ranks)


def test_the_page_names_the_run_of_its_checkpoint(
    checkpoint: Checkpoint, official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "a <run>", tmp_path / "eval"
    (run / "checkpoints").mkdir(parents=True)
    checkpoint("nlvr").rename(run / "checkpoints" / "step-0000001")
    (run / "best").symlink_to(run / "checkpoints" / "step-0000001")

    def page(**options: Any) -> str:
        chosen = EvalOptions(split="dev", **options)
        evaluate(TASKS["nlvr"], run / "best", [official["nlvr"]], shards, out, chosen)
        return (out / "report.html").read_text()

    (run / "report.html").write_text("somebody's")
    assert "<nav>" not in page()
    (run / "inputs.json").write_text("{}")
    address = '<a href="../a%20%3Crun%3E/report.html">the run a &lt;run&gt;</a>'
    assert f"<nav>{address}</nav>" in page()
    assert f'<nav>{address} · <a href="explain.html">' in page(explain=1)
    assert '<a href="report.html">' in (out / "explain.html").read_text()


@pytest.mark.parametrize("name", ["vqa", "nlvr2", "nlvr", "retrieval"])
def test_files_do_not_depend_on_the_batch_size(
    name: str, checkpoint: Checkpoint, official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    task, weights = TASKS[name], checkpoint(name)
    written = set()
    for size in (1, 3, 100):
        arguments = weights, [official[name]], shards, tmp_path / str(size)
        report = evaluate(task, *arguments, EvalOptions(split="test", mode="both", batch_size=size))
        written.add(report.file.read_bytes())
    assert len(written) == 1


FOREIGN = ("nlvr_dev.csv", "scores.json", "provenance.json", "report.html", "explain.html")


@pytest.mark.parametrize("existing", ["keep", "replace"])
@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_somebody_else_are_not_replaced(
    name: str,
    existing: Any,
    checkpoint: Checkpoint,
    official: dict[str, Path],
    shards: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "eval"
    out.mkdir()
    (out / name).write_text('{"somebody": "else"}')
    arguments = TASKS["nlvr"], checkpoint("nlvr"), [official["nlvr"]], shards, out
    with pytest.raises(ConfigError, match=f"holds {name}, but no evaluation of ours"):
        evaluate(*arguments, EvalOptions(split="dev", existing=existing))
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == '{"somebody": "else"}'


def test_an_evaluation_that_was_killed_while_it_was_written_is_done_again(
    checkpoint: Checkpoint,
    official: dict[str, Path],
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "eval"
    arguments = TASKS["nlvr"], checkpoint("nlvr"), [official["nlvr"]], shards, out
    options = EvalOptions(split="dev", existing="keep")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("semvlp.eval.evaluate.write_page", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(*arguments, options)
    assert {path.name for path in out.iterdir()} == {"nlvr_dev.csv", "provenance.json"}
    again = evaluate(*arguments, options)
    assert json.loads((out / "scores.json").read_text()) == again.scores
    assert "unfinished" not in json.loads((out / "provenance.json").read_text())


@pytest.mark.parametrize("name", ["provenance.json", "scores.json"])
@pytest.mark.parametrize("damage", [b"", b"\0\0", b"[1]", b"\xff"])
def test_a_damaged_evaluation_is_named(
    name: str,
    damage: bytes,
    checkpoint: Checkpoint,
    official: dict[str, Path],
    shards: Path,
    tmp_path: Path,
) -> None:
    arguments = TASKS["nlvr"], checkpoint("nlvr"), [official["nlvr"]], shards, tmp_path / "e"
    options = EvalOptions(split="dev", existing="keep")
    evaluate(*arguments, options)
    (tmp_path / "e" / name).write_bytes(damage)
    with pytest.raises(InputError, match=rf"{name}: must be the JSON that an evaluation wrote"):
        evaluate(*arguments, options)


def test_only_blocks_of_ours_are_removed(
    checkpoint: Checkpoint, official: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "eval"
    for name in ("matrix-of-mine", "matrix-two-0123456789abcdef"):
        (out / name).mkdir(parents=True)
    evaluate(
        TASKS["nlvr"], checkpoint("nlvr"), [official["nlvr"]], shards, out, EvalOptions(split="d")
    )
    assert [path.name for path in out.glob("matrix-*")] == ["matrix-of-mine"]


@pytest.mark.parametrize("damage", [b"", b"\0\0", b"[data", b"\xff"])
def test_damaged_settings_of_a_checkpoint_are_named(checkpoint: Checkpoint, damage: bytes) -> None:
    """Without them it would be evaluated with other limits than it was trained with."""
    weights = checkpoint("nlvr")
    (weights / "training").mkdir()
    (weights / "training" / "config.toml").write_bytes(damage)
    with pytest.raises(InputError, match=r"config\.toml: must be the settings of the training run"):
        open_network(weights, device="cpu", batch_size=1)
