"""Drawing scenes in the pixel style of NLVR, and the boxes of what was drawn.

Boxes are xyxy in pixels of the whole picture, tight around what is visible.
"""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semvlp.demo.world.scene import BOX_SIDE, BOX_STEP, COLORS, SQUARE_SIDE, Item, Scene
from semvlp.demo.world.shapes import SHAPES, coverage, extent, visible

CONTAINER, CURTAIN = "box", "curtain"
OBJECT_LABELS = (CONTAINER, CURTAIN, *SHAPES)
ATTRIBUTE_LABELS = ("grey", "brown", *COLORS)
_PAPER = (211, 211, 211)
_GAP = (128, 128, 128)
_CURTAIN_STRIPES = ((120, 80, 50), (150, 105, 70))
_STRIPE = 8


@dataclass(frozen=True, slots=True)
class Drawn:
    """One visible object of a picture: its class, its colour, its box."""

    label: str
    attribute: str
    box: tuple[int, int, int, int]


def draw(scene: Scene) -> Image.Image:
    """Draw the picture of a scene, RGB."""
    pixels = _background("square" if scene.kind == "square" else "boxes").copy()
    for index, panel in enumerate(scene.panels):
        for item in panel:
            _paint(pixels, item, BOX_STEP * index)
    if scene.cover is not None:
        left, top, right, bottom = scene.cover
        pixels[top:bottom, left:right] = _stripes(bottom - top, right - left)
    return Image.fromarray(pixels)


def objects(scene: Scene) -> list[Drawn]:
    """List what a detector should find: grey boxes or the curtain, then every item that shows."""
    if scene.kind != "square":
        lefts = [BOX_STEP * index for index in range(len(scene.panels))]
        boxes = [(left, 0, left + BOX_SIDE, BOX_SIDE) for left in lefts]
        return [Drawn(CONTAINER, "grey", box) for box in boxes] + _boxed_items(scene)
    curtain = [] if scene.cover is None else [Drawn(CURTAIN, "brown", scene.cover)]
    return curtain + [
        Drawn(item.shape, item.color, box)
        for item, box in zip(scene.items, _visible_boxes(scene), strict=True)
        if box is not None
    ]


@lru_cache(maxsize=4096)
def seen_items(scene: Scene) -> tuple[Item, ...]:
    """Return the items of which something shows in front of the curtain."""
    if scene.cover is None:
        return scene.items
    boxes = _visible_boxes(scene)
    return tuple(item for item, box in zip(scene.items, boxes, strict=True) if box is not None)


def _boxed_items(scene: Scene) -> list[Drawn]:
    items = []
    for index, panel in enumerate(scene.panels):
        for item in panel:
            left, top = BOX_STEP * index + item.x, item.y
            x1, y1, x2, y2 = extent(item.shape, item.size)
            box = left + x1, top + y1, left + x2, top + y2
            items.append(Drawn(item.shape, item.color, box))
    return items


@cache
def _background(kind: str) -> NDArray[np.uint8]:
    if kind == "square":
        return np.full((SQUARE_SIDE, SQUARE_SIDE, 3), _PAPER, np.uint8)
    pixels = np.full((BOX_SIDE, 2 * BOX_STEP + BOX_SIDE, 3), _GAP, np.uint8)
    for index in range(3):
        pixels[:, BOX_STEP * index : BOX_STEP * index + BOX_SIDE] = _PAPER
    return pixels


def _paint(pixels: NDArray[np.uint8], item: Item, left: int) -> None:
    """Blend an item over what is there, by its coverage."""
    x, y = left + item.x, item.y
    under = pixels[y : y + item.size, x : x + item.size].astype(np.float32)
    share = coverage(item.shape, item.size)[:, :, None] / np.float32(255)
    over = np.asarray(COLORS[item.color], np.float32)
    pixels[y : y + item.size, x : x + item.size] = np.round(under + share * (over - under))


@cache
def _stripes(height: int, width: int) -> NDArray[np.uint8]:
    odd = (np.arange(width) // _STRIPE) % 2
    row = np.asarray(_CURTAIN_STRIPES, np.uint8)[odd]
    return np.broadcast_to(row, (height, width, 3))


def _visible_boxes(scene: Scene) -> list[tuple[int, int, int, int] | None]:
    """Return tight boxes of what shows of a `square` scene's items; None where all is hidden."""
    masks = visible(scene.items, SQUARE_SIDE)
    if scene.cover is not None:
        left, top, right, bottom = scene.cover
        for mask in masks:
            mask[top:bottom, left:right] = False
    return [_tight(mask) for mask in masks]


def _tight(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
