"""The small words: numbers, articles, plurals, quantities, and how a sentence is written down."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeVar

T = TypeVar("T")
Noun = Callable[[bool], str]
"""A noun phrase without article; True asks for the plural."""

Relation = Literal["exactly", "at least", "at most", "more than", "less than", "bare", "some", "no"]

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_RELATION_WORDS: dict[Relation, tuple[str, ...]] = {
    "exactly": ("exactly {n}", "exactly {n}", "only {n}", "precisely {n}"),
    "at least": ("at least {n}", "at least {n}", "atleast {n}", "no less than {n}"),
    "at most": ("at most {n}", "at most {n}", "no more than {n}", "not more than {n}"),
    "more than": ("more than {n}",),
    "less than": ("less than {n}", "fewer than {n}"),
    "bare": ("{n}",),
}


def number(value: int, rng: Random) -> str:
    """Write a number as a word or in digits."""
    return _NUMBERS[value] if value < len(_NUMBERS) and rng.random() < 0.6 else str(value)


def plural(noun: str) -> str:
    """Form the plural of an English noun of this world."""
    return noun + ("es" if noun.endswith(("x", "ss", "ch")) else "s")


def article(phrase: str) -> str:
    """Put `a` or `an` before the phrase."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def noun(*names: str, rng: Random, before: str = "", behind: str = "") -> Noun:
    """Make a noun phrase of one of the names and what stands before and behind it."""
    name = rng.choice(names)
    words = [before, name, behind], [before, plural(name), behind]
    one, many = (" ".join(filter(None, part)) for part in words)
    return lambda wants_many: many if wants_many else one


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of things: `some` is one or more; `bare` is a number alone and means exactly."""

    relation: Relation
    n: int = 0

    def holds(self, count: int) -> bool:
        """Tell whether `count` things are that many."""
        low, high = self.bounds
        return low <= count <= high

    @property
    def bounds(self) -> tuple[int, float]:
        """Return the least and the greatest count that is that many."""
        infinite = float("inf")
        limits: dict[Relation, tuple[int, float]] = {
            "exactly": (self.n, self.n),
            "bare": (self.n, self.n),
            "at least": (self.n, infinite),
            "at most": (0, self.n),
            "more than": (self.n + 1, infinite),
            "less than": (0, self.n - 1),
            "some": (1, infinite),
            "no": (0, 0),
        }
        return limits[self.relation]

    @property
    def many(self) -> bool:
        """Tell whether its noun stands in the plural."""
        return self.n != 1 and self.relation != "some"

    def of(self, what: Noun, rng: Random) -> str:
        """Write the quantity with its noun: `at least two circles`."""
        if self.relation == "some":
            return article(what(False))
        if self.relation == "no":
            return f"no {what(rng.random() < 0.5)}"
        if self.relation == "at least" and self.n == 2 and rng.random() < 0.15:
            return f"multiple {what(True)}"
        if self.relation == "at least" and self.n == 1 and rng.random() < 0.08:
            return f"at least {article(what(False))}"
        words = rng.choice(_RELATION_WORDS[self.relation][: 3 if self.n == 1 else None])
        return f"{words.format(n=number(self.n, rng))} {what(self.many)}"


def any_quantity(rng: Random, most: int) -> Quantity:
    """Draw a quantity people would use where there are up to about `most` things."""
    relations: tuple[Relation, ...] = (
        "some", "some", "some", "exactly", "exactly", "exactly", "bare", "bare", "bare",
        "at least", "at least", "at least", "at most", "more than", "no",
    )  # fmt: skip
    relation = rng.choice(relations)
    if relation in ("some", "no"):
        return Quantity(relation)
    n = min(rng.randint(1, most), rng.randint(1, most))
    return Quantity(relation, n)


def there_is(quantity: Quantity, what: Noun, rng: Random) -> str:
    """Write `there are exactly two circles`."""
    phrase = quantity.of(what, rng)
    many = quantity.many and (quantity.relation != "no" or phrase.endswith(what(True)))
    return f"there {'are' if many else 'is'} {phrase}"


def is_are(quantity: Quantity) -> str:
    """Return the verb that goes with a quantity."""
    return "are" if quantity.many else "is"


def written(sentence: str, rng: Random) -> str:
    """Write the sentence as people type it: with or without a capital and a full stop."""
    if rng.random() < 0.7:
        sentence = sentence[0].upper() + sentence[1:]
    return sentence + ("." if rng.random() < 0.5 else "")
