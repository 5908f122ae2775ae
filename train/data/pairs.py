"""Which text goes with which image: each image of a step becomes one or several pairs.

All texts of an image are equally likely. A caption's pair may be made a mismatch, which is what
image-text matching tells apart: by a caption of another image, or by the regions of one. A question
never is: one about another image is often just as sensible, so it would teach nothing; questions
therefore take no part in the matching, lest it learn that questions match.

Mismatches by any image of the data follow from the position alone. Those within a batch need no
second read, but what they are then depends on how steps are cut into batches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semvlp.shards.record import Texts
from semvlp.shards.stream.order import generator
from semvlp.train.config import Negatives

Match = Literal["match", "mismatch", "none"]
RandomOf = Callable[[int, int, str], np.random.Generator]
"""(seed, position, purpose) -> random numbers; called again when these are no longer needed."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StepImage:
    """One image of a step, a visit without its regions: these are rows of the step's columns."""

    number: int
    """Which image of the step it is."""
    position: int
    """Place in the global sequence: names the random numbers of this visit."""
    image_id: str
    width: int
    """Width of the original image in pixels."""
    height: int
    """Height of the original image in pixels."""
    texts: Texts
    negative: Texts
    """The texts of another image."""
    start: int
    """Row of the step's columns that holds its first region, the most confident one."""
    object_ids: NDArray[np.integer[Any]]
    """[R] object class of each region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One text and one image of the step."""

    text: str
    image: int
    """Number of the image in its step."""
    match: Match
    """`none` takes no part in image-text matching: a question, or an image without texts."""
    answers: Mapping[str, float] = field(default_factory=dict)
    """Score of each right answer where the text is a question."""
    position: int
    """Position of the visit and ..."""
    number: int
    """... number of the pair in it: they name the random numbers of the masking."""


def pairs_of(
    image: StepImage,
    *,
    count: int,
    negative_rate: float,
    seed: int,
    negatives: Negatives = "text",
    step: Sequence[StepImage] = (),
    random_of: RandomOf = generator,
) -> list[Pair]:
    """Return `count` pairs of an image, drawn by (seed, position), with negatives of the `step`.

    No text is taken twice before all were taken once. An image without texts gets empty ones, so
    that its regions are still learned from.
    """
    texts = image.texts
    random = random_of(seed, image.position, "text")
    order = random.permutation(len(texts.captions) + len(texts.questions)).tolist()
    draws = [(order[i % len(order)] if order else None, random.random(2)) for i in range(count)]
    pairs = [_own_pair(image, number, index) for number, (index, _) in enumerate(draws)]
    return [
        _negative(pair, image, negatives, step, replacement)
        if pair.match == "match" and chance < negative_rate
        else pair
        for pair, (_, (chance, replacement)) in zip(pairs, draws, strict=True)
    ]


def _own_pair(image: StepImage, number: int, index: int | None) -> Pair:
    """Pair an image with one of its own texts, captions before questions, or with an empty one."""
    captions, questions = image.texts.captions, image.texts.questions
    text = ""
    match: Match = "none"
    answers: Mapping[str, float] = {}
    if index is not None and index >= len(captions):
        question = questions[index - len(captions)]
        text, answers = question.question, question.answers
    elif index is not None:
        text, match = captions[index], "match"
    return Pair(
        text=text,
        image=image.number,
        match=match,
        answers=answers,
        position=image.position,
        number=number,
    )


def _negative(
    pair: Pair,
    image: StepImage,
    negatives: Negatives,
    step: Sequence[StepImage],
    replacement: float,
) -> Pair:
    """Make the pair a mismatch by a number in 0..1, or leave it where nothing else can be found."""
    if negatives == "text":
        return _with_caption(pair, image.texts, image.negative, replacement)
    others = [other for other in step if other.image_id != image.image_id]
    if not others:
        return pair
    if negatives.startswith("hard"):
        other = max(others, key=lambda other: object_overlap(image.object_ids, other.object_ids))
    else:
        index = int(replacement * len(others))
        # What is left of the number says nothing about which image it is, and draws the caption.
        other, replacement = others[index], replacement * len(others) - index
    if negatives.endswith("text"):
        return _with_caption(pair, image.texts, other.texts, replacement)
    if pair.text in other.texts.captions:
        return pair
    return replace(pair, image=other.number, match="mismatch")


def _with_caption(pair: Pair, own: Texts, others: Texts, replacement: float) -> Pair:
    """Give the pair a caption of another image, unless there is none or it is right here too."""
    if not others.captions:
        return pair
    caption = others.captions[int(replacement * len(others.captions))]
    return pair if caption in own.captions else replace(pair, text=caption, match="mismatch")


def object_overlap(ours: NDArray[np.integer[Any]], theirs: NDArray[np.integer[Any]]) -> float:
    """Return the Jaccard index, 0..1, of the object classes [R] and [S] detected in two images."""
    mine, yours = set(ours.tolist()), set(theirs.tolist())
    return len(mine & yours) / max(len(mine | yours), 1)
