"""Statements about square scenes by what must be seen to judge them: low level or high level.

At the low level things are looked at one by one: is there one, how many are there, what is it like.
At the high level places are compared: of two things, of one and all others, or twice in a sentence.

What a scene holds must not tell how it stands, nor one clause of two the whole. So statements are
made only of scenes in which the things they name occur, and conjunctions only of those in which at
least one clause holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from semvlp.demo.language.claims import Claim, statement
from semvlp.demo.language.item_words import ItemKind
from semvlp.demo.language.square_statements import CLEAR, EXTREMES, RELATIONS, extreme
from semvlp.demo.language.words import article, plural
from semvlp.demo.world.scene import COLORS, SIZE_WORDS, Item, Scene
from semvlp.demo.world.shapes import SHAPES

LEVELS: dict[str, tuple[str, ...]] = {
    "low": ("exist", "count", "attribute"),
    "high": ("relation", "extreme", "two-clause"),
}
TOPICS = LEVELS["low"] + LEVELS["high"]
# A number, and whether it is meant exactly or as the least.
_AMOUNTS = ((1, True), (2, True), (3, True), (2, False), (3, False))
_NUMBERS = {1: "one", 2: "two", 3: "three"}

Judged = Callable[[Scene], bool | None]
Spoken = tuple[str, Judged]


def statement_of(topic: str, rng: Random) -> Claim[Scene]:
    """Write a statement of one of `TOPICS`, which is the topic of the claim."""
    text, holds = rng.choice(_WRITERS[topic])(rng)
    return replace(statement(text, holds), topic=topic)


def _exist(rng: Random) -> Spoken:
    kind, some = _kind(rng, rng.choice((1, 1, 2))), rng.random() < 0.5
    text = f"there is {article(_noun(kind))}" if some else f"there is no {_noun(kind)}"
    return text, lambda scene: (kind.count(scene.items) > 0) == some


def _count(rng: Random) -> Spoken:
    """Count what is there: where nothing is, there is nothing to count."""
    kind = ItemKind() if rng.random() < 0.2 else _kind(rng, 1)
    number, exact = rng.choice(_AMOUNTS)

    def holds(scene: Scene) -> bool | None:
        count = kind.count(scene.items)
        if not count:
            return None
        return count == number if exact else count >= number

    noun = _noun(kind) if number == 1 else plural(_noun(kind))
    verb = "is" if number == 1 else "are"
    words = "exactly" if exact else "at least"
    return f"there {verb} {words} {_NUMBERS[number]} {noun}", holds


def _attribute(rng: Random) -> Spoken:
    """Ask for a trait of the only thing that has another one: `the star is red`."""
    one, asked = (_TRAITS[trait](rng) for trait in rng.sample(tuple(_TRAITS), 2))

    def holds(scene: Scene) -> bool | None:
        item = _only(one, scene)
        return asked.fits(item) if item and _tells(asked, scene) else None

    return f"the {_noun(one)} is {_predicate(asked)}", holds


def _relation(rng: Random) -> Spoken:
    one, other = _two_kinds(rng)
    name = rng.choice(tuple(RELATIONS))
    return f"the {_noun(one)} is {name} the {_noun(other)}", _stands(one, name, other)


def _at_extreme(rng: Random) -> Spoken:
    name, asked = rng.choice(tuple(EXTREMES)), _kind(rng, 1)
    return f"the {name} thing is {_predicate(asked)}", _is_like(name, asked)


def _two_relations(rng: Random) -> Spoken:
    """Compare one thing with another across, and with that or a third one up and down."""
    one, other = _two_kinds(rng)
    third = other if rng.random() < 0.7 else _kind(rng, 1)
    across, down = rng.choice(tuple(RELATIONS)[:2]), rng.choice(tuple(RELATIONS)[2:])
    last = "it" if third is other else f"the {_noun(third)}"
    text = f"the {_noun(one)} is {across} the {_noun(other)} and {down} {last}"
    return text, _both(_stands(one, across, other), _stands(one, down, third))


def _two_extremes(rng: Random) -> Spoken:
    names = rng.sample(tuple(EXTREMES), 2)
    asked = [_kind(rng, 1) for _ in names]
    first, second = (
        f"the {name} thing is {_predicate(kind)}" for name, kind in zip(names, asked, strict=True)
    )
    return f"{first} and {second}", _both(*map(_is_like, names, asked))


def _same_extreme(rng: Random) -> Spoken:
    names = rng.choice(tuple(EXTREMES)[:2]), rng.choice(tuple(EXTREMES)[2:])
    first, second = rng.sample(names, 2)

    def holds(scene: Scene) -> bool | None:
        one, other = extreme(scene, first), extreme(scene, second)
        return one is other if one and other and len(scene.items) > 1 else None

    return f"the {first} thing is also the {second} thing", holds


_WRITERS: dict[str, Sequence[Callable[[Random], Spoken]]] = {
    "exist": (_exist,),
    "count": (_count,),
    "attribute": (_attribute,),
    "relation": (_relation,),
    "extreme": (_at_extreme,),
    # What seldom makes sense of a scene is written more often.
    "two-clause": (*(_two_relations,) * 10, *(_two_extremes,) * 5, _same_extreme),
}
_TRAITS: dict[str, Callable[[Random], ItemKind]] = {
    "color": lambda rng: ItemKind((rng.choice(tuple(COLORS)),)),
    "shape": lambda rng: ItemKind((), rng.choice(SHAPES)),
    "size": lambda rng: ItemKind((), None, rng.choice(SIZE_WORDS)),
}


def _kind(rng: Random, traits: int) -> ItemKind:
    """Draw a kind by so many traits."""
    kinds = [_TRAITS[trait](rng) for trait in rng.sample(tuple(_TRAITS), traits)]
    return ItemKind(
        colors=next((kind.colors for kind in kinds if kind.colors), ()),
        shape=next((kind.shape for kind in kinds if kind.shape), None),
        size=next((kind.size for kind in kinds if kind.size), None),
    )


def _two_kinds(rng: Random) -> tuple[ItemKind, ItemKind]:
    """Draw two kinds by one trait each, which are not the same."""
    while True:
        one, other = _kind(rng, 1), _kind(rng, 1)
        if one != other:
            return one, other


def _noun(kind: ItemKind) -> str:
    """Write a kind in the plainest words: `big red star`, `red thing`."""
    return " ".join(filter(None, (kind.size, *kind.colors, kind.shape or "thing")))


def _predicate(kind: ItemKind) -> str:
    """Write what a thing is said to be: `red`, `a star`, `big`."""
    return article(kind.shape) if kind.shape else _noun(kind).removesuffix(" thing")


def _only(kind: ItemKind, scene: Scene) -> Item | None:
    """Return the one thing of a kind; None where there are others or none."""
    fitting = [item for item in scene.items if kind.fits(item)]
    return fitting[0] if len(fitting) == 1 else None


def _tells(kind: ItemKind, scene: Scene) -> bool:
    """Tell whether some things of a scene are of a kind, and others are not."""
    return 0 < kind.count(scene.items) < len(scene.items)


def _stands(one: ItemKind, name: str, other: ItemKind) -> Judged:
    """Judge where the only thing of a kind stands to that of another; None where it is unclear."""

    def holds(scene: Scene) -> bool | None:
        first, second = _only(one, scene), _only(other, scene)
        if first is None or second is None or first is second:
            return None
        across = name in tuple(RELATIONS)[:2]
        measure = EXTREMES["leftmost" if across else "topmost"]
        clear = abs(measure(first) - measure(second)) >= 2 * CLEAR
        return RELATIONS[name](first, second) if clear else None

    return holds


def _is_like(name: str, asked: ItemKind) -> Judged:
    """Judge whether the leftmost, ... thing is of a kind, of which there are things and others."""

    def holds(scene: Scene) -> bool | None:
        item = extreme(scene, name)
        return asked.fits(item) if item and _tells(asked, scene) else None

    return holds


def _both(one: Judged, other: Judged) -> Judged:
    """Judge a conjunction; None where both are false: to judge one clause must not be enough."""

    def holds(scene: Scene) -> bool | None:
        first, second = one(scene), other(scene)
        if first is None or second is None or not (first or second):
            return None
        return first and second

    return holds
