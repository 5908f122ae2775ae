"""Captions of a scene, and hypotheses in the manner of SNLI-VE.

Hypotheses are entailed, contradicted or left open by a picture. Neutral needs something that cannot
be seen. To keep it out of the words, it is in the picture: half of the scenes have a curtain, and
there may be anything behind it. So every hypothesis is used with all three labels equally often,
and a reader of the text alone is right one time in three.
"""

from collections import Counter
from collections.abc import Sequence
from random import Random

from semvlp.demo.language.claims import Claim
from semvlp.demo.language.item_words import ItemKind
from semvlp.demo.language.square_statements import GENERIC, RELATIONS, square_kind
from semvlp.demo.language.words import Quantity, any_quantity, article, noun, there_is, written
from semvlp.demo.world.draw import seen_items
from semvlp.demo.world.scene import Item, Panel, Scene

ENTAILMENT, NEUTRAL, CONTRADICTION = "entailment", "neutral", "contradiction"
LABELS = (ENTAILMENT, NEUTRAL, CONTRADICTION)


def caption(scene: Scene, rng: Random) -> str:
    """Write a caption that tells shortly everything in a scene."""
    describe = {"towers": _towers, "scatter": _boxes, "square": _square}[scene.kind]
    return describe(scene, rng)


def remark(scene: Scene, rng: Random) -> str:
    """Write one true thing about a scene among many."""
    items = seen_items(scene)
    if not items:
        return "a curtain hides everything"
    if scene.kind == "square":
        return _relation(items, rng) if len(items) > 1 else article(_name(items[0], rng))
    one = rng.choice(items)
    kind = ItemKind((one.color,), None if rng.random() < 0.4 else one.shape)
    generic = ("block",) if scene.kind == "towers" else ("item", "object")
    return Quantity("bare", kind.count(items)).of(kind.noun(rng, *generic), rng)


def hypothesis(rng: Random) -> Claim[Scene]:
    """Write a hypothesis about scenes some of which have a curtain."""
    # With a quantity that all three labels are possible for.
    while True:
        quantity = any_quantity(rng, 3)
        if quantity.relation != "at least" or quantity.n < 3:
            break
    kind = square_kind(rng, vague=0.8)
    text = there_is(quantity, kind.noun(rng, *GENERIC), rng)
    return Claim(
        written(text, rng),
        lambda scene: judge(quantity, kind.count(seen_items(scene)), scene.cover is not None),
        "hypothesis",
    )


def judge(quantity: Quantity, seen: int, covered: bool) -> str:
    """Label a quantity by `seen` visible things; behind a curtain there may be any more."""
    low, high = quantity.bounds
    most = float("inf") if covered else seen
    if low <= seen and most <= high:
        return ENTAILMENT
    return CONTRADICTION if most < low or seen > high else NEUTRAL


def _towers(scene: Scene, rng: Random) -> str:
    """Describe each tower from the base to the top."""
    parts = [_tower(panel, rng) for panel in scene.panels]
    start = rng.choice(
        ("three towers:", "there are three towers:", "three grey boxes with towers:")
    )
    return f"{start} {_listed(parts)}"


def _tower(panel: Panel, rng: Random) -> str:
    if len(panel) == 1:
        return f"one with {article(panel[0].color)} block"
    colors = [item.color for item in panel]
    if len(set(colors)) == 1:
        return f"one with {_number_of(len(panel), f'{colors[0]} block', rng)}"
    order = rng.choice(("from the base to the top", "from the bottom up"))
    return f"one of {', '.join(colors)} {order}"


def _boxes(scene: Scene, rng: Random) -> str:
    """Describe what lies in each box."""
    parts = [_contents(panel, rng) for panel in scene.panels]
    box = rng.choice(("box", "grey box"))
    return f"a {box} with {parts[0]}, a {box} with {parts[1]} and a {box} with {parts[2]}"


def _square(scene: Scene, rng: Random) -> str:
    items = seen_items(scene)
    items = tuple(rng.sample(items, len(items)))
    start = rng.choice(("", "", "a picture of ", "there is "))
    behind = "" if scene.cover is None else rng.choice((" beside a curtain", " and a curtain"))
    return f"{start}{_contents(items, rng) if items else 'nothing'}{behind}"


def _contents(items: Sequence[Item], rng: Random) -> str:
    """List items: `two yellow squares and a black circle`."""
    counts = Counter((item.color, item.shape) for item in items)
    return _listed([_number_of(n, f"{color} {shape}", rng) for (color, shape), n in counts.items()])


def _number_of(count: int, what: str, rng: Random) -> str:
    if count == 1:
        return article(what)
    return Quantity("bare", count).of(noun(what, rng=rng), rng)


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _relation(items: Sequence[Item], rng: Random) -> str:
    one, other = rng.sample(items, 2)
    true = [name for name, related in RELATIONS.items() if related(one, other)]
    # Two things with the same centre stand in none of the relations.
    name = rng.choice(true) if true else "at the same place as"
    return f"{article(_name(one, rng))} {name} {article(_name(other, rng))}"


def _name(item: Item, rng: Random) -> str:
    size = f"{item.size_word} " if rng.random() < 0.4 else ""
    return f"{size}{item.color} {item.shape}"
