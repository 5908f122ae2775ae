"""True and false sentences about items lying in three boxes, as people wrote for NLVR v1."""

from collections.abc import Callable
from random import Random

from semvlp.demo.language.claims import Claim, statement
from semvlp.demo.language.item_words import ItemKind, Position, touched_walls, wall_position
from semvlp.demo.language.panel_sentences import panel_sentence
from semvlp.demo.language.scatter_traits import (
    above_trait,
    box_kind,
    box_subject,
    box_trait,
    count_items,
    on_top_trait,
)
from semvlp.demo.language.words import any_quantity, is_are, plural, there_is, written
from semvlp.demo.world.scene import BOX_COLORS, BOX_SHAPES, BOX_SIDE, Scene

Spoken = tuple[str, Callable[[Scene], bool | None]]


def scatter_statement(rng: Random) -> Claim[Scene]:
    """Write a statement about a scene of items lying in boxes."""
    if rng.random() < 0.5:
        return panel_sentence(box_subject(rng), box_trait(rng), rng)
    text, holds = rng.choice(_OTHERS)(rng)
    return statement(written(text, rng), holds)


def _count_all(scene: Scene, kind: ItemKind, position: Position | None = None) -> int:
    return sum(count_items(panel, kind, position) for panel in scene.panels)


def _counted(rng: Random) -> Spoken:
    quantity, kind = any_quantity(rng, 6), box_kind(rng)
    text = there_is(quantity, kind.noun(rng), rng)
    return text, lambda scene: quantity.holds(_count_all(scene, kind))


def _counted_at(rng: Random) -> Spoken:
    """Write `there are exactly two black squares not touching any edge`."""
    quantity, kind, position = any_quantity(rng, 4), box_kind(rng), wall_position(rng, BOX_SIDE)
    what = kind.noun(rng)
    if rng.random() < 0.2 and not position.phrase.startswith("that"):
        text = f"{quantity.of(what, rng)} {is_are(quantity)} {position.phrase}"
    else:
        text = f"{there_is(quantity, what, rng)} {position.phrase}"
    return text, lambda scene: quantity.holds(_count_all(scene, kind, position))


def _all_at(rng: Random) -> Spoken:
    """Write `none of the black triangles are touching an edge`; there must be such items."""
    kind, position, none = box_kind(rng), wall_position(rng, BOX_SIDE), rng.random() < 0.4
    things = kind.noun(rng)(True)
    phrase = position.phrase.removeprefix("that is ").replace("that do not touch", "not touching")
    start = f"none of the {things}" if none else f"all {rng.choice(('', 'the '))}{things}"

    def holds(scene: Scene) -> bool | None:
        there = _count_all(scene, kind)
        return _count_all(scene, kind, position) == (0 if none else there) if there else None

    return f"{start} are {phrase}", holds


def _all_are(rng: Random) -> Spoken:
    shape, color = rng.choice(BOX_SHAPES), rng.choice(BOX_COLORS)
    if rng.random() < 0.5:
        text, some, kind = (
            f"all the {plural(shape)} are {color}",
            ItemKind((), shape),
            ItemKind((color,)),
        )
    else:
        text = f"all {color} {rng.choice(('items', 'objects'))} are {plural(shape)}"
        some, kind = ItemKind((color,)), ItemKind((), shape)

    def holds(scene: Scene) -> bool | None:
        chosen = [item for item in scene.items if some.fits(item)]
        return all(map(kind.fits, chosen)) if chosen else None

    return text, holds


def _same_box(rng: Random) -> Spoken:
    kind = box_kind(rng)
    things = kind.noun(rng)(True)
    texts = (f"all {things} are in the same box", f"{things} are only in one box")

    def holds(scene: Scene) -> bool | None:
        boxes = sum(kind.count(panel) > 0 for panel in scene.panels)
        return boxes == 1 if boxes else None

    return rng.choice(texts), holds


def _colors_at_wall(rng: Random) -> Spoken:
    n = rng.choice((1, 2, 3))
    words = {
        1: ("there is only one color touching the wall",),
        2: ("there are exactly two colors touching the wall", "2 colors are touching the wall"),
        3: ("all 3 different colors are touching the wall", "all three colors touch the wall"),
    }

    def holds(scene: Scene) -> bool:
        return len({i.color for i in scene.items if touched_walls(i, BOX_SIDE)}) == n

    return rng.choice(words[n]), holds


def _above_anywhere(rng: Random) -> Spoken:
    trait = above_trait(rng)
    return f"there is {trait.has}", lambda scene: any(map(trait.holds, scene.panels))


def _top_anywhere(rng: Random) -> Spoken:
    trait = on_top_trait(rng)
    return f"there is {trait.has}", lambda scene: any(map(trait.holds, scene.panels))


def _more(rng: Random) -> Spoken:
    vary_color = rng.random() < 0.6
    if vary_color:
        one, other = (ItemKind((color,)) for color in rng.sample(BOX_COLORS, 2))
    else:
        one, other = (ItemKind((), shape) for shape in rng.sample(BOX_SHAPES, 2))
    first, second = one.noun(Random(0), "item")(True), other.noun(Random(0), "item")(True)
    texts = (f"there are more {first} than {second}", f"there are fewer {second} than {first}")
    return rng.choice(texts), lambda s: one.count(s.items) > other.count(s.items)


def _two_clauses(rng: Random) -> Spoken:
    first, hold_first = rng.choice((_counted, _counted_at))(rng)
    second, hold_second = rng.choice((_counted, _counted_at))(rng)
    second = second.removeprefix("there is ").removeprefix("there are ")
    return f"{first} and {second}", lambda s: bool(hold_first(s)) and bool(hold_second(s))


_OTHERS: tuple[Callable[[Random], Spoken], ...] = (
    *(_counted_at,) * 7,
    *(_counted,) * 3,
    *(_all_at,) * 2,
    *(_all_are, _same_box, _colors_at_wall, _above_anywhere, _top_anywhere, _more, _two_clauses),
)
