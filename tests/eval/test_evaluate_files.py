"""What an evaluation leaves in its folder: pages, and nothing that is somebody else's."""

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semvlp.errors import ConfigError, InputError
from semvlp.eval.eval_report import EvalReport
from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.eval.tasks.table import TASKS
from semvlp.names import EvalMode

Checkpoint = Callable[..., Path]  # the fixture of that name


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
