"""Sentences that count the towers or boxes that have a trait."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from semvlp.demo.language.claims import Claim, statement
from semvlp.demo.language.words import (
    Noun,
    Quantity,
    any_quantity,
    article,
    number,
    there_is,
    written,
)
from semvlp.demo.world.scene import Panel, Scene

Holds = Callable[[Panel], bool]


@dataclass(frozen=True, slots=True)
class Subject:
    """The panels that a sentence speaks of."""

    noun: Noun
    fits: Holds = lambda panel: True
    narrow: bool = False
    """True where not all panels may fit."""


@dataclass(frozen=True, slots=True)
class Trait:
    """A trait that a panel may have."""

    has: str
    """Stands behind `has`: `a yellow block at the top`."""
    holds: Holds
    clause: str = ""
    """The same as a clause: `the top block is yellow`."""

    def and_also(self, other: "Trait", rng: Random) -> "Trait":
        """Return the trait of having both at once."""
        link = rng.choice((" and ", " and ", ", and it has ", " and it has "))
        return Trait(
            f"{self.has}{link}{other.has}", lambda panel: self.holds(panel) and other.holds(panel)
        )


Form = Callable[[Subject, Trait, Random], tuple[str, Callable[[Scene], bool | None]]]


def panel_sentence(subject: Subject, trait: Trait, rng: Random) -> Claim[Scene]:
    """Write a sentence about how many panels of the subject have the trait."""
    form = rng.choice(_NARROW_FORMS if subject.narrow else _FORMS)
    text, judge = form(subject, trait, rng)
    return statement(written(text, rng), judge)


def counted(quantity: Quantity, subject: Subject, trait: Trait) -> Callable[[Scene], bool]:
    """Return a test of a scene: that many panels of the subject have the trait."""
    return lambda scene: quantity.holds(
        sum(subject.fits(panel) and trait.holds(panel) for panel in scene.panels)
    )


def _there(subject: Subject, trait: Trait, rng: Random) -> tuple[str, Callable[[Scene], bool]]:
    quantity = any_quantity(rng, 3)
    behind = _link(trait, quantity.many, rng)
    what: Noun = lambda many: f"{subject.noun(many)} {behind}"  # noqa: E731
    return there_is(quantity, what, rng), counted(quantity, subject, trait)


def _link(trait: Trait, many: bool, rng: Random) -> str:
    if trait.clause and rng.random() < 0.25:
        return f"{rng.choice(('where', 'in which', 'such that'))} {trait.clause}"
    have = "have" if many and rng.random() < 0.7 else "has"
    leads = (*("with",) * 6, "having", f"that {have}", f"which {have}")
    contain = "contain" if many else "contains"
    return f"{rng.choice((*leads, f'that {contain}'))} {trait.has}"


def _all(subject: Subject, trait: Trait, rng: Random) -> tuple[str, Callable[[Scene], bool | None]]:
    each, every = subject.noun(False), subject.noun(True)
    three = rng.choice(("3", "three", "the", "the three", ""))
    texts = (
        f"each {each} {_has(rng)} {trait.has}",
        f"every {each} {_has(rng)} {trait.has}",
        f"there is {trait.has} in each {each}",
        " ".join(f"all {three} {every} {_have(rng)} {trait.has}".split()),
    )
    return rng.choice(texts), _judge_all(subject, trait)


def _judge_all(subject: Subject, trait: Trait) -> Callable[[Scene], bool | None]:
    def judge(scene: Scene) -> bool | None:
        panels = [panel for panel in scene.panels if subject.fits(panel)]
        return all(map(trait.holds, panels)) if panels else None

    return judge


def _of_the(subject: Subject, trait: Trait, rng: Random) -> tuple[str, Callable[[Scene], bool]]:
    quantity = rng.choice(
        (Quantity("some"), Quantity("bare", 2), Quantity("at least", 2), Quantity("exactly", 1))
    )
    how_many = {"some": "one", "bare": "two", "at least": "at least two", "exactly": "only one"}
    of = rng.choice(("of the", "of the three", "of the 3"))
    verb = _have(rng) if quantity.many else _has(rng)
    # People often write `one of the grey box has`.
    nouns = subject.noun(quantity.many or rng.random() < 0.6)
    text = f"{how_many[quantity.relation]} {of} {nouns} {verb} {trait.has}"
    return text, counted(quantity, subject, trait)


def _plain(subject: Subject, trait: Trait, rng: Random) -> tuple[str, Callable[[Scene], bool]]:
    quantity = any_quantity(rng, 3)
    verb = _have(rng) if quantity.many else _has(rng)
    return f"{quantity.of(subject.noun, rng)} {verb} {trait.has}", counted(quantity, subject, trait)


def _none(subject: Subject, trait: Trait, rng: Random) -> tuple[str, Callable[[Scene], bool]]:
    texts = (
        f"none of the {subject.noun(True)} {_have(rng)} {trait.has}",
        f"no {subject.noun(False)} {_has(rng)} {trait.has}",
    )
    return rng.choice(texts), counted(Quantity("no"), subject, trait)


def _the(subject: Subject, trait: Trait, rng: Random) -> tuple[str, Callable[[Scene], bool | None]]:
    """Write `the tower with four blocks has ...`: one has it.

    As in the human labels of the NLVR v1 development set, it is false where such a one is missing.
    """
    judge = counted(Quantity("some"), subject, trait)
    head, verb, rest = trait.clause.partition(" is ")
    if verb and rng.random() < 0.5:
        owner = subject.noun(False)
        return f"{head} of {rng.choice((f'the {owner}', article(owner)))} is {rest}", judge
    return f"the {subject.noun(False)} {_has(rng)} {trait.has}", judge


def _the_several(
    subject: Subject, trait: Trait, rng: Random
) -> tuple[str, Callable[[Scene], bool]]:
    """Write `the top of the two four block towers are yellow`: there are two and both have it."""
    n, (head, verb, rest) = rng.choice((2, 2, 3)), trait.clause.partition(" is ")
    owners = f"the {number(n, rng)} {subject.noun(True)}"
    text = f"{head} of {owners} are {rest}" if verb else f"{owners} {_have(rng)} {trait.has}"

    def holds(scene: Scene) -> bool:
        panels = [panel for panel in scene.panels if subject.fits(panel)]
        return len(panels) == n and all(map(trait.holds, panels))

    return text, holds


def _exists(subject: Subject, trait: Trait, rng: Random) -> tuple[str, Callable[[Scene], bool]]:
    """Write `there is no tower with exactly two blocks`, of the subject alone."""
    quantity = any_quantity(rng, 2)
    anything = Trait("", lambda panel: True)
    return there_is(quantity, subject.noun, rng), counted(quantity, subject, anything)


def _has(rng: Random) -> str:
    return rng.choice(("has", "has", "contains"))


def _have(rng: Random) -> str:
    return rng.choice(("have", "have", "contain", "has"))


_FORMS: tuple[Form, ...] = (*(_there,) * 10, *(_all,) * 3, *(_of_the,) * 3, _plain, _none)
_NARROW_FORMS: tuple[Form, ...] = (
    *(_there,) * 6,
    *(_the, _exists) * 3,
    *(_the_several, _plain),
)
