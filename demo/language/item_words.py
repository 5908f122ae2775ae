"""Phrases for items: kinds (`small yellow circle`) and positions (`touching the wall`)."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random

from semvlp.demo.language.words import Noun, noun
from semvlp.demo.world.scene import SIZE_WORDS, Item, Panel

SYNONYMS: dict[str, tuple[str, ...]] = {
    "small": ("small", "small", "little", "tiny"),
    "medium": ("medium", "medium sized", "middle sized"),
    "big": ("big", "large", "big"),
}


@dataclass(frozen=True, slots=True)
class ItemKind:
    """Items by colour, shape and size; None and an empty collection mean any."""

    colors: tuple[str, ...] = ()
    shape: str | None = None
    size: str | None = None

    def fits(self, item: Item) -> bool:
        """Tell whether the item is of this kind."""
        return (
            (not self.colors or item.color in self.colors)
            and self.shape in (None, item.shape)
            and self.size in (None, item.size_word)
        )

    def count(self, items: Sequence[Item]) -> int:
        """Count the items of this kind."""
        return sum(map(self.fits, items))

    def noun(self, rng: Random, *generic: str) -> Noun:
        """Write `small yellow circle`; items of any shape get one of the generic words."""
        size = [rng.choice(SYNONYMS[self.size])] if self.size else []
        color = [" or ".join(rng.sample(self.colors, len(self.colors)))] if self.colors else []
        names = (self.shape,) if self.shape else generic or ("item", "object", "item", "shape")
        return noun(*names, rng=rng, before=" ".join(size + color))


@dataclass(frozen=True, slots=True)
class Position:
    """A position of an item in its panel."""

    phrase: str
    holds: Callable[[Item, Panel], bool]


def any_kind(
    rng: Random,
    colors: Sequence[str],
    shapes: Sequence[str],
    *,
    sizes: float = 0.12,
    vague: float = 0.3,
) -> ItemKind:
    """Draw a kind: `sizes` and `vague` are the chances of a size and of no shape."""
    shape = None if rng.random() < vague else rng.choice(tuple(shapes))
    some_color = shape is None or rng.random() < 0.75
    count = 2 if some_color and rng.random() < 0.06 and len(colors) > 2 else 1
    picked = tuple(rng.sample(tuple(colors), count)) if some_color else ()
    return ItemKind(picked, shape, rng.choice(SIZE_WORDS) if rng.random() < sizes else None)


def touched_walls(item: Item, side: int) -> set[str]:
    """Return the walls that an item stands against in a panel of width and height `side`."""
    walls = {"left": item.x <= 0, "top": item.y <= 0}
    walls |= {"right": item.right >= side, "bottom": item.bottom >= side}
    return {name for name, touched in walls.items() if touched}


def topmost(panel: Panel) -> Item:
    """Return the item whose upper edge is highest."""
    return min(panel, key=lambda item: (item.y, item.x))


def wall_position(rng: Random, side: int) -> Position:
    """Draw a position at a wall, or away from all walls."""
    verb = rng.choice(("touching",) * 4 + ("closely touching", "that is touching"))
    return rng.choice((at_wall, at_wall, off_walls, off_walls, at_bottom, in_corner, _at_one))(
        verb, rng, side
    )


def at_wall(verb: str, rng: Random, side: int) -> Position:
    """Write `touching the wall`: any of the four, without a gap."""
    words = (
        *("the wall", "the edge") * 3,
        "an edge",
        "a edge",
        "a wall",
        "the side",
        "a side",
    )
    return Position(f"{verb} {rng.choice(words)}", lambda item, _: bool(touched_walls(item, side)))


def off_walls(_: str, rng: Random, side: int) -> Position:
    """Write `not touching any edge`."""
    verb = rng.choice(("not touching",) * 4 + ("not closely touching", "that do not touch"))
    words = (*("any edge",) * 4, "the wall", "the edge", "any wall", "a wall", "the side")
    return Position(f"{verb} {rng.choice(words)}", lambda item, _: not touched_walls(item, side))


def at_bottom(verb: str, rng: Random, side: int) -> Position:
    """Write `touching the base`."""
    words = ("the base", "the base", "the bottom", "the bottom of a box", "the bottom edge")
    phrase = f"{verb} {rng.choice(words)}"
    return Position(phrase, lambda item, _: "bottom" in touched_walls(item, side))


def in_corner(verb: str, rng: Random, side: int) -> Position:
    """Write `touching a corner`: two walls at once."""
    words = ("a corner", "the corner", "a corner of a box", "a box corner", "the corner of a box")
    phrase = f"{verb} {rng.choice(words)}"
    return Position(phrase, lambda item, _: len(touched_walls(item, side)) >= 2)


def _at_one(verb: str, rng: Random, side: int) -> Position:
    wall = rng.choice(("right", "right", "right", "left", "top"))
    words = (f"{wall} wall of a box", f"the {wall} wall", f"the {wall} edge", f"the {wall} side")
    phrase = f"{verb} {rng.choice(words)}"
    return Position(phrase, lambda item, _: wall in touched_walls(item, side))


def colors_of(items: Collection[Item]) -> set[str]:
    """Return the colours that occur."""
    return {item.color for item in items}
