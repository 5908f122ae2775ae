"""Which text goes with which image: a visit of an image becomes one or several pairs.

All texts of an image are equally likely. A caption may be replaced by one of another image, which
is what image-text matching tells apart. A question never is: one about another image is often just
as sensible, so it would teach nothing; questions therefore take no part in the matching, lest it
learn that questions match.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from semvlp.shards.order import generator
from semvlp.shards.record import Regions, Texts
from semvlp.shards.stream import Visit

Match = Literal["match", "mismatch", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One text and the regions of one image."""

    text: str
    regions: Regions
    match: Match
    """`none` takes no part in image-text matching: a question, or an image without texts."""
    answers: Mapping[str, float] = field(default_factory=dict)
    """Score of each right answer where the text is a question."""
    position: int
    """Position of the visit and ..."""
    number: int
    """... number of the pair in it: they name the random numbers of the masking."""


def pairs_of(visit: Visit, *, count: int, mismatch_rate: float, seed: int) -> list[Pair]:
    """`count` pairs of one visit, drawn by (seed, position) alone.

    No text is taken twice before all were taken once. An image without texts gets empty ones, so
    that its regions are still learned from.
    """
    texts = visit.sample.texts
    random = generator(seed, visit.position, "text")
    turn = random.permutation(len(texts.captions) + len(texts.questions)).tolist()
    drawn = [(turn[i % len(turn)] if turn else None, random.random(2)) for i in range(count)]
    return [
        _pair(visit, number, index, replaced=replace < mismatch_rate, by=by)
        for number, (index, (replace, by)) in enumerate(drawn)
    ]


def split(visits: Sequence[Visit], parts: int) -> list[Sequence[Visit]]:
    """Cut visits into `parts` runs whose lengths differ by one at most."""
    bounds = [len(visits) * part // parts for part in range(parts + 1)]
    return [visits[low:high] for low, high in pairwise(bounds)]


def _pair(visit: Visit, number: int, index: int | None, *, replaced: bool, by: float) -> Pair:
    texts = visit.sample.texts
    text = ""
    match: Match = "none"
    answers: Mapping[str, float] = {}
    if index is not None and index >= len(texts.captions):
        question = texts.questions[index - len(texts.captions)]
        text, answers = question.question, question.answers
    elif index is not None:
        other = _negative(visit.negative, texts, by) if replaced else None
        text = texts.captions[index] if other is None else other
        match = "match" if other is None else "mismatch"
    return Pair(
        text=text,
        regions=visit.sample.regions,
        match=match,
        answers=answers,
        position=visit.position,
        number=number,
    )


def _negative(others: Texts, own: Texts, by: float) -> str | None:
    """A caption of the other image, by a number in 0..1; None where it would be right here too."""
    if not others.captions:
        return None
    caption = others.captions[int(by * len(others.captions))]
    return None if caption in own.captions else caption
