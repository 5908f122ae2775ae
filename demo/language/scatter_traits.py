"""Traits of boxes, in the words of NLVR v1.

As in the human labels of the NLVR v1 development set, `touching the wall` means to stand against it
without a gap, and `on top` in a box means to have the highest upper edge.
"""

from collections.abc import Callable, Sequence
from random import Random

from semvlp.demo.language.item_words import (
    ItemKind,
    Position,
    any_kind,
    at_wall,
    colors_of,
    topmost,
    wall_position,
)
from semvlp.demo.language.panel_sentences import Subject, Trait
from semvlp.demo.language.words import Quantity, Relation, any_quantity, article, noun, number
from semvlp.demo.world.scene import BOX_COLORS, BOX_SHAPES, BOX_SIDE, SIZE_WORDS, Panel

_SURE: tuple[Relation, ...] = ("exactly", "at least", "at least")


def box_trait(rng: Random) -> Trait:
    """Draw one thing that a box may have, or two."""
    trait = rng.choice(_TRAITS)(rng)
    if rng.random() < 0.1:
        return trait.and_also(rng.choice(_TRAITS)(rng), rng)
    return _filled_with(trait, rng) if rng.random() < 0.2 else trait


def box_kind(rng: Random) -> ItemKind:
    """Draw a kind of item that lies in boxes."""
    return any_kind(rng, BOX_COLORS, BOX_SHAPES)


def count_items(panel: Panel, kind: ItemKind, position: Position | None = None) -> int:
    """Count the items of a box that are of the kind and at the position."""
    return sum(
        kind.fits(item) and (position is None or position.holds(item, panel)) for item in panel
    )


def box_subject(rng: Random) -> Subject:
    """Speak of boxes, or of those with some number of items."""
    names = ("box", "box", "box", "grey box", "grey square", "gray box")
    if rng.random() < 0.75:
        return Subject(noun(*names, rng=rng))
    quantity = any_quantity(rng, 6)
    if quantity.relation in ("some", "no"):
        quantity = Quantity("bare", rng.randint(1, 6))
    what = quantity.of(noun("item", "object", rng=rng), rng)
    behind = f"{rng.choice(('with', 'with', 'having'))} {what}"
    return Subject(noun("box", rng=rng, behind=behind), lambda p: quantity.holds(len(p)), True)


def filled(rng: Random) -> Trait:
    """Write `exactly five objects`."""
    quantity = any_quantity(rng, 7)
    if quantity.relation in ("some", "no"):
        quantity = Quantity("exactly", rng.randint(1, 7))
    body = quantity.of(noun("item", "object", "shape", rng=rng), rng)
    return Trait(body, lambda panel: quantity.holds(len(panel)))


def _filled_with(trait: Trait, rng: Random) -> Trait:
    """Write `four items and the black one is on top`."""
    n = rng.randint(1, 6)
    items = Quantity("bare", n).of(noun("item", "item", "object", rng=rng), rng)
    rest = trait.clause if trait.clause and rng.random() < 0.5 else trait.has
    return Trait(f"{items} and {rest}", lambda panel: len(panel) == n and trait.holds(panel))


def _of_which(rng: Random) -> Trait:
    """Write `exactly three objects one of which is a circle`."""
    quantity = Quantity(rng.choice(("bare", "exactly", "at least")), rng.randint(1, 6))
    kind = rng.choice((ItemKind((rng.choice(BOX_COLORS),)), ItemKind((), rng.choice(BOX_SHAPES))))
    items = quantity.of(noun("item", "object", rng=rng), rng)
    word = kind.colors[0] if kind.colors else article(str(kind.shape))
    link = "one of which is" if quantity.many else "which is"
    return Trait(f"{items} {link} {word}", lambda p: quantity.holds(len(p)) and kind.count(p) >= 1)


def _contains(rng: Random) -> Trait:
    quantity, kind = any_quantity(rng, 4), box_kind(rng)
    return Trait(quantity.of(kind.noun(rng), rng), lambda p: quantity.holds(kind.count(p)))


def _placed(rng: Random) -> Trait:
    quantity, kind, position = any_quantity(rng, 3), box_kind(rng), wall_position(rng, BOX_SIDE)
    body = f"{quantity.of(kind.noun(rng), rng)} {position.phrase}"
    return Trait(body, lambda panel: quantity.holds(count_items(panel, kind, position)))


def _overlap(one: ItemKind, other: ItemKind) -> bool:
    return (
        (not one.colors or not other.colors or bool({*one.colors} & {*other.colors}))
        and (one.shape is None or other.shape in (None, one.shape))
        and (one.size is None or other.size in (None, one.size))
    )


def _two_kinds(rng: Random) -> Trait:
    first, n = box_kind(rng), rng.choice((0, 1, 1, 2, 3))
    # No item belongs to both kinds, so that `a` and `a` are two items.
    while True:
        second = box_kind(rng)
        if not _overlap(second, first):
            break
    enough = Quantity("at least", n) if n else Quantity("no")
    one, many = second.noun(rng)(False), second.noun(rng)(True)
    more = {0: f"no {many}", 1: article(one)}.get(n)
    more = more or f"{rng.choice(('at least ', ''))}{number(n, rng)} {many}"

    def holds(panel: Panel) -> bool:
        return first.count(panel) >= 1 and enough.holds(second.count(panel))

    return Trait(f"{article(first.noun(rng)(False))} and {more}", holds)


def _three_kinds(rng: Random) -> Trait:
    pairs = [(color, shape) for color in BOX_COLORS for shape in BOX_SHAPES]
    kinds = [ItemKind((color,), shape) for color, shape in rng.sample(pairs, 3)]
    first, second, third = (article(kind.noun(rng)(False)) for kind in kinds)
    body = f"{first}, {second} and {third}"
    return Trait(body, lambda panel: all(kind.count(panel) for kind in kinds))


def _only(rng: Random) -> Trait:
    kind = any_kind(rng, BOX_COLORS, BOX_SHAPES, sizes=0.05, vague=0.5)
    things = kind.noun(rng)(True)
    words = (f"only {things}", f"only {things}", f"nothing but {things}", f"just {things}")
    return Trait(rng.choice(words), lambda panel: all(map(kind.fits, panel)))


def two_colors(rng: Random) -> Trait:
    """Write `only two items of black and yellow color`: no other colour, and both of them."""
    first, second = rng.sample(BOX_COLORS, 2)
    n = rng.choice((0, 0, 2, 3, 4))
    count = f"{number(n, rng)} " if n else ""
    words = (
        f"{count}items of only {first} and {second} {rng.choice(('color', 'colour', 'colors'))}",
        f"only {count}{first} and {second} items",
        f"only {count}items of {first} and {second} color",
        f"{count}items of only {first} and {second} color",
    )
    return Trait(rng.choice(words), lambda p: colors_of(p) == {first, second} and n in (0, len(p)))


def color_count(rng: Random) -> Trait:
    """Write `3 items of all 3 different colors`."""
    colors, n = rng.choice((1, 1, 2, 3, 3)), rng.choice((0, 0, 3, 4))
    words = {
        1: ("of only one color", "of the same color", "of one color"),
        2: ("of 2 different colors", "of two colors", "of two different colors"),
        3: ("of all 3 different colors", "of all 3 colors", "of all three different colors"),
    }
    count = f"{number(n, rng)} " if n else ""
    body = f"{count}items {rng.choice(words[colors])}"
    return Trait(body, lambda p: len(colors_of(p)) == colors and n in (0, len(p)))


def most_of_colors(rng: Random) -> Trait:
    """Write `3 items at most of black and blue color`: both of them and no other."""
    (first, second), n = rng.sample(BOX_COLORS, 2), rng.choice((2, 3, 3, 4))
    count, items = number(n, rng), rng.choice(("items", "items", "objects"))
    words = (
        f"{count} {items} at most of {first} and {second} color",
        f"at most {count} {items} of {first} and {second} color",
    )
    return Trait(rng.choice(words), lambda p: colors_of(p) == {first, second} and len(p) <= n)


def numbered_kinds(rng: Random) -> Trait:
    """Write `1 black and 1 blue item` or `exactly two blue items and at least two black items`."""
    first, second = (ItemKind((color,)) for color in rng.sample(BOX_COLORS, 2))
    one, other = (Quantity(rng.choice(_SURE), rng.choice((1, 1, 2))) for _ in range(2))
    if rng.random() < 0.5:
        one, other = Quantity("bare", one.n), Quantity("bare", other.n)
    ending = other.of(second.noun(rng, "item", "item", "object"), rng)
    start = one.of(first.noun(rng, "item"), rng)
    if one.relation == other.relation and rng.random() < 0.7:
        start = start.rpartition(" ")[0]
    return Trait(
        f"{start} and {ending}",
        lambda panel: one.holds(first.count(panel)) and other.holds(second.count(panel)),
    )


def on_top_trait(rng: Random, shapes: Sequence[str] = BOX_SHAPES) -> Trait:
    """Write `a black item on top`; on top of others it is not alone."""
    kind = ItemKind((rng.choice(BOX_COLORS),), rng.choice((None, None, None, *shapes)))
    name = kind.noun(rng, "item", "item", "object", "one")(False)
    words = ("on top", "on top", "at the top", "on top of other items", "on top of it all")
    where = rng.choice(words)
    least = 2 if "other" in where else 1
    clause = "" if least == 2 else f"the {name} is on top"
    head = name if rng.random() < 0.08 else article(name)
    return Trait(f"{head} {where}", lambda p: len(p) >= least and kind.fits(topmost(p)), clause)


def above_trait(rng: Random) -> Trait:
    """Write `a black item above a blue one`: wholly higher, anywhere in the box."""
    upper, lower = box_kind(rng), box_kind(rng)
    word = rng.choice(("above", "above", "over", "higher than"))
    body = f"{article(upper.noun(rng)(False))} {word} {article(lower.noun(rng)(False))}"

    def holds(panel: Panel) -> bool:
        uppers, lowers = filter(upper.fits, panel), list(filter(lower.fits, panel))
        return any(one.bottom <= other.y for one in uppers for other in lowers)

    return Trait(body, holds)


def _but_not(rng: Random) -> Trait:
    """Write `a black circle not being of small size` or `a square that is not yellow`."""
    kind, no = ItemKind((), rng.choice(BOX_SHAPES)), ItemKind((rng.choice(BOX_COLORS),))
    words = [f"that is not {no.colors[0]}", f"which is not {no.colors[0]}"]
    if rng.random() < 0.5:
        kind = ItemKind((rng.choice(BOX_COLORS),), rng.choice((None, *BOX_SHAPES)))
        no = ItemKind(size=rng.choice(SIZE_WORDS))
        words = [f"not being of {no.size} size", f"that is not {no.size}"]
    body = f"{article(kind.noun(rng)(False))} {rng.choice(words)}"
    return Trait(body, lambda panel: any(kind.fits(i) and not no.fits(i) for i in panel))


def _the_number(rng: Random) -> Trait:
    """Write `four items and the three are touching the side`: three of them and no more."""
    n, kind = rng.choice((1, 2, 3)), ItemKind((rng.choice(BOX_COLORS),))
    those = f"the {number(n, rng)} {'is' if n == 1 else 'are'}"
    if rng.random() < 0.4:
        body = f"multiple items and {those} {kind.colors[0]}"
        return Trait(body, lambda panel: len(panel) > 1 and kind.count(panel) == n)
    total = rng.randint(n + 1, 6)
    items, place = f"{number(total, rng)} items", at_wall("touching", rng, BOX_SIDE)
    at_place = rng.random() < 0.5
    body = f"{items} and {those} {place.phrase if at_place else kind.colors[0]}"
    counted = (ItemKind(), place) if at_place else (kind, None)
    return Trait(body, lambda panel: len(panel) == total and count_items(panel, *counted) == n)


def _more_inside(rng: Random) -> Trait:
    first, second = rng.sample(BOX_COLORS, 2)
    body = f"more {first} items than {second} items"
    one, other = ItemKind((first,)), ItemKind((second,))
    return Trait(body, lambda panel: one.count(panel) > other.count(panel))


_TRAITS: tuple[Callable[[Random], Trait], ...] = (
    *(_contains,) * 5,
    *(_placed, _two_kinds, filled) * 3,
    *(_only, two_colors, color_count, on_top_trait) * 2,
    *(_three_kinds, _of_which, above_trait, _but_not, _more_inside),
    *(numbered_kinds, _the_number),
)
