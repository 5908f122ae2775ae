"""Selection: which of a detector's proposals become the regions of an image. Pure.

P proposals, C object classes, A attributes, F feature size, R regions. Boxes are xyxy in pixels.
Suppression is torchvision's: a box is dropped when its IoU with a better one is over (>) the
threshold, widths are x2 - x1. The original Caffe code drops at >= and counts x2 - x1 + 1.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torchvision.ops import nms

from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors.detector import Proposals
from semvlp.shapes import shapes
from semvlp.shards.record import MAX_REGIONS, NO_ATTRIBUTE, Regions

Boxes = NDArray[np.float32]
Scores = NDArray[np.float32]
Indices = NDArray[np.int64]

_EACH_CLASS_FROM = 1e-4
# The rule is part of the profile, a hash of these names too: what version 0.1 extracted would be of
# another profile under new ones, and could not be gone on with. So they stay in what is stored.
_ON_DISK = {
    "nms_ious": "ious",
    "min_score_below_min_regions": "floor",
    "stored_class": "label",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A selection rule and its limits.

    Every rule orders the proposals, takes those of at least `confidence`, and then at least
    `min_regions` (all, where there are fewer proposals; see `min_score_below_min_regions`) and at
    most `max_regions` of the order.
    """

    suppress: Literal["per class", "once"] = "per class"
    """NMS for each object class on its own, or one NMS on the best class of each proposal."""
    boxes: Literal["proposals", "regressed"] = "proposals"
    """Boxes whose overlap counts."""
    nms_ious: tuple[float, ...] = (0.3,)
    """NMS thresholds, tried in turn until `min_regions` survive."""
    confidence: float = 0.2
    """A proposal counts when a class in which it survives has this probability."""
    min_score_below_min_regions: float | None = None
    """Score that proposals under `confidence` must exceed to fill up to `min_regions`; a suppressed
    proposal scores 0. None takes any, suppressed ones too."""
    stored_class: Literal["best", "survivor"] = "best"
    """Object class that is stored: the most probable, or the most probable it survives in,
    whose probability is what the regions are chosen by (0 where a region survives in none)."""
    min_regions: int
    max_regions: int

    def stored(self) -> dict[str, Any]:
        """Return the rule as plans and manifests hold it."""
        return {_ON_DISK.get(name, name): value for name, value in asdict(self).items()}


PRESETS: dict[str, Preset] = {
    # peteanderson80/bottom-up-attention tools/generate_tsv.py, "fixed" and "adaptive"
    "butd_36": Preset(min_regions=36, max_regions=36),
    "butd_10_100": Preset(min_regions=10, max_regions=100),
    # airsplay/py-bottom-up-attention demo/detectron2_mscoco_proposal_maxnms.py; with 1.0, which
    # suppresses nothing, appended: the original returns fewer regions, or those of another image
    "maxnms_36": Preset(
        suppress="once",
        boxes="regressed",
        nms_ious=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        confidence=0.0,
        min_regions=36,
        max_regions=36,
    ),
    # microsoft/scene_graph_benchmark maskrcnn_benchmark/modeling/roi_heads/box_head/inference.py,
    # filter_results_peter and filter_results_fast, with IGNORE_BOX_REGRESSION as published. Where
    # fewer than 10 survive, the first goes on to a rule that cannot give features; ours ends there
    "vinvl_nms1": Preset(
        stored_class="survivor",
        min_score_below_min_regions=0.0,
        min_regions=10,
        max_regions=100,
    ),
    "vinvl_nms2": Preset(
        suppress="once",
        nms_ious=(0.5,),
        min_score_below_min_regions=0.01 * 0.2,
        min_regions=10,
        max_regions=100,
    ),
    # ChenRocks/BUTD-UNITER-NLVR2 tools/generate_npz.py: store 100 with the confidence they are
    # chosen by, threshold later (extract/views.py)
    "top_100": Preset(stored_class="survivor", min_regions=100, max_regions=100),
}
DEFAULT = Preset(min_regions=36, max_regions=100)
"""Without a preset: the rule of bottom-up attention, with the limits of the caller."""


def resolve(
    preset: str | None, min_regions: int | None = None, max_regions: int | None = None
) -> Preset:
    """Return the rule of a preset (None: `DEFAULT`), with the given limits instead of its own.

    Raises:
        ConfigError: an unknown preset, or limits that are not 1 <= min <= max <= 100.
    """
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    rule = DEFAULT if preset is None else PRESETS[preset]
    low = rule.min_regions if min_regions is None else min_regions
    high = rule.max_regions if max_regions is None else max_regions
    if not 1 <= low <= high <= MAX_REGIONS:
        raise ConfigError(
            f"regions must satisfy 1 <= min <= max <= {MAX_REGIONS}, got min {low} and max {high}"
        )
    return replace(rule, min_regions=low, max_regions=high)


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

    Raises:
        ConfigError: see `resolve`.
        InputError: no proposals, or scores or features that float16 cannot hold.
    """
    rule = resolve(preset, min_regions, max_regions)
    if not len(proposals.proposals):
        raise InputError(f"image {image_id}: the detector proposed no region")
    if not np.isfinite(proposals.object_scores).all():
        raise InputError(f"image {image_id}: an object score is not a finite number")
    rows, labels, confidence = _choose(proposals, rule)
    order = np.argsort(-confidence, kind="stable")
    rows, labels, confidence = rows[order], labels[order], confidence[order]
    return _regions(proposals, rows, labels, confidence, image_id, profile)


@shapes
def clamped(confident: Bool[NDArray[np.bool_], "P"], rule: Preset) -> int:
    """Return how many regions a rule takes of proposals of which `confident` [P] are sure."""
    return min(max(int(confident.sum()), rule.min_regions), rule.max_regions)


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
            boxes = _class_boxes(proposals, np.arange(len(best)), best)
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
    kept: Indices = nms(
        torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores, dtype=torch.float32), iou
    ).numpy()
    return kept


def _class_boxes(proposals: Proposals, rows: Indices, labels: Indices) -> Boxes:
    """Return the boxes [R, 4] regressed for the class [R] of the proposals at `rows` [R]."""
    shared = proposals.boxes.shape[1] == 1
    boxes: Boxes = proposals.boxes[rows, 0 if shared else labels]
    return boxes


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
    return Regions(
        image_id=image_id,
        width=proposals.width,
        height=proposals.height,
        boxes=_class_boxes(proposals, rows, labels).astype(np.float32),
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
