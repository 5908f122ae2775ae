"""Claims, texts with the answer that every scene gives to them, and spreading them over scenes.

No text gives its answer away: wherever a text is used, it is used equally often with each answer.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Generic, TypeVar

S = TypeVar("S")
TRUE, FALSE = "true", "false"


@dataclass(frozen=True, slots=True)
class Claim(Generic[S]):
    """A statement or question about subjects of type S."""

    text: str
    answer: Callable[[S], str | None]
    """The answer for a subject; None where the text makes no sense for it."""
    topic: str = ""
    """The kind of question."""


@dataclass(frozen=True, slots=True)
class Asked(Generic[S]):
    """A claim with the subjects it was put to, by their index, and their answers."""

    claim: Claim[S]
    answers: tuple[tuple[int, str], ...]


def statement(text: str, holds: Callable[[S], bool | None]) -> Claim[S]:
    """Make a claim that is true or false; `holds` gives None where it makes no sense."""
    names = {True: TRUE, False: FALSE, None: None}
    return Claim(text, lambda subject: names[holds(subject)])


def spread(
    write: Callable[[Random], Claim[S]],
    subjects: Sequence[S],
    *,
    each: int,
    rng: Random,
    window: int = 24,
    answers: Sequence[str] | None = None,
    tries: int = 3,
) -> Iterator[Asked[S]]:
    """Yield claims about the subjects, about `each` for every one of them.

    Each window of neighbouring subjects gets claims of its own. A claim is put to equally many
    subjects for every answer that occurs in the window, first to those that were asked least.

    Args:
        answers: the answers that must all occur in a window; without it, any two.
        tries: claims that are written for each that is needed, before a window is given up.
    """
    for start in range(0, len(subjects), window):
        members = range(start, min(start + window, len(subjects)))
        asked = dict.fromkeys(members, 0)
        # Some claims fit no subject, or all alike; a window gives up after many of them.
        for _ in range(each * len(members) * tries):
            if sum(asked.values()) >= each * len(members):
                break
            claim = write(rng)
            picked = _balanced(claim, subjects, asked, rng, answers)
            for index, _ in picked:
                asked[index] += 1
            if picked:
                yield Asked(claim, tuple(picked))


def _balanced(
    claim: Claim[S],
    subjects: Sequence[S],
    asked: dict[int, int],
    rng: Random,
    answers: Sequence[str] | None,
    most: int = 2,
) -> list[tuple[int, str]]:
    """Pick subjects with each answer equally often; none where the text would tell the answer."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index in asked:
        answer = claim.answer(subjects[index])
        if answer is not None:
            groups[answer].append(index)
    if len(groups) < 2 or (answers is not None and set(answers) != set(groups)):
        return []
    count = min(most, *(len(group) for group in groups.values()))
    picked = []
    for answer, group in sorted(groups.items()):
        group.sort(key=lambda index: (asked[index], rng.random()))
        picked += [(index, answer) for index in group[:count]]
    return picked
