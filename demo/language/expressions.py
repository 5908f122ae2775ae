"""Expressions that speak of one thing of a square scene and of no other, as those of RefCOCO do."""

from collections.abc import Callable, Sequence
from random import Random

from semvlp.demo.language.item_words import ItemKind
from semvlp.demo.language.square_statements import CLEAR, EXTREMES, GENERIC
from semvlp.demo.world.scene import Item, Scene

TRIES = 20
"""Texts that are written for a thing before it is given up."""
_PLACES: dict[str, Callable[[Item, Item], float]] = {
    "left of": lambda a, b: b.x + b.right - a.x - a.right,
    "right of": lambda a, b: a.x + a.right - b.x - b.right,
    "above": lambda a, b: b.y + b.bottom - a.y - a.bottom,
    "below": lambda a, b: a.y + a.bottom - b.y - b.bottom,
}
"""By how much, twice the pixels between the centres, the first thing is there for the second."""

Spoken = tuple[str, Sequence[Item]]
"""A text and the things that it may speak of."""


def expression(scene: Scene, item: Item, rng: Random) -> str | None:
    """Write what tells an item from all others of its scene; None where no try does.

    A single thing needs no telling apart, so there is nothing to say of it.
    """
    if len(scene.items) < 2:
        return None
    for _ in range(TRIES):
        text, meant = rng.choice(_FORMS)(scene.items, item, rng)
        if len(meant) == 1 and meant[0] is item:
            return f"the {text}" if rng.random() < 0.5 else text
    return None


def _by_kind(items: Sequence[Item], item: Item, rng: Random) -> Spoken:
    kind = _kind_of(item, rng)
    return kind.noun(rng, *GENERIC)(False), [other for other in items if kind.fits(other)]


def _by_extreme(items: Sequence[Item], item: Item, rng: Random) -> Spoken:
    """Write `leftmost red thing`; nearly level things may all be meant."""
    name, kind = rng.choice(tuple(EXTREMES)), _kind_of(item, rng, vague=0.6)
    measure = EXTREMES[name]
    chosen = [other for other in items if kind.fits(other)]
    least = min(map(measure, chosen))
    meant = [other for other in chosen if measure(other) - least < 2 * CLEAR]
    return f"{name} {kind.noun(rng, *GENERIC)(False)}", meant


def _by_place(items: Sequence[Item], item: Item, rng: Random) -> Spoken:
    """Write `red square left of the circle`, where one thing alone is a circle."""
    other = rng.choice([one for one in items if one is not item])
    kind, landmark = _kind_of(item, rng, vague=0.4), _kind_of(other, rng)
    name = rng.choice(tuple(_PLACES))
    distance = _PLACES[name]
    text = f"{kind.noun(rng, *GENERIC)(False)} {name} the {landmark.noun(rng, *GENERIC)(False)}"
    if landmark.count(items) > 1 or distance(item, other) < 2 * CLEAR:
        return text, ()
    chosen = [one for one in items if kind.fits(one) and one is not other]
    # What is nearly level with the landmark might be meant too.
    return text, [one for one in chosen if distance(one, other) > -2 * CLEAR]


def _kind_of(item: Item, rng: Random, *, vague: float = 0.2) -> ItemKind:
    """Draw a kind that an item is of; `vague` is the chance to leave out colour, or shape."""
    color = () if rng.random() < vague else (item.color,)
    shape = None if rng.random() < vague else item.shape
    return ItemKind(color, shape, item.size_word if rng.random() < 0.2 else None)


_FORMS: tuple[Callable[[Sequence[Item], Item, Random], Spoken], ...] = (
    *(_by_kind,) * 2,
    _by_extreme,
    *(_by_place,) * 2,
)
