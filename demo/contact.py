"""Which items touch or hide each other, decided on their pixels."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from semvlp.demo.scene import Item
from semvlp.demo.shapes import ink


def box_gap(one: Item, other: Item) -> int:
    """Pixels between the squares of two items, negative where they overlap."""
    across = max(one.x - other.right, other.x - one.right)
    down = max(one.y - other.bottom, other.y - one.bottom)
    return max(across, down)


@lru_cache(maxsize=65536)
def touching(one: Item, other: Item) -> bool:
    """Whether two items overlap or have pixels side by side or corner to corner."""
    if box_gap(one, other) > 0:
        return False
    left, top = min(one.x, other.x) - 1, min(one.y, other.y) - 1
    shape = max(one.bottom, other.bottom) + 1 - top, max(one.right, other.right) + 1 - left
    return bool((_grown(_placed(one, left, top, shape)) & _placed(other, left, top, shape)).any())


def visible(panel: Sequence[Item], side: int) -> list[NDArray[np.bool_]]:
    """The pixels of each item that no later one hides, [side, side] each."""
    masks: list[NDArray[np.bool_]] = []
    for item in panel:
        own = _placed(item, 0, 0, (side, side))
        masks = [mask & ~own for mask in masks]
        masks.append(own)
    return masks


def _placed(item: Item, left: int, top: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The ink of an item in a frame of `shape` whose corner is (`left`, `top`)."""
    frame = np.zeros(shape, bool)
    x, y = item.x - left, item.y - top
    frame[y : y + item.size, x : x + item.size] = ink(item.shape, item.size)
    return frame


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and the eight neighbours of each of its pixels; its border must be empty."""
    wide = mask | np.roll(mask, 1, axis=1) | np.roll(mask, -1, axis=1)
    return wide | np.roll(wide, 1, axis=0) | np.roll(wide, -1, axis=0)
