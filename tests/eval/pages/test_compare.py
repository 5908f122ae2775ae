"""Evaluations side by side, alone and beside training runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from semvlp.errors import InputError
from semvlp.eval.credits import Credits
from semvlp.eval.eval_report import best_of
from semvlp.eval.files.credits_file import write_credits
from semvlp.eval.pages.compare import is_evaluation, score_tables
from semvlp.train.run.compare import compare


def _evaluation(folder: Path, accuracy: float, **fields: Any) -> Path:
    folder.mkdir()
    found = {"task": "nlvr2", "split": "dev", "mode": "both", "accuracy": accuracy}
    found["modes"] = {"two": {"accuracy": accuracy - 1}, "both": {"accuracy": accuracy}}
    found["baselines"] = {"majority": {"accuracy": 50.86}}
    (folder / "scores.json").write_text(json.dumps({**found, **fields}))
    return folder


def test_one_table_for_each_task_and_split(tmp_path: Path) -> None:
    folders = [
        _evaluation(tmp_path / "a", 70.0),
        _evaluation(tmp_path / "b", 72.0),
        _evaluation(tmp_path / "c", 60.0, split="test1"),
    ]
    dev, test = score_tables(folders, ["a", "b", "c"])
    assert (dev.title, test.title) == ("nlvr2, dev", "nlvr2, test1")
    assert dev.columns == ["accuracy"]
    assert dev.best == {"accuracy": 72.0}
    assert list(dev.numbers.items()) == [
        ("majority", {"accuracy": 50.86}),
        ("a, two", {"accuracy": 69.0}),
        ("a, both", {"accuracy": 70.0}),
        ("b, two", {"accuracy": 71.0}),
        ("b, both", {"accuracy": 72.0}),
    ]


def test_the_best_of_each_score() -> None:
    rows = [{"accuracy": 70.0, "distribution": 3.0, "same": 1.0}, {"accuracy": 72.0, "same": 1.0}]
    rows.append({"accuracy": 71.0, "distribution": 2.0, "same": 1.0})
    # GQA's distribution is a distance, and where all are equal none is the best.
    assert best_of(rows) == {"accuracy": 72.0, "distribution": 2.0}


def test_the_page(tmp_path: Path) -> None:
    folders = [_evaluation(tmp_path / "a", 70.0), _evaluation(tmp_path / "<b>", 72.0)]
    page = compare(folders, tmp_path / "page.html").page.read_text()
    assert "2 runs side by side" in page
    assert "<td>a, both</td><td>70.00</td>" in page
    assert '<td>&lt;b&gt;, both</td><td class="best">72.00</td>' in page
    assert page.count('class="best"') == 1


def _with_credits(folder: Path, right: list[float], images: str = "aabbccddeeff") -> Path:
    """An evaluation of two questions about each image, with its credits in the mode `both`."""
    scores = {"accuracy": 100 * sum(right) / len(right), "accuracy_interval": [1.0, 99.0]}
    _evaluation(folder, 0.0, modes={"both": scores})
    credits = Credits(right, [(image,) for image in images], range(len(right)))
    write_credits(folder / "credits.jsonl", {"both": {"accuracy": credits}})
    return folder


RIGHT = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]


def test_later_evaluations_are_paired_with_the_first(tmp_path: Path) -> None:
    better = [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0]
    folders = [_with_credits(tmp_path / "a", RIGHT), _with_credits(tmp_path / "b", better)]
    report = compare([*folders, _with_credits(tmp_path / "c", RIGHT)], tmp_path / "page.html")
    (first, second) = report.values()["differences"]
    assert {"evaluation": "b", "minus": "a", "mode": "both", "score": "accuracy"}.items() <= (
        first.items()
    )
    assert first["difference"] == pytest.approx(100 * 2 / 12)
    assert first["interval"][0] < first["difference"] < first["interval"][1]
    assert (first["better"], first["worse"]) == (3, 1)
    assert 0.05 < first["p"] < 1
    assert (second["evaluation"], second["difference"], second["p"]) == ("c", 0, 1)
    assert "b minus a, both: accuracy +16.67 (" in report.sentence()
    page = report.page.read_text()
    assert "Paired differences" in page
    assert "<td>+16.67</td>" in page
    assert "<small>1.0 to 99.0</small>" in page


def test_why_there_is_no_difference(tmp_path: Path) -> None:
    folders = [
        _with_credits(tmp_path / "a", RIGHT),
        _evaluation(tmp_path / "old", 70.0),
        _with_credits(tmp_path / "part", RIGHT[:-2], "aabbccddee"),
    ]
    report = compare(folders, tmp_path / "page.html")
    assert report.values()["differences"] == []
    page = report.page.read_text()
    assert "old holds no credits.jsonl, so it is not paired with the others; evaluate" in page
    assert "part answers other examples than a, so they are not paired" in page


def test_what_is_no_evaluation(tmp_path: Path) -> None:
    assert not is_evaluation(tmp_path)
    old = _evaluation(tmp_path / "old", 1.0)
    (old / "scores.json").write_text('{"task": "vqa", "split": "x", "mode": "two"}')
    with pytest.raises(InputError, match=r"scores\.json: lacks baselines"):
        score_tables([old], ["old"])
    (old / "scores.json").write_text("[]")
    with pytest.raises(InputError, match="must be the JSON that"):
        score_tables([old], ["old"])
