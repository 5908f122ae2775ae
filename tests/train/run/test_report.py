"""The pages: complete, self-contained, and honest about runs that have little to show."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from semvlp.errors import InputError
from semvlp.train.run.compare import compare, unique_names
from semvlp.train.run.curves import MOST_POINTS, Curve, picture, smooth
from semvlp.train.run.report import write_report


def lines_of(steps: int, **fields: Any) -> str:
    entries = [
        {
            "step": step,
            "mode": "single" if step % 2 else "two",
            "loss": 1 / step,
            "loss_mlm": 0.5 / step,
            "lr": 0.1,
            "pairs_per_second": 100.0,
            **fields,
        }
        for step in range(1, steps + 1)
    ]
    return "".join(json.dumps(entry) + "\n" for entry in entries)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    def build(name: str, *, lr: float = 0.1, scores: tuple[float, ...] = ()) -> Path:
        run = tmp_path / name
        run.mkdir(parents=True)
        (run / "config.toml").write_text(f"[train]\nlr = {lr}\nsteps = 4\n")
        (run / "metrics.jsonl").write_text(lines_of(4, lr=lr))
        validation = [{"step": n, "accuracy": score} for n, score in enumerate(scores, 1)]
        (run / "validation.jsonl").write_text("".join(json.dumps(v) + "\n" for v in validation))
        return run

    return build


def pictures(page: str) -> list[ElementTree.Element]:
    data = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", page)
    return [ElementTree.fromstring(base64.b64decode(one)) for one in data]


def titles(page: str) -> list[str]:
    return re.findall(r"<h2>([^<]*)</h2><img", page)


def test_every_number_has_its_picture(make_run: Callable[..., Path]) -> None:
    run = make_run("run", scores=(50.0, 60.0))
    page = write_report(run).read_text()
    assert titles(page) == [
        "Validation: accuracy",
        "Loss, all objectives",
        "Masked words",
        "Learning rate",
        "Pairs per second",
    ]
    assert len(pictures(page)) == 5
    assert "steps = 4" in page
    assert "60.00" in page
    assert "torch" in page


def test_the_page_needs_nothing_else(make_run: Callable[..., Path]) -> None:
    page = write_report(make_run("run")).read_text()
    markup = re.sub(r"data:image[^\"]*", "", page)
    assert not re.search(r"https?://|<script|<link", markup)


def test_both_modes_are_named_in_the_legend(make_run: Callable[..., Path]) -> None:
    page = write_report(make_run("run")).read_text()
    texts = ["".join(svg.itertext()) for svg in pictures(page)]
    assert "single-stream" in texts[0]
    assert "two-stream" in texts[0]


def test_a_run_without_lines_says_so(tmp_path: Path) -> None:
    assert "Nothing was logged yet" in write_report(tmp_path).read_text()


def test_names_are_escaped(make_run: Callable[..., Path]) -> None:
    page = write_report(make_run("<b>run")).read_text()
    assert "<b>run" not in page
    assert "&lt;b&gt;run" in page


def test_the_run_that_one_started_from_is_linked(make_run: Callable[..., Path]) -> None:
    first, run = make_run("pre train"), make_run("finetune")
    (first / "last").symlink_to(Path("checkpoints") / "step-0000004")
    inputs = {"task": "vqa", "init": str(first / "last")}
    (run / "inputs.json").write_text(json.dumps(inputs))
    (first / "inputs.json").write_text('{"init": null}')
    assert "<nav>" not in write_report(run).read_text()  # there is no page yet
    assert "<nav>" not in write_report(first).read_text()
    page = write_report(run).read_text()
    assert '<a href="../pre%20train/report.html">the run pre train, which' in page
    (run / "inputs.json").write_text(json.dumps({**inputs, "init": "somebody/model"}))
    assert "<nav>" not in write_report(run).read_text()


def test_compare_shows_runs_side_by_side(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [make_run("first", lr=0.1, scores=(50.0,)), make_run("second", lr=0.2)]
    page = compare(runs, tmp_path / "deep" / "compare.html").page.read_text()
    assert "<td>train.lr</td><td>0.1</td><td>0.2</td>" in page
    assert "<td>train.steps</td>" not in page
    assert titles(page)[:2] == ["Validation: accuracy", "Loss, all objectives"]
    loss = "".join(pictures(page)[1].itertext())
    # Each mode is a line of its own, in the colour of its run.
    for label in ("first, single-stream", "first, two-stream", "second, two-stream"):
        assert label in loss
    assert "stroke-dasharray" in ElementTree.tostring(pictures(page)[1]).decode()


def test_compare_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        compare([tmp_path], tmp_path / "compare.html")


def test_runs_of_one_name_are_told_apart() -> None:
    assert unique_names([Path("/a/run"), Path("/b/run")]) == ["a/run", "b/run"]
    assert unique_names([Path("/a/one"), Path("/b/two")]) == ["one", "two"]
    assert len(set(unique_names([Path("/a/run"), Path("/a/run")]))) == 2


def test_smooth_is_the_mean_of_the_values_before() -> None:
    values = np.array([1.0, 3.0, 5.0, 7.0])
    assert smooth(values, 1).tolist() == values.tolist()
    assert smooth(values, 3).tolist() == [1.0, 2.0, 3.0, 5.0]


def test_a_run_may_have_any_name() -> None:
    """`$` begins no formula, and an underscore hides nothing."""
    names = ["lr=$1$", "a_$\\frac{", "_hidden", "<b>&"]
    svg = base64.b64decode(picture([Curve(n, [1, 2], [3, 4], "#000") for n in names]).split(",")[1])
    texts = [text.strip() for text in ElementTree.fromstring(svg).itertext()]
    assert set(names) <= set(texts)


def test_long_curves_stay_small_and_equal_curves_are_equal() -> None:
    long = Curve("loss", range(100_000), np.sin(np.arange(100_000)).tolist(), "#000")
    assert len(picture([long])) < 250 * MOST_POINTS
    short = Curve("loss", [1, 2], [3.0, 4.0], "#000")
    assert picture([short]) == picture([short])


@pytest.mark.parametrize("damage", [b"", b"\0" * 20, b"[train", b"\xff"])
def test_damaged_settings_of_a_run_without_a_checkpoint_are_named(
    make_run: Callable[..., Path], tmp_path: Path, damage: bytes
) -> None:
    runs = [make_run("a"), make_run("b")]
    (runs[1] / "config.toml").write_bytes(damage)
    with pytest.raises(InputError, match=r"b/config\.toml must hold the settings of the run"):
        compare(runs, tmp_path / "compare.html")


@pytest.mark.parametrize("name", ["metrics.jsonl", "validation.jsonl"])
def test_a_damaged_line_ends_the_pages_but_at_the_end_of_a_file(
    make_run: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    run = make_run("run", scores=(50.0, 60.0))
    path = run / name
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 30)
    write_report(run)
    compare([run, make_run("other")], tmp_path / "compare.html")
    path.write_bytes(b"\0" * 30 + b"\n" + whole)
    for page in (lambda: write_report(run), lambda: compare([run], tmp_path / "compare.html")):
        with pytest.raises(InputError, match=rf"{name}, line 1 is damaged"):
            page()
