"""Proposals to select from, and a literal suppression to select by."""

import numpy as np
from numpy.typing import NDArray

from semvlp.extract.detectors.detector import Proposals
from semvlp.extract.select import select
from semvlp.shards.record import Regions

CLASSES = 1600


def make(
    scores: NDArray[np.float32],
    proposals: NDArray[np.float32],
    *,
    boxes: NDArray[np.float32] | None = None,
    attributes: int = 5,
) -> Proposals:
    """Proposals whose only feature is the row they stand in; background fills up to 1."""
    count = len(scores)
    rng = np.random.default_rng(count)
    background = 1 - scores.sum(1, keepdims=True)
    return Proposals(
        width=1000,
        height=600,
        proposals=proposals,
        boxes=proposals[:, None] + 1 if boxes is None else boxes,
        object_scores=np.concatenate([scores, background], axis=1).astype(np.float32),
        attribute_scores=rng.random((count, attributes)).astype(np.float32),
        features=np.arange(count, dtype=np.float32)[:, None],
    )


def random_proposals(
    seed: int, count: int, classes: int = CLASSES, sharpness: float = 8.0
) -> Proposals:
    """Clusters of overlapping boxes; few probabilities are large, as in a trained network."""
    rng = np.random.default_rng(seed)
    clusters = rng.uniform(100, 500, (max(count // 6, 1), 2))
    centres = clusters[rng.integers(len(clusters), size=count)] + rng.normal(0, 12, (count, 2))
    half = rng.uniform(20, 90, (count, 2))
    boxes = np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)
    logits = rng.gumbel(size=(count, classes + 1)) * sharpness / 4
    logits[:, rng.integers(classes, size=20)] += rng.uniform(0, sharpness, 20)
    exp = np.exp(logits - logits.max(1, keepdims=True))
    scores = (exp / exp.sum(1, keepdims=True)).astype(np.float32)
    return make(scores[:, :-1], boxes)


def slow_nms(boxes: NDArray[np.float32], scores: NDArray[np.float32], iou: float) -> list[int]:
    """Greedy suppression, box by box, in float32; equal scores in given order."""
    order = list(np.argsort(-scores, kind="stable"))
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while order:
        best, *rest = order
        kept.append(int(best))
        corner = np.maximum(boxes[best, :2], boxes[rest, :2])
        size = np.maximum(np.minimum(boxes[best, 2:], boxes[rest, 2:]) - corner, np.float32(0))
        inter = size[:, 0] * size[:, 1]
        ratio = inter / (area[best] + area[rest] - inter)
        order = [row for row, value in zip(rest, ratio.tolist(), strict=True) if not value > iou]
    return kept


def chosen(regions: Regions) -> list[int]:
    """The rows of the proposals that were taken."""
    return [int(row) for row in regions.features[:, 0]]


def pick(
    found: Proposals, preset: str | None = None, low: int | None = None, high: int | None = None
):
    return select(
        found, image_id="x", preset=preset, min_regions=low, max_regions=high, profile="p"
    )
