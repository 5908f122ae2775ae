"""Scenes by lot: pure, seeded, and never the same scene twice."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from random import Random

from semvlp.demo.world.scene import (
    BOX_COLORS,
    BOX_SHAPES,
    BOX_SIDE,
    BOX_SIZES,
    COLORS,
    SQUARE_SIDE,
    SQUARE_SIZES,
    TOWER_BLOCK,
    TOWER_STEP,
    TOWER_X,
    Item,
    Kind,
    Panel,
    Scene,
)
from semvlp.demo.world.shapes import SHAPES, box_gap, ink, touching, visible

FAMILY = 4
# Share of scatter scenes whose items are pushed against all four walls; NLVR pushes right and down.
_ALL_WALLS = 0.3
# NLVR's boxes hold up to eight items; in scenes with few, words are learned first.
_MOST_IN_A_BOX = (1, 2, 8, 8)
# Share of square scenes in which items may touch and overlap.
_CROWDED = 0.5
# Least distance in pixels of items that do not touch in a square scene.
_APART = 4
# Share of an item that others may hide.
_HIDDEN = 0.35
_TRIES = 60


def draw_lots(
    kind: Kind,
    counts: Mapping[str, int],
    *,
    seed: str,
    seen: set[str],
    most: int = 7,
    variety: int = 8,
    covered: bool = False,
) -> dict[str, list[Scene]]:
    """Draw `counts[split]` scenes for each split; all differ, also from those in `seen`.

    Square scenes show at most `most` items of the first `variety` colours and shapes; with
    `covered`, half of the scenes have a curtain. Keys of scenes are added to `seen`.
    """
    rng = Random(seed)
    endless = families(kind, rng, seen, most=most, variety=variety, covered=covered)
    return {split: [next(endless) for _ in range(count)] for split, count in counts.items()}


def families(
    kind: Kind,
    rng: Random,
    seen: set[str],
    *,
    most: int = 7,
    variety: int = 8,
    covered: bool = False,
) -> Iterator[Scene]:
    """Yield scenes of one kind without end, in families of four, none with a key in `seen`.

    As in NLVR, the last two of a family hold the things of the first two in other places: what
    tells them apart is how things stand, not which things there are.
    """
    while True:
        by_lot = partial(_by_lot, kind, most, variety, rng)
        pair = [_fresh(None, by_lot, rng, seen) for _ in range(FAMILY // 2)]
        for scene in [*pair, *(_fresh(scene, by_lot, rng, seen) for scene in pair)]:
            yield _curtained(scene, rng) if covered and rng.random() < 0.5 else scene


def _fresh(
    like: Scene | None, by_lot: Callable[[], Scene | None], rng: Random, seen: set[str]
) -> Scene:
    """Make a scene whose key is not in `seen`, with the things of `like` where possible."""
    for attempt in range(_TRIES * _TRIES):
        scene = _rearranged(like, rng) if like and attempt < _TRIES else by_lot()
        if scene is not None and scene.key not in seen:
            seen.add(scene.key)
            return scene
    raise ValueError(f"there are no more than {len(seen)} different scenes to be found")


def _by_lot(kind: Kind, most: int, variety: int, rng: Random) -> Scene | None:
    if kind == "towers":
        heights = [rng.randint(1, 4) for _ in range(3)]
        return _towers(heights, [rng.choice(BOX_COLORS) for _ in range(sum(heights))])
    if kind == "scatter":
        most = rng.choice(_MOST_IN_A_BOX)
        counts = [rng.randint(1, most) for _ in range(3)]
        return _scatter(counts, _box_things(sum(counts), rng), rng)
    things = [
        (
            rng.choice(SHAPES[:variety]),
            rng.choice(tuple(COLORS)[:variety]),
            rng.choice(SQUARE_SIZES),
        )
        for _ in range(rng.randint(1, most))
    ]
    return _square(things, rng)


def _rearranged(like: Scene, rng: Random) -> Scene | None:
    things = [thing_of(item) for item in like.items]
    rng.shuffle(things)
    counts = [len(panel) for panel in like.panels]
    if like.kind == "towers":
        return _towers(counts, [color for _, color, _ in things])
    return _scatter(counts, things, rng) if like.kind == "scatter" else _square(things, rng)


Thing = tuple[str, str, int]
"""Shape, colour, size."""


def thing_of(item: Item) -> Thing:
    """Return what an item is, wherever it lies."""
    return item.shape, item.color, item.size


def _box_things(count: int, rng: Random) -> list[Thing]:
    """Draw things of few shapes and colours, so that sentences with "all" and "only" often hold."""
    colors = rng.sample(BOX_COLORS, rng.choice((1, 2, 2, 3, 3, 3, 3, 3)))
    shapes = rng.sample(BOX_SHAPES, rng.choice((1, 2, 3, 3, 3, 3)))
    return [(rng.choice(shapes), rng.choice(colors), rng.choice(BOX_SIZES)) for _ in range(count)]


def _towers(heights: Sequence[int], colors: Sequence[str]) -> Scene:
    """Build towers from the base up, with a gap of one pixel between blocks as in NLVR."""
    rest = iter(colors)
    base = BOX_SIDE - TOWER_BLOCK
    panels = tuple(
        tuple(
            Item("square", next(rest), TOWER_X, base - TOWER_STEP * level, TOWER_BLOCK)
            for level in range(height)
        )
        for height in heights
    )
    return Scene("towers", panels)


def _scatter(counts: Sequence[int], things: Sequence[Thing], rng: Random) -> Scene | None:
    low = -10 if rng.random() < _ALL_WALLS else 0
    panels, start = [], 0
    for count in counts:
        panel = _panel(things[start : start + count], low, rng)
        if panel is None:
            return None
        panels.append(panel)
        start += count
    return Scene("scatter", tuple(panels))


def _panel(things: Sequence[Thing], low: int, rng: Random) -> Panel | None:
    """Place items at least one pixel apart; a place outside the box means against its wall."""
    placed: list[Item] = []
    for shape, color, size in things:
        for _ in range(_TRIES):
            x, y = (
                min(max(rng.randint(low, BOX_SIDE), 0), BOX_SIDE - size),
                min(max(rng.randint(low, BOX_SIDE), 0), BOX_SIDE - size),
            )
            item = Item(shape, color, x, y, size)
            if all(box_gap(item, other) >= 1 for other in placed):
                placed.append(item)
                break
        else:
            return None
    return tuple(placed)


def _square(things: Sequence[Thing], rng: Random) -> Scene | None:
    crowded = rng.random() < _CROWDED
    placed: list[Item] = []
    for thing in things:
        for _ in range(_TRIES):
            item = _square_item(thing, placed if crowded and rng.random() < 0.6 else [], rng)
            if _fits(item, placed, crowded):
                placed.append(item)
                break
        else:
            return None
    return Scene("square", (tuple(placed),))


def _square_item(thing: Thing, near: Sequence[Item], rng: Random) -> Item:
    """Place an item anywhere, or beside or partly over one of `near`."""
    shape, color, size = thing
    limit = SQUARE_SIDE - size
    if not near:
        return Item(shape, color, rng.randint(0, limit), rng.randint(0, limit), size)
    other = rng.choice(near)
    x = other.x + rng.randint(-size, other.size)
    y = other.y + rng.randint(-size, other.size)
    return Item(shape, color, min(max(x, 0), limit), min(max(y, 0), limit), size)


def _fits(item: Item, placed: Sequence[Item], crowded: bool) -> bool:
    """Tell whether an item stands clear of the others or, in a crowd, touches but hides none."""
    for other in placed:
        if box_gap(item, other) >= _APART:
            continue
        if not crowded or item.color == other.color or not touching(item, other):
            return False
    return not crowded or _all_seen([*placed, item])


def _all_seen(placed: Sequence[Item]) -> bool:
    """Tell whether enough of every item shows."""
    masks = visible(placed, SQUARE_SIDE)
    return all(
        mask.sum() >= (1 - _HIDDEN) * ink(item.shape, item.size).sum()
        for mask, item in zip(masks, placed, strict=True)
    )


def _curtained(scene: Scene, rng: Random) -> Scene:
    """Add a curtain that hides items wholly or hardly, if there is a place for one."""
    masks = visible(scene.items, SQUARE_SIDE)
    for _ in range(_TRIES):
        left, top, right, bottom = cover = _curtain(rng)
        hidden = [mask[top:bottom, left:right].sum() / mask.sum() for mask in masks]
        if all(share <= _HIDDEN or share == 1 for share in hidden):
            return replace(scene, cover=cover)
    return scene


def _curtain(rng: Random) -> tuple[int, int, int, int]:
    """Draw a place for the curtain: a third to a half of the picture, at one of its sides."""
    width, height = rng.randint(70, 110), SQUARE_SIDE
    if rng.random() < 0.5:
        width, height = height, width
    left = rng.choice((0, SQUARE_SIDE - width))
    top = rng.choice((0, SQUARE_SIDE - height))
    return left, top, left + width, top + height
