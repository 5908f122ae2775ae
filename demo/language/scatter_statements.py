"""True and false sentences about items lying in three boxes, as people wrote for NLVR v1."""

from collections.abc import Callable
from random import Random

from semvlp.demo.language.claims import Claim, statement
from semvlp.demo.language.item_words import (
    ItemKind,
    Position,
    at_wall,
    in_corner,
    off_walls,
    touched_walls,
    wall_position,
)
from semvlp.demo.language.panel_sentences import panel_sentence
from semvlp.demo.language.scatter_traits import (
    above_trait,
    box_kind,
    box_subject,
    box_trait,
    count_items,
    on_top_trait,
)
from semvlp.demo.language.words import (
    Quantity,
    any_quantity,
    article,
    is_are,
    noun,
    plural,
    there_is,
    written,
)
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


def _bare_at(rng: Random) -> Spoken:
    """Write `black circles are touching the edge`: of all of several, or of none, to be clear."""
    kind, position = box_kind(rng), rng.choice((at_wall, off_walls))("touching", rng, BOX_SIDE)
    phrase = position.phrase.replace("that do not touch", "not touching")

    def holds(scene: Scene) -> bool | None:
        there, placed = _count_all(scene, kind), _count_all(scene, kind, position)
        return placed > 1 if placed in (0, there) and placed != 1 else None

    return f"{kind.noun(rng)(True)} are {phrase}", holds


def _corner_but_not(rng: Random) -> Spoken:
    """Write `there is a square touching the corner that is not yellow`."""
    shape, color, place = rng.choice(BOX_SHAPES), rng.choice(BOX_COLORS), rng.choice(_AT)
    kind = ItemKind(tuple(c for c in BOX_COLORS if c != color), shape)
    position = place("touching", rng, BOX_SIDE)
    text = f"there is {article(shape)} {position.phrase} that is not {color}"
    return text, lambda scene: _count_all(scene, kind, position) > 0


def _grey_holds(rng: Random) -> Spoken:
    """Write `one of the grey square contains exactly five objects`, as many people did."""
    number = Quantity("exactly", rng.randint(1, 7))
    items = number.of(noun("object", "object", "object", "item", rng=rng), rng)
    box = rng.choice(("box", "square", "square", "boxes"))
    kind = rng.choice((None, None, ItemKind((rng.choice(BOX_COLORS),))))
    behind = f" {'one of which' if number.many else 'which'} is {kind.colors[0]}" if kind else ""
    text = f"one of the grey {box} {rng.choice(('has', 'contains'))} {items}{behind}"

    def holds(scene: Scene) -> bool:
        filled = [panel for panel in scene.panels if number.holds(len(panel))]
        return any(kind is None or kind.count(panel) > 0 for panel in filled)

    return text, holds


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


def colors_at_wall(rng: Random) -> tuple[str, Callable[[Scene], bool]]:
    """Write `all 3 different colors are touching the wall`."""
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


_AT = (at_wall, in_corner, in_corner)
_OTHERS: tuple[Callable[[Random], Spoken], ...] = (
    *(_counted_at,) * 7,
    *(_counted,) * 3,
    *(_all_at, _grey_holds) * 2,
    *(_bare_at, _corner_but_not),
    *(_all_are, _same_box, colors_at_wall, _above_anywhere, _top_anywhere, _more, _two_clauses),
)
