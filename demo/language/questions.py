"""Questions with one-word answers about any scene.

The topic of a question is one of `exist`, `count`, `color`, `shape`, `size`, `compare`, `relation`.
"""

from collections.abc import Callable, Sequence
from random import Random

from semvlp.demo.language.claims import Claim
from semvlp.demo.language.item_words import ItemKind, any_kind, touched_walls
from semvlp.demo.language.square_statements import (
    EXTREMES,
    GENERIC,
    RELATIONS,
    extreme,
    square_kind,
)
from semvlp.demo.language.words import article, plural
from semvlp.demo.world.scene import (
    BOX_COLORS,
    BOX_SHAPES,
    BOX_SIDE,
    COLORS,
    SIZE_WORDS,
    Item,
    Kind,
    Scene,
)
from semvlp.demo.world.shapes import SHAPES, touching

YES, NO = "yes", "no"
MOST = 9
ANSWERS: tuple[str, ...] = (YES, NO, *map(str, range(MOST + 1)), *COLORS, *SHAPES)

Writer = Callable[[Random], Claim[Scene]]
AnyKind = Callable[[Random], ItemKind]


def question(kind: Kind, rng: Random) -> Claim[Scene]:
    """Write a question about scenes of a kind."""
    return rng.choice(_QUESTIONS[kind])(rng)


def _yes_no(text: str, topic: str, holds: Callable[[Scene], bool | None]) -> Claim[Scene]:
    def answer(scene: Scene) -> str | None:
        verdict = holds(scene)
        return None if verdict is None else (YES if verdict else NO)

    return Claim(text, answer, topic)


def _counting(text: str, count: Callable[[Scene], int]) -> Claim[Scene]:
    def answer(scene: Scene) -> str | None:
        number = count(scene)
        return str(number) if number <= MOST else None

    return Claim(text, answer, "count")


def _box_kind(rng: Random) -> ItemKind:
    return any_kind(rng, BOX_COLORS, BOX_SHAPES)


def _perhaps_size(rng: Random) -> str | None:
    return rng.choice((None, *SIZE_WORDS))


def _exist(kind: ItemKind, rng: Random) -> Claim[Scene]:
    one, many = kind.noun(rng, *GENERIC)(False), kind.noun(rng, *GENERIC)(True)
    texts = (
        f"is there {article(one)}?",
        f"are there any {many}?",
        f"do you see {article(one)}?",
        f"does the picture show {article(one)}?",
    )
    return _yes_no(rng.choice(texts), "exist", lambda scene: kind.count(scene.items) > 0)


def _count(kind: ItemKind, rng: Random) -> Claim[Scene]:
    many = kind.noun(rng, *GENERIC)(True)
    texts = (
        f"how many {many} are there?",
        f"how many {many} can you see?",
        f"what number of {many} are in the picture?",
    )
    return _counting(rng.choice(texts), lambda scene: kind.count(scene.items))


def _more(rng: Random, colors: Sequence[str], shapes: Sequence[str]) -> Claim[Scene]:
    names = rng.sample(colors if rng.random() < 0.5 or len(shapes) < 2 else shapes, 2)
    one, other = (ItemKind((name,)) if name in COLORS else ItemKind((), name) for name in names)
    first, second = (kind.noun(rng, "thing")(True) for kind in (one, other))
    texts = (f"are there more {first} than {second}?", f"are {first} more than {second}?")

    def holds(scene: Scene) -> bool | None:
        return one.count(scene.items) > other.count(scene.items)

    return _yes_no(rng.choice(texts), "compare", holds)


def _color_of(kind: ItemKind, rng: Random) -> Claim[Scene]:
    one = ItemKind((), kind.shape, kind.size).noun(rng, *GENERIC)(False)
    return _of_the_only_one(
        rng.choice((f"what color is the {one}?", f"which color does the {one} have?")),
        "color",
        ItemKind((), kind.shape, kind.size),
        lambda item: item.color,
    )


def _shape_of(kind: ItemKind, rng: Random) -> Claim[Scene]:
    one = ItemKind(kind.colors, None, kind.size).noun(rng, "thing", "object")(False)
    return _of_the_only_one(
        rng.choice((f"what shape is the {one}?", f"what is the {one}?")),
        "shape",
        ItemKind(kind.colors, None, kind.size),
        lambda item: item.shape,
    )


def _of_the_only_one(
    text: str, topic: str, kind: ItemKind, tell: Callable[[Item], str]
) -> Claim[Scene]:
    def answer(scene: Scene) -> str | None:
        chosen = [item for item in scene.items if kind.fits(item)]
        return tell(chosen[0]) if len(chosen) == 1 else None

    return Claim(text, answer, topic)


def _at_extreme(rng: Random) -> Claim[Scene]:
    name, ask_color = rng.choice(tuple(EXTREMES)), rng.random() < 0.5
    text = f"what {'color' if ask_color else 'shape'} is the {name} thing?"

    def answer(scene: Scene) -> str | None:
        item = extreme(scene, name)
        return None if item is None else item.color if ask_color else item.shape

    return Claim(text, answer, "color" if ask_color else "shape")


def _related(rng: Random) -> Claim[Scene]:
    """Ask `is the star to the left of the red thing?` where there is one of each."""
    one, other = (square_kind(rng, vague=0.7) for _ in range(2))
    relations: dict[str, Callable[[Item, Item], bool]] = {**RELATIONS, "touching": touching}
    name = rng.choice(tuple(relations))
    first, second = (kind.noun(rng, *GENERIC)(False) for kind in (one, other))

    def holds(scene: Scene) -> bool | None:
        firsts = [item for item in scene.items if one.fits(item)]
        seconds = [item for item in scene.items if other.fits(item)]
        if len(firsts) != 1 or len(seconds) != 1 or firsts == seconds:
            return None
        return relations[name](firsts[0], seconds[0])

    return _yes_no(f"is the {first} {name} the {second}?", "relation", holds)


def _color_beside(rng: Random) -> Claim[Scene]:
    """Ask `what color is the thing touching the star?` where only one does."""
    kind = ItemKind((), rng.choice(SHAPES))
    one = kind.noun(rng)(False)

    def answer(scene: Scene) -> str | None:
        others = [item for item in scene.items if kind.fits(item)]
        if len(others) != 1:
            return None
        near = [item for item in scene.items if item != others[0] and touching(item, others[0])]
        return near[0].color if len(near) == 1 else None

    return Claim(f"what color is the thing touching the {one}?", answer, "color")


def _boxes_with(rng: Random) -> Claim[Scene]:
    kind = _box_kind(rng)
    one = kind.noun(rng)(False)
    text = rng.choice(
        (f"how many boxes contain {article(one)}?", f"in how many boxes is there {article(one)}?")
    )
    return _counting(text, lambda scene: sum(kind.count(panel) > 0 for panel in scene.panels))


def _at_walls(rng: Random) -> Claim[Scene]:
    kind = _box_kind(rng)
    many, wall = kind.noun(rng)(True), rng.choice(("wall", "edge"))

    def count(scene: Scene) -> int:
        return sum(kind.fits(i) and bool(touched_walls(i, BOX_SIDE)) for i in scene.items)

    return _counting(f"how many {many} are touching {article(wall)}?", count)


def _blocks(rng: Random) -> Claim[Scene]:
    kind = ItemKind((rng.choice(BOX_COLORS),) if rng.random() < 0.8 else ())
    many = kind.noun(rng, "block", "square")(True)
    return _counting(f"how many {many} are there?", lambda scene: kind.count(scene.items))


def _towers_with_end(rng: Random) -> Claim[Scene]:
    color, end = rng.choice(BOX_COLORS), rng.choice((0, -1))
    name = rng.choice(("base", "bottom")) if end == 0 else "top"
    texts = (
        f"how many towers have {article(color)} block at the {name}?",
        f"how many towers have {article(color)} {name}?",
    )
    return _counting(
        rng.choice(texts), lambda scene: sum(panel[end].color == color for panel in scene.panels)
    )


def _tallest(rng: Random) -> Claim[Scene]:
    tall = rng.random() < 0.5
    text = f"how many blocks are in the {'tallest' if tall else 'shortest'} tower?"
    pick = max if tall else min
    return _counting(text, lambda scene: pick(len(panel) for panel in scene.panels))


def _tower_of(rng: Random) -> Claim[Scene]:
    """Ask `what color is the top of the tower with three blocks?` where there is one."""
    height, end = rng.randint(1, 4), rng.choice((0, -1))
    name = rng.choice(("base", "bottom")) if end == 0 else "top"
    size = f"{height} block{'s' if height > 1 else ''}"

    def answer(scene: Scene) -> str | None:
        fitting = [panel for panel in scene.panels if len(panel) == height]
        return fitting[0][end].color if len(fitting) == 1 else None

    return Claim(f"what color is the {name} of the tower with {size}?", answer, "color")


def _tower_exists(rng: Random) -> Claim[Scene]:
    height, color = rng.randint(1, 4), rng.choice(BOX_COLORS)
    if rng.random() < 0.5:
        text = f"is there a tower with {height} block{'s' if height > 1 else ''}?"
        return _yes_no(text, "exist", lambda s: any(len(panel) == height for panel in s.panels))
    text = f"is there a tower without {color} {plural('block')}?"
    return _yes_no(
        text, "exist", lambda s: any(all(i.color != color for i in panel) for panel in s.panels)
    )


_TOWER_QUESTIONS: tuple[Writer, ...] = (
    _blocks,
    _towers_with_end,
    _tallest,
    _tower_of,
    _tower_exists,
    lambda rng: _more(rng, BOX_COLORS, ("square",)),
)
_SCATTER_QUESTIONS: tuple[Writer, ...] = (
    lambda rng: _exist(_box_kind(rng), rng),
    lambda rng: _count(_box_kind(rng), rng),
    lambda rng: _more(rng, BOX_COLORS, BOX_SHAPES),
    lambda rng: _color_of(ItemKind((), rng.choice(BOX_SHAPES), _perhaps_size(rng)), rng),
    lambda rng: _shape_of(ItemKind((rng.choice(BOX_COLORS),), None, _perhaps_size(rng)), rng),
    _boxes_with,
    _at_walls,
)
_SQUARE_QUESTIONS: tuple[Writer, ...] = (
    lambda rng: _exist(square_kind(rng), rng),
    lambda rng: _count(square_kind(rng), rng),
    lambda rng: _more(rng, tuple(COLORS), SHAPES),
    lambda rng: _color_of(ItemKind((), rng.choice(SHAPES), rng.choice((None, *SIZE_WORDS))), rng),
    lambda rng: _shape_of(ItemKind((rng.choice(tuple(COLORS)),)), rng),
    _at_extreme,
    _related,
    _color_beside,
)
_QUESTIONS: dict[Kind, tuple[Writer, ...]] = {
    "towers": _TOWER_QUESTIONS,
    "scatter": _SCATTER_QUESTIONS,
    "square": _SQUARE_QUESTIONS,
}
