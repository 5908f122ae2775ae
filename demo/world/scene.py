"""A scene of the drawn world: things in panels, before anything is drawn.

Three kinds. `towers` and `scatter` are the scenes of NLVR v1 (Suhr et al. 2017; lil-lab/nlvr):
three grey boxes of 100 x 100 pixels, with a tower of one to four blocks or up to eight items in
each. `square` scenes have one field of 224 x 224 pixels, more shapes and colours, and overlaps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["towers", "scatter", "square"]
KINDS: tuple[Kind, ...] = ("towers", "scatter", "square")

BOX_SIDE = 100
BOX_STEP = 150
SQUARE_SIDE = 224

COLORS: dict[str, tuple[int, int, int]] = {
    "yellow": (255, 255, 0),
    "black": (0, 0, 0),
    "blue": (0, 153, 255),
    "red": (220, 30, 40),
    "green": (0, 150, 60),
    "purple": (140, 60, 190),
    "orange": (255, 140, 0),
    "white": (255, 255, 255),
}
BOX_COLORS = ("yellow", "black", "blue")
BOX_SHAPES = ("circle", "triangle", "square")
SIZE_WORDS = ("small", "medium", "big")
BOX_SIZES = (10, 20, 30)
SQUARE_SIZES = (26, 42, 66)
TOWER_X, TOWER_BLOCK, TOWER_STEP = 40, 20, 21


@dataclass(frozen=True, slots=True)
class Item:
    """One drawn thing; `x`, `y` are the left and top pixel of its square inside its panel."""

    shape: str
    color: str
    x: int
    y: int
    size: int

    @property
    def right(self) -> int:
        return self.x + self.size

    @property
    def bottom(self) -> int:
        return self.y + self.size

    @property
    def size_word(self) -> str:
        sizes = BOX_SIZES if self.size in BOX_SIZES else SQUARE_SIZES
        return SIZE_WORDS[sizes.index(self.size)]


Panel = tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture before it is drawn: one panel (`square`) or three; later items hide others."""

    kind: Kind
    panels: tuple[Panel, ...]
    cover: tuple[int, int, int, int] | None = None
    """A curtain that hides part of a `square` scene, xyxy pixels; nobody knows what is behind."""

    @property
    def items(self) -> Panel:
        return tuple(item for panel in self.panels for item in panel)

    @property
    def side(self) -> int:
        """Return width and height of a panel in pixels."""
        return SQUARE_SIDE if self.kind == "square" else BOX_SIDE

    @property
    def width(self) -> int:
        return SQUARE_SIDE if self.kind == "square" else 2 * BOX_STEP + BOX_SIDE

    @property
    def key(self) -> str:
        """Return a text, equal for scenes that show the same in any order of boxes and items."""
        return repr((self.cover, sorted(tuple(sorted(map(repr, panel))) for panel in self.panels)))

    def permuted(self, order: Sequence[int]) -> "Scene":
        """Return the scene whose panel j is panel `order[j]` of this one."""
        return replace(self, panels=tuple(self.panels[index] for index in order))
