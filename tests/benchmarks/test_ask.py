"""The benchmark of asking and searching tells every figure that it names."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(FOLDER)
    yield __import__("ask")
    sys.modules.pop("ask", None)


def test_it_tells_every_figure(
    ask: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--scenes", "6", "--photographs", "1030", "--repeats", "1", "--loads", "0"]
    # The processes that load are spared: each imports everything.
    monkeypatch.setattr(ask, "_load", lambda drawn, repeats: [])
    monkeypatch.setattr(sys, "argv", ["ask.py", *sizes])
    ask.main()
    rows = capsys.readouterr().out.splitlines()
    table = [row.split(" | ") for row in rows if row.startswith("| ")][2:]
    assert [cells[0] for cells in table] == [
        "| question, regions known",
        "| question, new photograph",
        "| keep the rows of 6 photographs",
        "| search 6, all compared",
        "| first search of 1,030 random, 500 compared",
        "| search 1,030 random, 500 compared",
    ]
    assert all(float(cells[1]) > 0 for cells in table)
