"""Which text goes with which image: a visit of an image becomes one or several pairs.

All texts of an image are equally likely. A caption's pair may be made a mismatch, which is what
image-text matching tells apart: by a caption of another image, or by the regions of one. A question
never is: one about another image is often just as sensible, so it would teach nothing; questions
therefore take no part in the matching, lest it learn that questions match.

Mismatches by any image of the data follow from the position alone. Those within a batch need no
second read, but what they are then depends on how steps are cut into batches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from semvlp.shards.record import Regions, Texts
from semvlp.shards.stream.order import generator
from semvlp.shards.stream.stream import Visit
from semvlp.train.config import Negatives

Match = Literal["match", "mismatch", "none"]
RandomOf = Callable[[int, int, str], np.random.Generator]
"""(seed, position, purpose) -> random numbers; called again when these are no longer needed."""


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


def pairs_of(
    visit: Visit,
    *,
    count: int,
    negative_rate: float,
    seed: int,
    negatives: Negatives = "text",
    batch: Sequence[Visit] = (),
    random_of: RandomOf = generator,
) -> list[Pair]:
    """`count` pairs of one visit, drawn by (seed, position) and, if `negatives` says so, `batch`.

    No text is taken twice before all were taken once. An image without texts gets empty ones, so
    that its regions are still learned from.
    """
    texts = visit.sample.texts
    random = random_of(seed, visit.position, "text")
    turn = random.permutation(len(texts.captions) + len(texts.questions)).tolist()
    drawn = [(turn[i % len(turn)] if turn else None, random.random(2)) for i in range(count)]
    pairs = [_pair(visit, number, index) for number, (index, _) in enumerate(drawn)]
    return [
        _mismatched(pair, visit, negatives, batch, by)
        if pair.match == "match" and chance < negative_rate
        else pair
        for pair, (_, (chance, by)) in zip(pairs, drawn, strict=True)
    ]


def _pair(visit: Visit, number: int, index: int | None) -> Pair:
    """The pair of an image and one of its own texts."""
    texts = visit.sample.texts
    text = ""
    match: Match = "none"
    answers: Mapping[str, float] = {}
    if index is not None and index >= len(texts.captions):
        question = texts.questions[index - len(texts.captions)]
        text, answers = question.question, question.answers
    elif index is not None:
        text, match = texts.captions[index], "match"
    return Pair(
        text=text,
        regions=visit.sample.regions,
        match=match,
        answers=answers,
        position=visit.position,
        number=number,
    )


def _mismatched(
    pair: Pair, visit: Visit, negatives: Negatives, batch: Sequence[Visit], by: float
) -> Pair:
    """The pair made a mismatch, by a number in 0..1; as it is where nothing else can be found."""
    own = visit.sample.texts
    if negatives == "text":
        return _with_caption(pair, own, visit.negative, by)
    found = _other(visit, batch, by, hard=negatives.startswith("hard"))
    if found is None:
        return pair
    other, rest = found
    if negatives.endswith("text"):
        return _with_caption(pair, own, other.sample.texts, rest)
    if pair.text in other.sample.texts.captions:
        return pair
    return replace(pair, regions=other.sample.regions, match="mismatch")


def _with_caption(pair: Pair, own: Texts, others: Texts, by: float) -> Pair:
    """The pair with a caption of another image, unless there is none or it is right here too."""
    if not others.captions:
        return pair
    caption = others.captions[int(by * len(others.captions))]
    return pair if caption in own.captions else replace(pair, text=caption, match="mismatch")


def _other(
    visit: Visit, batch: Sequence[Visit], by: float, *, hard: bool
) -> tuple[Visit, float] | None:
    """Another image of the batch: any, or the one whose detected objects are most alike.

    And a number in 0..1 that says nothing about which image it is.
    """
    name = visit.sample.regions.image_id
    others = [other for other in batch if other.sample.regions.image_id != name]
    if not others:
        return None
    if hard:
        return max(others, key=lambda o: object_overlap(visit.sample.regions, o.sample.regions)), by
    index = int(by * len(others))
    return others[index], by * len(others) - index


def object_overlap(regions: Regions, others: Regions) -> float:
    """Jaccard index, 0..1, of the object classes detected in two images."""
    ours, theirs = set(regions.object_ids.tolist()), set(others.object_ids.tolist())
    return len(ours & theirs) / max(len(ours | theirs), 1)
