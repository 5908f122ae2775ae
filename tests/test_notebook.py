"""The notebook runs from its first cell to its last, and is small enough to be read on a page."""

import ast
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from tests.documents import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
# Instead of what the cell tagged `parameters` says.
SMALL: dict[str, object] = {"SCENES": 10, "STEPS": 2, "EPOCHS": 0.2, "OUT": "made"}
MOST_BYTES = 200_000


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    read: dict[str, Any] = json.loads(NOTEBOOK.read_text())
    assert read["nbformat"] == 4
    return [cell for cell in read["cells"] if cell["cell_type"] == "code"]


def test_its_parameters_are_those_that_a_test_replaces(cells: list[dict[str, Any]]) -> None:
    (parameters,) = (cell for cell in cells if _sets_parameters(cell))
    assigned = [
        target.id
        for node in ast.parse("".join(parameters["source"])).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    assert assigned == list(SMALL)


def test_it_is_small_and_was_kept_without_errors(cells: list[dict[str, Any]]) -> None:
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    assert not [
        output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"
    ]


# A notebook shows figures, and leaves it to the page to close what it shows.
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive:UserWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_it_runs(
    cells: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    small = "\n".join(f"{name} = {value!r}" for name, value in SMALL.items())
    program = [small if _sets_parameters(cell) else "".join(cell["source"]) for cell in cells]
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    exec("\n".join(program), {"__name__": "__main__"})
    plt.close("all")
    answers = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert answers
    assert all(0 <= float(answer[-1]) <= 1 for answer in answers)
    assert (tmp_path / "made" / "finetune-vqa" / "best").exists()


def _sets_parameters(cell: dict[str, Any]) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])
