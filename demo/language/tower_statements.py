"""True and false sentences about towers, in the words people used for NLVR v1."""

from collections.abc import Callable
from random import Random

from semvlp.demo.language.claims import Claim, statement
from semvlp.demo.language.item_words import ItemKind
from semvlp.demo.language.panel_sentences import panel_sentence
from semvlp.demo.language.tower_boxes import boxed_tower_statement
from semvlp.demo.language.tower_traits import (
    HIGHEST,
    ON,
    any_color,
    any_height,
    base_trait,
    contents_trait,
    count_color,
    stacked_pairs,
    top_trait,
    tower_subject,
    tower_trait,
)
from semvlp.demo.language.words import Quantity, any_quantity, article, noun, there_is, written
from semvlp.demo.world.scene import BOX_COLORS, Scene

Spoken = tuple[str, Callable[[Scene], bool]]


def tower_statement(rng: Random) -> Claim[Scene]:
    """Write a statement about a scene of towers."""
    if rng.random() < 0.2:
        return boxed_tower_statement(rng)
    if rng.random() < 0.68:
        return panel_sentence(tower_subject(rng), tower_trait(rng), rng)
    text, holds = rng.choice(_OTHERS)(rng)
    return statement(written(text, rng), holds)


def _ends(rng: Random) -> Spoken:
    """Write `there are two yellow blocks as the base of a tower with at least two blocks`."""
    quantity, color, end = any_quantity(rng, 3), any_color(rng), rng.choice((0, -1))
    name = "base" if end == 0 else "top"
    height = any_height(rng) if rng.random() < 0.4 else Quantity("at least", 1)
    behind = f"{rng.choice(('as', 'as', 'at'))} the {name} of a tower"
    if height != Quantity("at least", 1):
        behind += f" with {height.of(noun('block', rng=rng), rng)}"
    text = there_is(quantity, noun(f"{color} block", rng=rng), rng)

    def holds(scene: Scene) -> bool:
        tops = [p[end].color == color for p in scene.panels if height.holds(len(p))]
        return quantity.holds(sum(tops))

    return f"{text} {behind}", holds


def _blocks(rng: Random) -> Spoken:
    quantity, color = any_quantity(rng, 5), any_color(rng)
    kind = ItemKind((color,))
    text = there_is(quantity, kind.noun(rng, "block", "block", "square", "item"), rng)
    return text, lambda scene: quantity.holds(kind.count(scene.items))


def _block_on_block(rng: Random) -> Spoken:
    upper, lower = any_color(rng), any_color(rng)
    quantity = rng.choice(
        (Quantity("some"), Quantity("some"), Quantity("no"), any_quantity(rng, 3))
    )
    name = rng.choice(("block", "block", "block", "object"))
    behind = f"{rng.choice(ON)} {article(f'{lower} {name}')}"
    what = noun(name, rng=rng, before=upper, behind=behind)

    def holds(scene: Scene) -> bool:
        pairs = [pair for panel in scene.panels for pair in stacked_pairs(panel)]
        return quantity.holds(pairs.count((upper, lower)))

    return there_is(quantity, what, rng), holds


def _heights(rng: Random) -> Spoken:
    def most_alike(scene: Scene) -> int:
        return 4 - len({len(panel) for panel in scene.panels})

    same = "with the same height"
    return rng.choice(
        (
            (f"there are at least two towers {same}", lambda scene: most_alike(scene) >= 2),
            ("all the towers have the same height", lambda scene: most_alike(scene) == 3),
            ("all the towers have different heights", lambda scene: most_alike(scene) == 1),
            (f"there are exactly two towers {same}", lambda scene: most_alike(scene) == 2),
        )
    )


def _like_ends(rng: Random) -> Spoken:
    end = rng.choice((0, -1))
    name = "base" if end == 0 else "top"

    def alike(scene: Scene) -> int:
        return 4 - len({panel[end].color for panel in scene.panels})

    return rng.choice(
        (
            (f"there are only two towers which has the same {name} color", lambda s: alike(s) == 2),
            (f"there are at least two towers with the same {name} color", lambda s: alike(s) >= 2),
            (f"all towers have a different color at the {name}", lambda s: alike(s) == 1),
            (f"all the towers have the same color at the {name}", lambda s: alike(s) == 3),
        )
    )


def _two_heights(rng: Random) -> Spoken:
    one, other = sorted(rng.sample(range(1, HIGHEST + 1), 2))
    first, second = (Quantity("bare", n).of(noun("block", rng=rng), rng) for n in (one, other))
    text = rng.choice(
        (
            f"there are two towers which has {first.split()[0]} and {second} each",
            f"there is a tower with {first} and a tower with {second}",
            f"one tower has {first} and another tower has {second}",
        )
    )
    return text, lambda scene: {one, other} <= {len(panel) for panel in scene.panels}


def _extreme(rng: Random) -> Spoken:
    trait = rng.choice((top_trait, base_trait, contents_trait))(rng)
    tallest = rng.random() < 0.6
    name = rng.choice(("tallest", "highest") if tallest else ("shortest", "smallest"))

    def holds(scene: Scene) -> bool:
        heights = [len(panel) for panel in scene.panels]
        limit = max(heights) if tallest else min(heights)
        return any(trait.holds(panel) for panel in scene.panels if len(panel) == limit)

    return f"the {name} tower has {trait.has}", holds


def _more(rng: Random) -> Spoken:
    first, second = rng.sample(BOX_COLORS, 2)
    text = rng.choice(
        (
            f"there are more {first} blocks than {second} blocks",
            f"there are more {first} than {second} blocks",
            f"{first} blocks are more than {second} blocks",
        )
    )
    return text, lambda s: count_color(s.items, first) > count_color(s.items, second)


def _on_top(rng: Random) -> Spoken:
    color = any_color(rng)
    texts = (
        f"there is {article(color)} item on top",
        f"{color} block at the top",
        f"at least one {color} block is at the top",
    )
    return rng.choice(texts), lambda s: any(panel[-1].color == color for panel in s.panels)


_OTHERS: tuple[Callable[[Random], Spoken], ...] = (
    *(_ends, _block_on_block) * 3,
    *(_blocks,) * 2,
    *(_heights, _like_ends, _two_heights, _extreme, _more, _on_top),
)
