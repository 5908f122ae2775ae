"""Towers spoken of as boxes of items: `there is a box with 3 items and a black item on top`.

A fifth of the sentences about towers in the NLVR v1 development set speak like this. Their human
labels say what the words mean: a tower touches the wall with its base, `on top` is its top block.
"""

from collections.abc import Callable
from random import Random

from semvlp.demo.language.claims import Claim, statement
from semvlp.demo.language.item_words import (
    ItemKind,
    Position,
    at_bottom,
    at_wall,
    colors_of,
    off_walls,
)
from semvlp.demo.language.panel_sentences import Subject, Trait, panel_sentence
from semvlp.demo.language.scatter_statements import colors_at_wall
from semvlp.demo.language.scatter_traits import (
    color_count,
    count_items,
    filled,
    most_of_colors,
    numbered_kinds,
    on_top_trait,
    two_colors,
)
from semvlp.demo.language.words import (
    Quantity,
    any_quantity,
    article,
    is_are,
    noun,
    number,
    there_is,
    written,
)
from semvlp.demo.world.scene import BOX_COLORS, BOX_SIDE, Panel, Scene

Spoken = tuple[str, Callable[[Scene], bool]]


def boxed_tower_statement(rng: Random) -> Claim[Scene]:
    """Write a statement about towers in the words of boxes."""
    if rng.random() < 0.65:
        subject = Subject(noun("box", "box", "box", "box", "grey box", "tower", rng=rng))
        return panel_sentence(subject, _boxed_trait(rng), rng)
    text, holds = rng.choice(_OTHERS)(rng)
    return statement(written(text, rng), holds)


def _boxed_trait(rng: Random) -> Trait:
    """Draw one thing that a tower may have as a box, or two, or its number of items and one."""
    trait, chance = rng.choice(_TRAITS)(rng), rng.random()
    if chance < 0.1:
        return rng.choice((_all_colors, color_count))(rng).and_also(trait, rng)
    if chance > 0.3:
        return trait
    other = rng.choice((on_top, on_top, _placed, _middle))(rng)
    n = rng.randint(1 if other.clause else 2, 4)
    items = Quantity("bare", n).of(noun("item", "item", "object", rng=rng), rng)
    rest = other.clause if other.clause and rng.random() < 0.5 else other.has
    return Trait(f"{items} and {rest}", lambda panel: len(panel) == n and other.holds(panel))


def on_top(rng: Random) -> Trait:
    """Write `a black item on top`: blocks are squares and of one size."""
    return on_top_trait(rng, ("square",))


def _kind(rng: Random) -> ItemKind:
    return ItemKind((rng.choice(BOX_COLORS),), rng.choice((None, "square")))


def _position(rng: Random) -> Position:
    return rng.choice((at_wall, at_wall, off_walls, at_bottom))("touching", rng, BOX_SIDE)


def _placed(rng: Random) -> Trait:
    """Write `a yellow one touching the wall` or `2 yellow squares not touching the wall`."""
    quantity = rng.choice((Quantity("some"), Quantity("some"), any_quantity(rng, 2)))
    kind, position = _kind(rng), _position(rng)
    body = f"{quantity.of(kind.noun(rng, 'item', 'item', 'one'), rng)} {position.phrase}"
    return Trait(body, lambda panel: quantity.holds(count_items(panel, kind, position)))


def _contains(rng: Random) -> Trait:
    quantity, kind = any_quantity(rng, 3), _kind(rng)
    return Trait(quantity.of(kind.noun(rng), rng), lambda p: quantity.holds(kind.count(p)))


def _all_colors(rng: Random) -> Trait:
    words = ("all 3 colors", "all three colors", "all 3 different colors", "only one color")
    body = rng.choice(words)
    n = 1 if "one" in body else 3
    return Trait(body, lambda panel: len(colors_of(panel)) == n)


def _middle(rng: Random) -> Trait:
    """Write `2 yellow squares in the middle`: all between the base and the top."""
    n, kind = rng.choice((1, 2, 2)), _kind(rng)
    body = f"{Quantity('bare', n).of(kind.noun(rng), rng)} in the middle"
    return Trait(body, lambda panel: len(panel) == n + 2 and kind.count(panel[1:-1]) == n)


def _both_ends(rng: Random) -> Trait:
    """Write `a black square touching the wall and another one on top of it all`."""
    low, shape = rng.choice(BOX_COLORS), rng.choice(("item", "square", "object"))
    base = f"{article(f'{low} {shape}')} touching {rng.choice(('the wall', 'the base'))}"
    if rng.random() < 0.5:
        body, high = f"{base} and another one {rng.choice(('on top', 'on top of it all'))}", low
    else:
        high = rng.choice(BOX_COLORS)
        body = f"{base} and {article(high)} one on top of it all"

    def holds(panel: Panel) -> bool:
        return len(panel) > 1 and panel[0].color == low and panel[-1].color == high

    return Trait(body, holds)


def _on_the_base(rng: Random) -> Trait:
    """Write `a yellow item touching the wall with a black and yellow item on top of it`."""
    low, *above = (rng.choice(BOX_COLORS) for _ in range(rng.choice((2, 2, 3))))
    shape = rng.choice(("item", "square"))
    right = rng.choice(("", "right ")) if len(above) == 1 else ""
    upper = article(f"{' and '.join(above)} {shape}")
    body = f"{article(f'{low} {shape}')} touching the wall with {upper} {right}on top of it"
    run = [low, *above]
    return Trait(body, lambda panel: [item.color for item in panel[: len(run)]] == run)


def _between_alike(rng: Random) -> Trait:
    """Write `a black item between 2 items of the same color and no item on top of that`."""
    middle, last = rng.choice(BOX_COLORS), rng.random() < 0.5
    body = f"{article(f'{middle} item')} between {number(2, rng)} items of the same color"

    def holds(panel: Panel) -> bool:
        colors = [item.color for item in panel]
        places = range(max(1, len(colors) - 2) if last else 1, len(colors) - 1)
        return any(colors[i] == middle and colors[i - 1] == colors[i + 1] for i in places)

    return Trait(body + " and no item on top of that" * last, holds)


def _bases(scene: Scene, kind: ItemKind, position: Position) -> int:
    return sum(count_items(panel, kind, position) for panel in scene.panels)


def _counted_at(rng: Random) -> Spoken:
    """Write `there are two yellow items touching the wall`, three of which there may be."""
    quantity, kind, position = any_quantity(rng, 3), _kind(rng), _position(rng)
    what = kind.noun(rng)
    if rng.random() < 0.25:
        text = f"{quantity.of(what, rng)} {is_are(quantity)} {position.phrase}"
    else:
        text = f"{there_is(quantity, what, rng)} {position.phrase}"
    return text, lambda scene: quantity.holds(_bases(scene, kind, position))


def _only_these_at_wall(rng: Random) -> Spoken:
    """Write `only 2 yellow and one black item are touching the wall`."""
    many, one = rng.sample(BOX_COLORS, 2)
    text = (
        f"only {number(2, rng)} {many} and {number(1, rng)} {one} "
        f"{rng.choice(('item', 'items'))} are touching {rng.choice(('the wall', 'the base'))}"
    )
    bases = sorted((many, many, one))
    return text, lambda scene: sorted(panel[0].color for panel in scene.panels) == bases


def _standing_anywhere(rng: Random) -> Spoken:
    trait = _on_the_base(rng)
    return f"there is {trait.has}", lambda scene: any(map(trait.holds, scene.panels))


def _top_anywhere(rng: Random) -> Spoken:
    trait = on_top(rng)
    return f"there is {trait.has}", lambda scene: any(map(trait.holds, scene.panels))


_TRAITS: tuple[Callable[[Random], Trait], ...] = (
    *(on_top, two_colors, _placed) * 3,
    *(color_count, filled, _contains, numbered_kinds) * 2,
    *(most_of_colors, _all_colors, _middle, _both_ends, _on_the_base, _between_alike),
)
_OTHERS: tuple[Callable[[Random], Spoken], ...] = (
    *(_counted_at,) * 5,
    *(colors_at_wall, _only_these_at_wall) * 2,
    *(_standing_anywhere, _top_anywhere),
)
