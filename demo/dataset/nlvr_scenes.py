"""NLVR v1 (Suhr et al. 2017): from the structured representation to scenes and object boxes.

Picture k of an example shows the three boxes in the k-th of their orders, counted
lexicographically: in `split-n-m-k.png`, place j holds box `ORDERS[k][j]` of `structured_rep`.
"""

from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

from semvlp.atomic import write_json
from semvlp.demo.dataset.boxes_file import coco_boxes
from semvlp.demo.world.scene import TOWER_X, Item, Scene
from semvlp.documents import from_json
from semvlp.errors import InputError

ORDERS: tuple[tuple[int, ...], ...] = tuple(permutations(range(3)))
_COLORS = {"yellow": "yellow", "black": "black", "#0099ff": "blue"}
_COLOR_NAMES = {"yellow": "Yellow", "black": "Black", "blue": "#0099ff"}


def read_scenes(annotations: Path) -> Iterator[tuple[dict[str, Any], Scene]]:
    """Yield every record of an NLVR v1 JSON lines file with its scene.

    Raises:
        InputError: a line that is no NLVR record with `structured_rep`; names file and line.
    """
    with annotations.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = from_json(line)
                scene = scene_of(record["structured_rep"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{annotations}:{number}: must be an NLVR v1 record with `structured_rep`, "
                    f"{type(error).__name__}: {error}"
                ) from error
            yield record, scene


def scene_of(structured: list[list[Mapping[str, Any]]]) -> Scene:
    """Make the scene of a `structured_rep`: three boxes of items, towers from the base up."""
    panels = tuple(tuple(map(_item, box)) for box in structured)
    items = [item for panel in panels for item in panel]
    towers = all(item.shape == "square" and item.x == TOWER_X for item in items)
    return Scene("towers" if towers else "scatter", panels)


def structured_rep(scene: Scene) -> list[list[dict[str, Any]]]:
    """Write the `structured_rep` of a scene: the inverse of `scene_of`."""
    return [
        [
            {
                "y_loc": item.y,
                "type": item.shape,
                "color": _COLOR_NAMES[item.color],
                "x_loc": item.x,
                "size": item.size,
            }
            for item in panel
        ]
        for panel in scene.panels
    ]


def write_boxes(annotations: Path, images: Path, out: Path, *, split: str) -> int:
    """Write the object boxes of all pictures of an NLVR v1 split that lie under `images`.

    The file is COCO JSON with `attribute_ids` per box; `file_name` is relative to `images`. Returns
    the number of pictures.

    Raises:
        InputError: a damaged record, or no picture of the split under `images`.
    """
    files = {path.name: path for path in sorted(images.rglob(f"{split}-*.png"))}
    scenes = {}
    for record, scene in read_scenes(annotations):
        for k, order in enumerate(ORDERS):
            name = f"{split}-{record['identifier']}-{k}.png"
            if name in files:
                scenes[str(files[name].relative_to(images))] = scene.permuted(order)
    if not scenes:
        raise InputError(
            f"{images}: must hold pictures {split}-n-m-k.png of {annotations}; none do"
        )
    write_json(out, coco_boxes(scenes.items()), indent=None)
    return len(scenes)


def _item(entry: Mapping[str, Any]) -> Item:
    color = _COLORS[str(entry["color"]).lower()]
    return Item(entry["type"], color, entry["x_loc"], entry["y_loc"], entry["size"])
