"""GQA's grounding: how much attention falls on what the question and its answer point to.

Attention maps are M x M; boxes are xyxy as fractions of width and height.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semvlp.errors import InputError
from semvlp.shards.texts.annotation_files import require
from semvlp.shards.texts.official_files import read_document, wrong_file

Box = tuple[float, float, float, float]
Map = Sequence[Sequence[float]]


def read_attentions(path: Path) -> dict[str, Map]:
    """Return the map of each question id, from `[{"questionId": str, "attention": [M x M]}]`.

    Raises:
        InputError: another layout, or a map that is not square.
    """
    document = read_document(path)
    if not isinstance(document, list):
        raise wrong_file(path, "a GQA attentions file, a JSON array")
    maps: dict[str, Map] = {}
    for number, entry in enumerate(document, start=1):
        require(entry, {"questionId": str, "attention": list}, f"{path}: entry {number}")
        key, rows = entry["questionId"], entry["attention"]
        if not rows or any(not isinstance(row, list) or len(row) != len(rows) for row in rows):
            raise InputError(
                f"{path}: the attention of question {key!r} must be a square of numbers"
            )
        maps[key] = rows
    return maps


def read_scenes(path: Path) -> dict[str, Any]:
    """Return width, height and objects of each image id from `{split}_sceneGraphs.json`.

    Raises:
        InputError: another layout.
    """
    document = read_document(path)
    if not isinstance(document, dict):
        raise wrong_file(path, "a GQA scene graphs file")
    for image, scene in document.items():
        require(scene, {"width": int, "height": int, "objects": dict}, f"{path}: image {image!r}")
    return document


def grounding(question: Mapping[str, Any], scene: Mapping[str, Any], attention: Map) -> float:
    """Return the attention on the boxes that question and full answer point to (eval.py).

    Boxes that overlap count twice, as officially, so it may exceed 1.

    Raises:
        InputError: the question points to an object that the scene lacks.
    """
    edge = 1 / len(attention)
    total = 0.0
    for box in _pointed_at(question, scene):
        for i, column in enumerate(attention):
            for j, weight in enumerate(column):
                # The first index goes from left to right.
                cell = (edge * i, edge * j, edge * (i + 1), edge * (j + 1))
                total += weight * _shared(cell, box) / edge**2
    return total


def _pointed_at(question: Mapping[str, Any], scene: Mapping[str, Any]) -> Iterator[Box]:
    for part in ("question", "fullAnswer"):
        for pointer in question["annotations"].get(part, {}).values():
            if pointer not in scene["objects"]:
                raise InputError(
                    f"the question points to object {pointer!r}, which the scene graph of image "
                    f"{question['imageId']!r} lacks"
                )
            yield _box(scene["objects"][pointer], scene["width"], scene["height"])
    # eval.py asks whether "scene" is a field of a step; that it never is belongs to the rule.
    if any("scene" in step for step in question.get("semantic", ())):
        yield (0, 0, 1, 1)


def _box(thing: Mapping[str, float], width: int, height: int) -> Box:
    x, y, w, h = (thing[name] for name in ("x", "y", "w", "h"))
    return x / width, y / height, (x + w) / width, (y + h) / height


def _shared(one: Box, other: Box) -> float:
    """Return the area of the intersection."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0.0) * max(down, 0.0)
