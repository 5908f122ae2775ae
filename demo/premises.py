"""Hypotheses that a picture entails, contradicts or leaves open, in the manner of SNLI-VE.

Neutral needs something that cannot be seen. To keep it out of the words, it is in the picture: half
of the scenes have a curtain, and there may be anything behind it. So every hypothesis is used with
all three labels equally often, and a reader of the text alone is right one time in three.
"""

from random import Random

from semvlp.demo.claims import Claim
from semvlp.demo.draw import seen_items
from semvlp.demo.scene import Scene
from semvlp.demo.square_statements import GENERIC, square_kind
from semvlp.demo.words import Quantity, any_quantity, there_is, written

ENTAILMENT, NEUTRAL, CONTRADICTION = "entailment", "neutral", "contradiction"
LABELS = (ENTAILMENT, NEUTRAL, CONTRADICTION)


def hypothesis(rng: Random) -> Claim[Scene]:
    """A hypothesis about scenes some of which have a curtain."""
    quantity, kind = _open_quantity(rng), square_kind(rng, vague=0.8)
    text = there_is(quantity, kind.noun(rng, *GENERIC), rng)
    return Claim(
        written(text, rng),
        lambda scene: judge(quantity, kind.count(seen_items(scene)), scene.cover is not None),
        "hypothesis",
    )


def judge(quantity: Quantity, seen: int, covered: bool) -> str:
    """What `seen` visible things say about a quantity; behind a curtain there may be any more."""
    low, high = quantity.bounds
    most = float("inf") if covered else seen
    if low <= seen and most <= high:
        return ENTAILMENT
    return CONTRADICTION if most < low or seen > high else NEUTRAL


def _open_quantity(rng: Random) -> Quantity:
    """A quantity that all three labels are possible for."""
    while True:
        quantity = any_quantity(rng, 3)
        if quantity.relation != "at least" or quantity.n < 3:
            return quantity
