"""True and false sentences about the wider world of the square scenes."""

from collections.abc import Callable
from random import Random

from semvlp.demo.language.claims import Claim, statement
from semvlp.demo.language.item_words import ItemKind, any_kind
from semvlp.demo.language.words import Quantity, any_quantity, article, plural, there_is, written
from semvlp.demo.world.scene import COLORS, Item, Scene
from semvlp.demo.world.shapes import SHAPES, touching

GENERIC = ("thing", "object", "shape", "item")
RELATIONS: dict[str, Callable[[Item, Item], bool]] = {
    "to the left of": lambda a, b: a.x + a.right < b.x + b.right,
    "to the right of": lambda a, b: a.x + a.right > b.x + b.right,
    "above": lambda a, b: a.y + a.bottom < b.y + b.bottom,
    "below": lambda a, b: a.y + a.bottom > b.y + b.bottom,
}
EXTREMES: dict[str, Callable[[Item], float]] = {
    "leftmost": lambda item: item.x + item.right,
    "rightmost": lambda item: -item.x - item.right,
    "topmost": lambda item: item.y + item.bottom,
    "lowest": lambda item: -item.y - item.bottom,
}
# Extremes must differ by this many pixels, or nobody could say which thing is meant.
CLEAR = 8

Spoken = tuple[str, Callable[[Scene], bool | None]]


def square_statement(rng: Random) -> Claim[Scene]:
    """Write a statement about a square scene."""
    text, holds = rng.choice(_STATEMENTS)(rng)
    return statement(written(text, rng), holds)


def square_kind(rng: Random, *, vague: float = 0.4) -> ItemKind:
    """Draw a kind of thing that is in a square scene often enough to speak of it."""
    if rng.random() < 0.4:
        return ItemKind((), rng.choice(SHAPES))
    return any_kind(rng, tuple(COLORS), SHAPES, vague=vague)


def extreme(scene: Scene, name: str) -> Item | None:
    """Return the leftmost, rightmost, topmost or lowest item; None where two are nearly level."""
    measure = EXTREMES[name]
    first, *rest = sorted(scene.items, key=measure)
    return first if not rest or measure(rest[0]) - measure(first) >= 2 * CLEAR else None


def _counted(rng: Random) -> Spoken:
    quantity, kind = any_quantity(rng, 3), square_kind(rng)
    where = rng.choice(("", "", " in the picture", " in the image"))
    text = there_is(quantity, kind.noun(rng, *GENERIC), rng)
    return text + where, lambda scene: quantity.holds(kind.count(scene.items))


def _number_of_things(rng: Random) -> Spoken:
    quantity = any_quantity(rng, 7)
    if quantity.relation in ("some", "no"):
        quantity = Quantity("exactly", rng.randint(2, 7))
    text = there_is(quantity, ItemKind().noun(rng, *GENERIC), rng)
    return text, lambda scene: quantity.holds(len(scene.items))


def _related(rng: Random) -> Spoken:
    one, other = square_kind(rng, vague=0.7), square_kind(rng, vague=0.7)
    name = rng.choice(tuple(RELATIONS))
    first, second = (article(kind.noun(rng, *GENERIC)(False)) for kind in (one, other))
    return f"{first} is {name} {second}", lambda scene: _any_pair(
        scene, one, other, RELATIONS[name]
    )


def _in_contact(rng: Random) -> Spoken:
    one, other = square_kind(rng, vague=0.7), square_kind(rng, vague=0.7)
    first, second = (article(kind.noun(rng, *GENERIC)(False)) for kind in (one, other))
    texts = (f"{first} touches {second}", f"{first} is touching {second}")
    return rng.choice(texts), lambda scene: _any_pair(scene, one, other, touching)


def _any_contact(rng: Random) -> Spoken:
    text = rng.choice(("two things touch each other", "at least two objects are touching"))
    anything = ItemKind()
    return text, lambda scene: _any_pair(scene, anything, anything, touching)


def _any_pair(
    scene: Scene, one: ItemKind, other: ItemKind, related: Callable[[Item, Item], bool]
) -> bool:
    firsts = [item for item in scene.items if one.fits(item)]
    seconds = [item for item in scene.items if other.fits(item)]
    return any(a is not b and related(a, b) for a in firsts for b in seconds)


def _at_extreme(rng: Random) -> Spoken:
    name = rng.choice(tuple(EXTREMES))
    color, shape = rng.choice(tuple(COLORS)), rng.choice(SHAPES)
    by_color = rng.random() < 0.5
    text = f"the {name} thing is {color if by_color else article(shape)}"

    def holds(scene: Scene) -> bool | None:
        item = extreme(scene, name)
        return None if item is None else (color if by_color else shape) in (item.color, item.shape)

    return text, holds


def _all_are(rng: Random) -> Spoken:
    shape, color = rng.choice(SHAPES), rng.choice(tuple(COLORS))
    by_shape = rng.random() < 0.5
    some, others = ItemKind((), shape), ItemKind((color,))
    text = (
        f"all {plural(shape)} are {color}"
        if by_shape
        else f"all {color} things are {plural(shape)}"
    )
    some, others = (some, others) if by_shape else (others, some)

    def holds(scene: Scene) -> bool | None:
        chosen = [item for item in scene.items if some.fits(item)]
        return all(map(others.fits, chosen)) if chosen else None

    return text, holds


def _more(rng: Random) -> Spoken:
    names = rng.sample((*COLORS, *SHAPES), 2)
    one, other = (ItemKind((name,)) if name in COLORS else ItemKind((), name) for name in names)
    first, second = (kind.noun(rng, "thing")(True) for kind in (one, other))
    text = f"there are more {first} than {second}"
    return text, lambda scene: one.count(scene.items) > other.count(scene.items)


_STATEMENTS: tuple[Callable[[Random], Spoken], ...] = (
    *(_counted,) * 6,
    *(_related,) * 4,
    *(_in_contact, _at_extreme) * 2,
    *(_number_of_things, _any_contact, _all_are, _more),
)
