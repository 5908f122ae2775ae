"""The shapes of the drawn world as coverage masks, S x S for a shape of size S, and their contact.

Which items touch or hide each other is decided on their pixels.
"""

import math
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from semvlp.demo.world.scene import Item

SHAPES = ("circle", "triangle", "square", "star", "hexagon", "diamond", "cross")
# Points per pixel and axis whose share inside the shape is the coverage of the pixel.
_FINENESS = 16


@cache
def coverage(shape: str, size: int) -> NDArray[np.uint8]:
    """Return the share of each pixel that the shape covers, read-only [size, size], 0..255.

    Raises:
        ValueError: a shape that is not in SHAPES.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}")
    step = (np.arange(size * _FINENESS) + 0.5) / (size * _FINENESS)
    inside = _inside(shape, step[None, :], step[:, None])
    inside = np.broadcast_to(inside, (size * _FINENESS,) * 2)
    blocks = inside.reshape(size, _FINENESS, size, _FINENESS)
    mask: NDArray[np.uint8] = np.round(255 * blocks.mean(axis=(1, 3))).astype(np.uint8)
    mask.flags.writeable = False
    return mask


@cache
def ink(shape: str, size: int) -> NDArray[np.bool_]:
    """Return read-only [size, size], True = the shape covers at least half of the pixel."""
    mask: NDArray[np.bool_] = coverage(shape, size) >= 128
    mask.flags.writeable = False
    return mask


@cache
def extent(shape: str, size: int) -> tuple[int, int, int, int]:
    """Return the tight box around every pixel the shape touches: xyxy pixels of its square."""
    rows, columns = np.nonzero(coverage(shape, size))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def box_gap(one: Item, other: Item) -> int:
    """Return the pixels between the squares of two items, negative where they overlap."""
    across = max(one.x - other.right, other.x - one.right)
    down = max(one.y - other.bottom, other.y - one.bottom)
    return max(across, down)


@lru_cache(maxsize=65536)
def touching(one: Item, other: Item) -> bool:
    """Tell whether two items overlap or have pixels side by side or corner to corner."""
    if box_gap(one, other) > 0:
        return False
    left, top = min(one.x, other.x) - 1, min(one.y, other.y) - 1
    shape = max(one.bottom, other.bottom) + 1 - top, max(one.right, other.right) + 1 - left
    # The border of the frame is empty, so what is rolled out of it at one side is not pixels.
    mask = _placed(one, left, top, shape)
    wide = mask | np.roll(mask, 1, axis=1) | np.roll(mask, -1, axis=1)
    grown = wide | np.roll(wide, 1, axis=0) | np.roll(wide, -1, axis=0)
    return bool((grown & _placed(other, left, top, shape)).any())


def visible(panel: Sequence[Item], side: int) -> list[NDArray[np.bool_]]:
    """Return the pixels of each item that no later one hides, [side, side] bool each."""
    masks: list[NDArray[np.bool_]] = []
    for item in panel:
        own = _placed(item, 0, 0, (side, side))
        masks = [mask & ~own for mask in masks]
        masks.append(own)
    return masks


def _inside(shape: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which points of the unit square, y downwards, lie in the shape."""
    across: NDArray[np.float64] = np.abs(x - 0.5)
    down: NDArray[np.float64] = np.abs(y - 0.5)
    if shape == "square":
        return (across <= 0.5) & (down <= 0.5)
    if shape == "circle":
        return across * across + down * down <= 0.25
    if shape == "triangle":
        return across <= y / 2
    if shape == "diamond":
        return across + down <= 0.5
    if shape == "cross":
        return (across <= 1 / 6) | (down <= 1 / 6)
    if shape == "hexagon":
        return (across <= 0.5) & (down <= math.sqrt(3) / 4) & (across + down / math.sqrt(3) <= 0.5)
    return _inside_star(x, y)


def _inside_star(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which points lie in a five-pointed star: behind at most one of its five long edges."""
    angles = np.pi / 2 + 2 * np.pi * np.arange(5) / 5
    inner = 0.5 * math.cos(2 * math.pi / 5)
    behind = sum(
        ((x - 0.5) * math.cos(a) + (y - 0.5) * math.sin(a) > inner).astype(int) for a in angles
    )
    return np.asarray(behind <= 1) & ((x - 0.5) ** 2 + (y - 0.5) ** 2 <= 0.25)


def _placed(item: Item, left: int, top: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Put the ink of an item into a frame of `shape` whose corner is (`left`, `top`)."""
    frame = np.zeros(shape, bool)
    x, y = item.x - left, item.y - top
    frame[y : y + item.size, x : x + item.size] = ink(item.shape, item.size)
    return frame
