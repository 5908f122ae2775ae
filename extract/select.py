"""Selection: which of a detector's proposals become the regions of an image. Pure.

P proposals, C object classes, A attributes, F feature size, R regions. Boxes are xyxy in pixels.
Suppression is torchvision's: a box is dropped when its IoU with a better one is over (>) the
threshold, widths are x2 - x1. The original Caffe code drops at >= and counts x2 - x1 + 1.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from semvlp.errors import InputError
from semvlp.extract.detectors.detector import Proposals
from semvlp.extract.images.given import UNKNOWN_CLASS
from semvlp.extract.presets import Preset, clamped, resolve
from semvlp.shards.record import MAX_REGIONS, NO_ATTRIBUTE, Regions

Boxes = NDArray[np.float32]
Scores = NDArray[np.float32]
Indices = NDArray[np.int64]

_EACH_CLASS_FROM = 1e-4


def select(
    proposals: Proposals,
    *,
    image_id: str,
    preset: str | None = None,
    min_regions: int | None = None,
    max_regions: int | None = None,
    profile: str,
) -> Regions:
    """Return the regions [R, ...] of one image, highest `object_conf` first, ties in given order.

    `boxes` are the ones regressed for the stored class, `proposals` the ones before regression.
    Boxes given with the image come first, all of them, as and in the order they were given; the
    rule chooses among the proposals behind them, as many as there is room for.

    Raises:
        ConfigError: see `resolve`.
        InputError: no proposals, or scores or features that float16 cannot hold.
    """
    rule = resolve(preset, min_regions, max_regions)
    if not len(proposals.proposals):
        raise InputError(f"image {image_id}: the detector proposed no region")
    if not np.isfinite(proposals.object_scores).all():
        raise InputError(f"image {image_id}: an object score is not a finite number")
    count = len(proposals.given_classes)
    parts = [_given(proposals)] if count else []
    room = min(rule.max_regions, MAX_REGIONS - count)
    if len(proposals.proposals) > count and room:
        low = min(rule.min_regions, room)
        rows, labels, confidence = _choose(
            _after(count, proposals), replace(rule, min_regions=low, max_regions=room)
        )
        order = np.argsort(-confidence, kind="stable")
        parts.append((rows[order] + count, labels[order], confidence[order]))
    rows, labels, confidence = (np.concatenate(values) for values in zip(*parts, strict=True))
    return _regions(proposals, rows, labels, confidence, image_id, profile)


def _given(proposals: Proposals) -> tuple[Indices, Indices, Scores]:
    """Return the rows [K] of the boxes given with the image, with their classes and scores."""
    rows = np.arange(len(proposals.given_classes))
    scores = proposals.object_scores[rows, :-1]
    known = proposals.given_classes != UNKNOWN_CLASS
    labels = np.where(known, proposals.given_classes, scores.argmax(1))
    return rows, labels, scores[rows, labels]


def _after(count: int, proposals: Proposals) -> Proposals:
    """Return the proposals without the first `count` rows."""
    arrays = ("proposals", "boxes", "object_scores", "attribute_scores", "features")
    rest = {name: getattr(proposals, name)[count:] for name in arrays}
    return replace(proposals, **rest, given_classes=proposals.given_classes[:0])


def _choose(proposals: Proposals, rule: Preset) -> tuple[Indices, Indices, Scores]:
    """Return the rows [R] of the proposals taken, in given order, with their classes and scores."""
    scores = proposals.object_scores[:, :-1]
    best = scores.argmax(1)
    if rule.suppress == "per class":
        reached, labels = _reached_per_class(proposals.proposals, scores, rule)
        labels = np.where(reached > 0, labels, best) if rule.stored_class == "survivor" else best
    else:
        boxes = proposals.proposals
        if rule.boxes == "regressed":
            boxes = proposals.class_boxes(np.arange(len(best)), best)
        reached, labels = _reached_once(boxes, scores.max(1), rule), best
    count = clamped((reached > 0) & (reached >= rule.confidence), rule)
    if rule.min_score_below_min_regions is not None:
        count = min(count, int((reached > rule.min_score_below_min_regions).sum()))
    rows = np.sort(np.argsort(-reached, kind="stable")[:count])
    confidence = scores[rows, labels[rows]]
    if rule.stored_class == "survivor":
        confidence = np.where(reached[rows] > 0, confidence, np.float32(0))
    return rows, labels[rows], confidence


def _reached_per_class(boxes: Boxes, scores: Scores, rule: Preset) -> tuple[Scores, Indices]:
    """Return the best probability [P] of a class in which a proposal survives, and that class [P].

    Exact where it is at least the threshold reached, else 0. Only pairs (proposal, class) of at
    least the threshold can reach it or be suppressed by one that does, so few classes need an NMS;
    the threshold falls until `min_regions` reach it.
    """
    enough = min(rule.min_regions, len(boxes))
    threshold = rule.confidence
    while True:
        kept = _surviving(boxes, scores, threshold, rule.nms_ious[0])
        if threshold == 0 or (kept.max(1) >= threshold).sum() >= enough:
            return kept.max(1), kept.argmax(1)
        threshold = threshold / 4 if threshold > _EACH_CLASS_FROM else 0.0


def _surviving(boxes: Boxes, scores: Scores, threshold: float, iou: float) -> Scores:
    """Return `scores` [P, C], 0 where under `threshold` or suppressed within their class."""
    kept = np.where(scores >= threshold, scores, np.float32(0))
    for label in np.flatnonzero((kept > 0).sum(0) > 1):
        rows = np.flatnonzero(kept[:, label])
        dropped = np.delete(rows, _nms(boxes[rows], kept[rows, label], iou))
        kept[dropped, label] = 0
    return kept


def _reached_once(boxes: Boxes, scores: Scores, rule: Preset) -> Scores:
    """Return `scores` [P], 0 where suppressed, at the first threshold that leaves `min_regions`."""
    enough = min(rule.min_regions, len(boxes))
    for iou in rule.nms_ious:
        kept = _nms(boxes, scores, iou)
        if len(kept) >= enough:
            break
    reached = np.zeros_like(scores)
    reached[kept] = scores[kept]
    return reached


def _nms(boxes: Boxes, scores: Scores, iou: float) -> Indices:
    """Return the rows that survive, best first, ties in given order; in float32 whatever comes."""
    # It brings torch's compiler along, which whoever asks about regions does not wait for.
    from torchvision.ops import nms

    kept: Indices = nms(
        torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores, dtype=torch.float32), iou
    ).numpy()
    return kept


def _regions(
    proposals: Proposals,
    rows: Indices,
    labels: Indices,
    confidence: Scores,
    image_id: str,
    profile: str,
) -> Regions:
    features = proposals.features[rows]
    limit = np.finfo(np.float16).max
    if features.size and not np.abs(features).max() <= limit:
        raise InputError(f"image {image_id}: a feature is not a number of at most {limit:g}")
    attributes, attribute_conf = _attributes(proposals.attribute_scores[rows])
    boxes = proposals.class_boxes(rows, labels).astype(np.float32)
    count = len(proposals.given_classes)
    boxes[:count] = proposals.proposals[:count]
    return Regions(
        image_id=image_id,
        width=proposals.width,
        height=proposals.height,
        boxes=boxes,
        proposals=proposals.proposals[rows].astype(np.float32),
        features=features.astype(np.float16),
        object_ids=labels.astype(np.int16),
        object_conf=confidence.astype(np.float16),
        attribute_ids=attributes,
        attribute_conf=attribute_conf,
        profile=profile,
    )


def _attributes(scores: Scores) -> tuple[NDArray[np.int16], NDArray[np.float16]]:
    """Return the most probable attribute [R] of scores [R, A] and its probability [R]."""
    if not scores.shape[1]:
        none = np.full(len(scores), NO_ATTRIBUTE, np.int16)
        return none, np.zeros(len(scores), np.float16)
    return scores.argmax(1).astype(np.int16), scores.max(1).astype(np.float16)
