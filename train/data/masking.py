"""What is hidden from the network: pure functions of the data and a generator.

T text tokens, R and S regions, M masked tokens. Boxes are xyxy in pixels. A mask is True where
something is hidden.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from semvlp.shapes import shapes
from semvlp.train.config import TokenUnit

SHARE_MASKED = 0.8
SHARE_RANDOM = 0.1


@dataclass(frozen=True, slots=True)
class MaskingVocabulary:
    """The word pieces that masking needs to know."""

    mask_id: int
    """Id of [MASK]."""
    ordinary_ids: NDArray[np.int64]
    """Ids of all word pieces but the special ones: what a masked token may be replaced by."""
    continues: NDArray[np.bool_]
    """[V] True for a word piece that goes on with the word before it: BERT's `##` pieces."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskedTokens:
    """A text with some of its tokens hidden."""

    input_ids: NDArray[np.int64]
    """[T] what the network reads."""
    positions: NDArray[np.int64]
    """[M] which tokens it must restore, rising."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskedRegions:
    """What happens to the regions [R] of an image."""

    chosen: NDArray[np.bool_]
    """Those that must be restored."""
    zeroed: NDArray[np.bool_]
    """Those among them that are hidden altogether."""
    replaced: NDArray[np.bool_]
    """Those among them that get the features of a region from elsewhere ..."""
    replacement: NDArray[np.float64]
    """... named by a number in 0..1."""


@shapes
def mask_tokens(
    input_ids: Int[NDArray[np.int64], "T"],
    rate: float,
    vocabulary: MaskingVocabulary,
    random: np.random.Generator,
    *,
    unit: TokenUnit = "piece",
) -> MaskedTokens:
    """Hide tokens of `[CLS] ... [SEP]` as BERT does (Devlin et al. 2019, section 3.1).

    Each inner word piece, or each word, is chosen with chance `rate`, and at least one is where
    there is one (as in ChenRocks/UNITER data/mlm.py). A chosen piece becomes [MASK] (80 %), any
    ordinary word piece (10 %) or stays (10 %). Words are chosen as a whole, but each of their
    pieces is drawn for by itself, as in the whole-word masking of google-research/bert.
    """
    inner = input_ids[1:-1]
    if unit == "word":
        positions = 1 + np.flatnonzero(_choose_words(inner, rate, vocabulary, random))
    else:
        positions = 1 + np.flatnonzero(choose(len(inner), rate, random))
    action = random.random(len(positions))
    # What `random.choice` does, in half the time.
    drawn = random.integers(0, len(vocabulary.ordinary_ids), size=len(positions))
    replaced = vocabulary.ordinary_ids[drawn]
    masked = input_ids.copy()
    masked[positions] = np.where(
        action < SHARE_MASKED,
        vocabulary.mask_id,
        np.where(action < SHARE_MASKED + SHARE_RANDOM, replaced, input_ids[positions]),
    )
    return MaskedTokens(masked, positions)


@shapes
def mask_regions(
    boxes: Float[NDArray[np.float32], "R 4"],
    rate: float,
    joint_mask_iou: float,
    random: np.random.Generator,
) -> Bool[NDArray[np.bool_], "R"]:
    """Choose the regions [R] to hide: drawn ones and all that overlap one of them too much.

    Each of the regions `boxes` [R, 4] is chosen with chance `rate`, and at least one is. Regions
    whose IoU with a chosen one exceeds `joint_mask_iou` would give the answer away and are hidden
    too (0.5 in StructVBERT, 0.4 in e-bug/volta).
    """
    chosen = choose(len(boxes), rate, random)
    if joint_mask_iou >= 1 or not chosen.any():
        return chosen
    covered = np.any(iou(boxes, boxes[chosen]) > joint_mask_iou, axis=1)
    return np.logical_or(chosen, covered)


@shapes
def hide_regions(
    chosen: Bool[NDArray[np.bool_], "R"],
    zeroed: float,
    replaced: float,
    random: np.random.Generator,
) -> MaskedRegions:
    """Draw what becomes of the chosen regions [R]: zeros, another region's features, or nothing.

    `zeroed` and `replaced` are the shares of the first two.
    """
    draw, replacement = random.random((2, len(chosen)))
    return MaskedRegions(
        chosen=chosen,
        zeroed=chosen & (draw < zeroed),
        replaced=chosen & (draw >= zeroed) & (draw < zeroed + replaced),
        replacement=replacement,
    )


@shapes
def choose(count: int, rate: float, random: np.random.Generator) -> Bool[NDArray[np.bool_], "R"]:
    """Choose each of `count` things with chance `rate`, at least one where there is any."""
    drawn = random.random(max(count, 0))
    chosen = drawn < rate
    if len(drawn) and not chosen.any():
        # The smallest draw is the first that a growing rate would choose: uniform among all.
        chosen[drawn.argmin()] = rate > 0
    return chosen


@shapes
def iou(
    boxes: Float[NDArray[np.float32], "R 4"], others: Float[NDArray[np.float32], "S 4"]
) -> Float[NDArray[np.float32], "R S"]:
    """Return the intersection over union [R, S] of boxes [R, 4] and [S, 4], xyxy; 0 where empty."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = _area_of_sides(high - low)
    union = _area(boxes)[:, None] + _area(others)[None, :] - shared
    ratio: NDArray[np.float32] = np.divide(
        shared, union, out=np.zeros_like(shared), where=union > 0
    )
    return ratio


def _choose_words(
    inner: NDArray[np.int64],
    rate: float,
    vocabulary: MaskingVocabulary,
    random: np.random.Generator,
) -> NDArray[np.bool_]:
    """Choose words and return their pieces; a text that begins in mid-word begins a word."""
    begun: NDArray[np.int64] = np.cumsum(~vocabulary.continues[inner])
    word = begun - begun[:1]
    count = int(word[-1]) + 1 if len(word) else 0
    chosen: NDArray[np.bool_] = choose(count, rate, random)[word]
    return chosen


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return _area_of_sides(boxes[:, 2:] - boxes[:, :2])


def _area_of_sides(sides: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn sides [..., 2], 0 where negative, into areas [...]."""
    # By hand: np.prod over an axis of two takes longer, and this runs for every pair.
    area: NDArray[np.float32] = np.maximum(sides[..., 0], 0) * np.maximum(sides[..., 1], 0)
    return area
