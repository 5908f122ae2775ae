"""The notebook runs from its first cell to its last, and what it shows is what a run gives.

What is learned depends on how much is drawn, of which a test draws little: its pictures and the
places of their regions do not.
"""

import ast
import base64
import io
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from semvlp.demo.dataset.compose import compose
from semvlp.demo.run import SMALL as DEMO
from semvlp.demo.world.draw import draw
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


def test_it_is_small_and_was_kept_after_one_run_without_errors(cells: list[dict[str, Any]]) -> None:
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds == {"execute_result", "display_data", "stream"}


# A notebook shows figures, and leaves it to the page to close what it shows.
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive:UserWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_it_runs_and_shows_what_it_gives(
    cells: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = "\n".join(f"{name} = {value!r}" for name, value in SMALL.items())
    program = [small if _sets_parameters(cell) else "".join(cell["source"]) for cell in cells]
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("\n".join(program), names)
    plt.close("all")
    (kept,) = (output for cell in cells for output in cell["outputs"] if "text" in output)
    for printed in "".join(kept["text"]), capsys.readouterr().out:
        probabilities = [float(line.split()[-1]) for line in printed.splitlines()]
        assert 1 <= len(probabilities) <= 3
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1.01  # of rounded ones
    assert (tmp_path / "made" / "finetune-vqa" / "best").exists()
    first, _, looked_at = _kept_pictures(cells)
    assert np.array_equal(first, _first_picture(cells))
    boxes = names["vlp"].regions(first).boxes
    changed = (looked_at != first).any(2)
    assert changed.any()
    assert not (changed & ~_edges(boxes, changed.shape)).any()


def _first_picture(cells: list[dict[str, Any]]) -> NDArray[np.uint8]:
    """Draw the first picture to validate on of the world that the notebook itself draws."""
    (parameters,) = filter(_sets_parameters, cells)
    values: dict[str, Any] = {}
    exec("".join(parameters["source"]), values)
    scenes = {"train": values["SCENES"], "valid": 20}
    _, valid = compose(scenes, seed=0, config=DEMO.world)
    return np.array(draw(min(valid.pictures, key=lambda picture: picture.image_id).scene))


def _kept_pictures(cells: list[dict[str, Any]]) -> list[NDArray[np.uint8]]:
    kept = [
        o["data"] for cell in cells for o in cell["outputs"] if "image/png" in o.get("data", {})
    ]
    pngs = (base64.b64decode("".join(data["image/png"])) for data in kept)
    return [np.array(Image.open(io.BytesIO(png)).convert("RGB")) for png in pngs]


def _edges(boxes: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return [H, W], True where the edges of boxes may be, drawn as wide as they ever are."""
    mask = Image.new("1", shape[::-1])
    for x0, y0, x1, y1 in boxes.tolist():
        ImageDraw.Draw(mask).rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=1, width=6)
    return np.array(mask)


def _sets_parameters(cell: dict[str, Any]) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])
