"""Traits of towers, in the words of NLVR v1.

The meaning of the words was checked on the human labels of the NLVR v1 development set: `over` and
`on` mean directly above, a number alone means exactly, `with four blocks` means exactly four.
"""

from collections.abc import Callable
from itertools import pairwise
from random import Random

from semvlp.demo.language.item_words import ItemKind, colors_of
from semvlp.demo.language.panel_sentences import Subject, Trait
from semvlp.demo.language.words import Quantity, any_quantity, article, noun, number
from semvlp.demo.world.scene import BOX_COLORS, Panel

ON = ("over", "over", "above", "on", "on top of", "right on top of", "directly above")
HIGHEST = 4
_UNDER = ("below", "under", "beneath", "underneath")


def tower_trait(rng: Random) -> Trait:
    """Draw one thing that a tower may have, or two."""
    trait = rng.choice(_TRAITS)(rng)
    if rng.random() < 0.1:
        return trait.and_also(rng.choice(_TRAITS)(rng), rng)
    return _tall(rng).and_also(trait, rng) if rng.random() < 0.1 else trait


def any_color(rng: Random) -> str:
    """Draw a colour that blocks have."""
    return rng.choice(BOX_COLORS)


def block(color: str) -> str:
    """Write `a yellow block`."""
    return article(f"{color} block")


def any_height(rng: Random) -> Quantity:
    """Draw a number of blocks of a tower."""
    relation = rng.choice(("bare", "bare", "exactly", "at least", "more than", "at most"))
    n = rng.randint(1, HIGHEST - (relation == "more than"))
    return Quantity(relation, n)  # type: ignore[arg-type]


def tower_subject(rng: Random) -> Subject:
    """Speak of towers, or of those of some height or colour."""
    if rng.random() < 0.78:
        return Subject(noun("tower", rng=rng))
    if rng.random() < 0.15:
        color = any_color(rng)
        return Subject(noun(f"{color} tower", rng=rng), lambda p: colors_of(p) == {color}, True)
    quantity = any_height(rng)
    if quantity.relation == "bare" and rng.random() < 0.5:
        name = f"{number(quantity.n, rng)} block{rng.choice(('', 's'))} tower"
        return Subject(noun(name, rng=rng), lambda p: len(p) == quantity.n, True)
    behind = f"{rng.choice(('with', 'having'))} {quantity.of(noun('block', rng=rng), rng)}"
    return Subject(noun("tower", rng=rng, behind=behind), lambda p: quantity.holds(len(p)), True)


def _tall(rng: Random) -> Trait:
    quantity = any_height(rng)
    body = quantity.of(noun("block", "block", "block", "item", rng=rng), rng)
    return Trait(body, lambda panel: quantity.holds(len(panel)))


def _single(rng: Random) -> Trait:
    color = any_color(rng)
    count = rng.choice(("only one", "one", "exactly one", "only 1"))
    body = f"{count} {rng.choice(('block', 'block', 'object'))} which is {color}"
    return Trait(body, lambda panel: len(panel) == 1 and panel[0].color == color)


def top_trait(rng: Random) -> Trait:
    """Write `a yellow block at the top`."""
    color = any_color(rng)
    words = (
        *(f"{block(color)} at the top",) * 5,
        f"{block(color)} on top",
        f"{color} block at the top",
        f"{block(color)} as the top",
        f"{article(color)} top",
        f"{article(color)} one on top",
    )
    clause = rng.choice((f"the top is {color}", f"the top block is {color}"))
    return Trait(rng.choice(words), lambda panel: panel[-1].color == color, clause)


def base_trait(rng: Random) -> Trait:
    """Write `a yellow block at the base`."""
    color = any_color(rng)
    words = (
        *(f"{block(color)} at the base",) * 5,
        f"{block(color)} at the bottom",
        f"{block(color)} at base",
        f"{color} block at the base",
        f"{block(color)} as the base",
        f"{article(color)} base",
    )
    clause = rng.choice((f"the base is {color}", f"the bottom block is {color}"))
    return Trait(rng.choice(words), lambda panel: panel[0].color == color, clause)


def contents_trait(rng: Random) -> Trait:
    """Write `at least two blue blocks`."""
    quantity, kind = any_quantity(rng, 3), ItemKind((any_color(rng),))
    words = quantity.of(kind.noun(rng, "block"), rng)
    # `Towers that contain black blocks`: one is enough.
    body = (
        f"{kind.colors[0]} blocks"
        if quantity == Quantity("some") and rng.random() < 0.25
        else words
    )
    return Trait(body, lambda panel: quantity.holds(kind.count(panel)))


def _over(rng: Random) -> Trait:
    upper, lower = any_color(rng), any_color(rng)
    if rng.random() < 0.75:
        body = f"{block(upper)} {rng.choice(ON)} {block(lower)}"
    else:
        body = f"{block(lower)} {rng.choice(_UNDER)} {block(upper)}"
    return Trait(body, lambda panel: (upper, lower) in stacked_pairs(panel))


def _under_other(rng: Random) -> Trait:
    color = any_color(rng)
    body = f"{block(color)} {rng.choice(_UNDER)} a different colored block"
    return Trait(body, lambda p: any(low == color != up for up, low in stacked_pairs(p)))


def _together(rng: Random) -> Trait:
    color, n = any_color(rng), rng.choice((2, 2, 3))
    body = f"{number(n, rng)} {color} blocks {rng.choice(('stacked together', 'in a row'))}"
    run = (color,) * n
    return Trait(body, lambda panel: _has_run([item.color for item in panel], run))


def _only(rng: Random) -> Trait:
    first, second = rng.sample(BOX_COLORS, 2)
    if rng.random() < 0.5:
        words = (f"only {first} blocks", f"blocks of only {first} color", f"just {first} blocks")
        clause = f"all the blocks are {first}"
        return Trait(rng.choice(words), lambda panel: colors_of(panel) == {first}, clause)
    body = f"only {first} and {second} blocks"
    return Trait(body, lambda panel: colors_of(panel) == {first, second})


def _both(rng: Random) -> Trait:
    first, second = rng.sample(BOX_COLORS, 2)
    n = rng.choice((1, 1, 1, 2))
    more = f"{number(2, rng)} {second} blocks" if n == 2 else block(second)
    body = f"{block(first)} and {more}"
    return Trait(body, lambda p: count_color(p, first) >= 1 and count_color(p, second) >= n)


def _all_three(rng: Random) -> Trait:
    first, second, third = rng.sample(BOX_COLORS, 3)
    words = (
        f"blocks of all {number(3, rng)} {rng.choice(('colors', 'colours', 'different colors'))}",
        f"{block(first)}, {block(second)} and {block(third)}",
        "three different colors",
    )
    return Trait(rng.choice(words), lambda panel: len(colors_of(panel)) == 3)


def _colors(rng: Random) -> Trait:
    if rng.random() < 0.6:
        words = ("only one color", "blocks of the same color", "blocks of only one color")
        clause = "all the blocks are of same color"
        return Trait(rng.choice(words), lambda panel: len(colors_of(panel)) == 1, clause)
    words = ("blocks of two different colors", "two colors", "blocks of 2 colors")
    return Trait(rng.choice(words), lambda panel: len(colors_of(panel)) == 2)


def _second(rng: Random) -> Trait:
    color, level = any_color(rng), rng.choice((1, 1, 2))
    name = ("second", "third")[level - 1]
    clause = f"the {name} block {rng.choice(('', 'from the base '))}is {color}"
    body = f"{article(color)} {name} block"
    return Trait(body, lambda panel: len(panel) > level and panel[level].color == color, clause)


def _first_two(rng: Random) -> Trait:
    """Write `two black blocks as the base and second blocks`, or the same at the top."""
    color = any_color(rng)
    if rng.random() < 0.5:
        body = f"{number(2, rng)} {color} blocks as the base and second blocks"
        return Trait(body, lambda p: len(p) > 1 and p[0].color == p[1].color == color)
    low = any_color(rng)
    body = f"{block(low)} {rng.choice(_UNDER)} {block(color)} at the top"
    return Trait(body, lambda p: stacked_pairs(p)[-1:] == [(color, low)])


def _same_ends(rng: Random) -> Trait:
    words = ("the same color at the top and the base", "the same color at the base and the top")
    return Trait(rng.choice(words), lambda p: len(p) > 1 and p[0].color == p[-1].color)


def _between(rng: Random) -> Trait:
    middle, outer = rng.sample(BOX_COLORS, 2)
    body = f"{block(middle)} between two {outer} blocks"
    run = (outer, middle, outer)
    return Trait(body, lambda panel: _has_run([item.color for item in panel], run))


def count_color(panel: Panel, color: str) -> int:
    """Count the items that have the colour."""
    return sum(item.color == color for item in panel)


def stacked_pairs(panel: Panel) -> list[tuple[str, str]]:
    """Return the colours of each block and of the one directly below it."""
    return [(up.color, low.color) for low, up in pairwise(panel)]


def _has_run(colors: list[str], run: tuple[str, ...]) -> bool:
    size = len(run)
    return any(tuple(colors[i : i + size]) == run for i in range(len(colors) - size + 1))


_TRAITS: tuple[Callable[[Random], Trait], ...] = (
    *(top_trait, base_trait, contents_trait, _over) * 4,
    *(_tall, _only, _both, _colors) * 2,
    *(_single, _all_three, _second, _together, _under_other, _same_ends, _between, _first_two),
)
