"""Statements about two pictures, in the manner of NLVR2 (Suhr et al. 2019)."""

from collections.abc import Callable
from random import Random

from semvlp.demo.language.claims import Claim, statement
from semvlp.demo.language.item_words import ItemKind, any_kind
from semvlp.demo.language.square_statements import GENERIC, square_kind
from semvlp.demo.language.words import any_quantity, there_is, written
from semvlp.demo.world.scene import BOX_COLORS, BOX_SHAPES, Kind, Scene

Pair = tuple[Scene, Scene]
Spoken = tuple[str, Callable[[int, int], bool]]
"""A sentence, and whether it holds where the left and the right image have so many of the kind."""


def pair_statement(kind: Kind, rng: Random) -> Claim[Pair]:
    """Write a statement about a left and a right image, both of one kind."""
    if rng.random() < 0.2:
        return _one_and_other(kind, rng)
    what = _kind(kind, rng)
    text, holds = rng.choice(_STATEMENTS)(what, _generic(kind), rng)

    def on_pair(pair: Pair) -> bool:
        left, right = (what.count(scene.items) for scene in pair)
        return holds(left, right)

    return statement(written(text, rng), on_pair)


def _kind(kind: Kind, rng: Random) -> ItemKind:
    if kind == "towers":
        return ItemKind((rng.choice(BOX_COLORS),))
    return square_kind(rng) if kind == "square" else any_kind(rng, BOX_COLORS, BOX_SHAPES)


def _generic(kind: Kind) -> tuple[str, ...]:
    return ("block", "square") if kind == "towers" else GENERIC


def _image(rng: Random) -> str:
    return rng.choice(("image", "image", "picture"))


def _one_side(what: ItemKind, generic: tuple[str, ...], rng: Random) -> Spoken:
    quantity, left = any_quantity(rng, 4), rng.random() < 0.5
    side = f"the {'left' if left else 'right'} {_image(rng)}"
    phrase = quantity.of(what.noun(rng, *generic), rng)
    texts = (
        f"{side} {rng.choice(('contains', 'shows', 'has'))} {phrase}",
        f"{there_is(quantity, what.noun(rng, *generic), rng)} in {side}",
    )
    return rng.choice(texts), lambda a, b: quantity.holds(a if left else b)


def _each(what: ItemKind, generic: tuple[str, ...], rng: Random) -> Spoken:
    quantity = any_quantity(rng, 3)
    phrase = quantity.of(what.noun(rng, *generic), rng)
    image = _image(rng)
    texts = (
        f"both {image}s {rng.choice(('contain', 'show', 'have'))} {phrase}",
        f"each {image} {rng.choice(('contains', 'shows', 'has'))} {phrase}",
    )
    return rng.choice(texts), lambda a, b: quantity.holds(a) and quantity.holds(b)


def _number_of_images(what: ItemKind, generic: tuple[str, ...], rng: Random) -> Spoken:
    quantity, images = any_quantity(rng, 3), rng.choice((0, 1, 1, 1, 2))
    phrase = quantity.of(what.noun(rng, *generic), rng)
    start = {
        0: "neither image",
        1: rng.choice(("exactly one image", "only one image", "one of the images")),
        2: "at least one image",
    }[images]
    text = f"{start} {rng.choice(('contains', 'shows', 'has'))} {phrase}"
    exact = not start.startswith(("one of", "at least"))

    def holds(left: int, right: int) -> bool:
        count = quantity.holds(left) + quantity.holds(right)
        return count == images if exact else count >= 1

    return text, holds


def _in_total(what: ItemKind, generic: tuple[str, ...], rng: Random) -> Spoken:
    quantity = any_quantity(rng, 6)
    phrase = what.noun(rng, *generic)
    total = rng.choice(("in total", "in the two images", "altogether", "in all"))
    texts = (
        f"{there_is(quantity, phrase, rng)} {total}",
        f"{total}, {there_is(quantity, phrase, rng)}",
    )
    return rng.choice(texts), lambda a, b: quantity.holds(a + b)


def _compared(what: ItemKind, generic: tuple[str, ...], rng: Random) -> Spoken:
    things = what.noun(rng, *generic)(True)
    left_more = rng.random() < 0.5
    one, other = ("left", "right") if left_more else ("right", "left")
    texts = (
        f"the {one} image has more {things} than the {other} image",
        f"there are more {things} in the {one} image than in the {other} image",
        f"the {other} image has fewer {things} than the {one} one",
    )
    return rng.choice(texts), lambda a, b: a > b if left_more else b > a


def _as_many(what: ItemKind, generic: tuple[str, ...], rng: Random) -> Spoken:
    things = what.noun(rng, *generic)(True)
    same = rng.random() < 0.5
    word = "the same number of" if same else "a different number of"
    text = f"the two images {rng.choice(('have', 'show', 'contain'))} {word} {things}"
    return text, lambda a, b: (a == b) == same


def _one_and_other(kind: Kind, rng: Random) -> Claim[Pair]:
    """Write `one image shows ... and the other ...`."""
    quantities = [any_quantity(rng, 3) for _ in range(2)]
    kinds = [_kind(kind, rng) for _ in range(2)]
    first, second = (
        quantity.of(what.noun(rng, *_generic(kind)), rng)
        for quantity, what in zip(quantities, kinds, strict=True)
    )
    verb = rng.choice(("shows", "contains", "has"))

    def fits(index: int, scene: Scene) -> bool:
        return quantities[index].holds(kinds[index].count(scene.items))

    def holds(pair: Pair) -> bool:
        left, right = pair
        return (fits(0, left) and fits(1, right)) or (fits(0, right) and fits(1, left))

    text = f"one image {verb} {first} and the other {verb} {second}"
    return statement(written(text, rng), holds)


_STATEMENTS: tuple[Callable[[ItemKind, tuple[str, ...], Random], Spoken], ...] = (
    *(_one_side, _each, _number_of_images, _in_total) * 2,
    _compared,
    _as_many,
)
