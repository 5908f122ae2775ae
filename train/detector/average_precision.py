"""How good a detector is: COCO average precision of its boxes, accuracy of its attributes."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import batched_nms, box_iou

from semvlp.extract.detectors.detector import Detector, Proposals
from semvlp.train.detector.coco import AnnotatedImage, Annotations, read_pixels

# Test-time settings of Faster R-CNN in detectron2 (detectron2/config/defaults.py).
_SCORE, _NMS, _MOST = 0.05, 0.5, 100


class Detections(NamedTuple):
    """The boxes [N, 4] of one image, xyxy pixels, best first, none twice."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    attributes: NDArray[np.int64]
    """[N] the likeliest attribute; -1 where the detector has none."""


def score_detector(detector: Detector, annotations: Annotations) -> dict[str, float]:
    """Return AP, AP50 and AP75 in percent, and attribute accuracy where attributes are annotated.

    Attribute accuracy is taken over annotated objects that were detected (IoU 0.5 or more, any
    class): the share whose best box names one of their attributes.

    Raises:
        InputError: an image that cannot be decoded, or has another size than its annotations say.
    """
    detected = [detections(detector([read_pixels(image)])[0]) for image in annotations.images]
    scores = _average_precision(annotations, detected)
    hits = [
        hit
        for image, boxes in zip(annotations.images, detected, strict=True)
        for hit in _attribute_hits(image, boxes)
    ]
    if hits and detector.attribute_labels:
        scores["attribute_accuracy"] = 100 * sum(hits) / len(hits)
    return scores


def detections(proposals: Proposals) -> Detections:
    """Return the boxes of every class above a low score, after an NMS within each class."""
    scores = torch.from_numpy(proposals.object_scores[:, :-1])
    rows, labels = torch.where(scores > _SCORE)
    columns = labels if proposals.boxes.shape[1] > 1 else torch.zeros_like(labels)
    boxes, kept = torch.from_numpy(proposals.boxes)[rows, columns], scores[rows, labels]
    best = batched_nms(boxes, kept, labels, _NMS)[:_MOST]
    attributes = np.full(len(best), -1)
    if proposals.attribute_scores.shape[1]:
        attributes = proposals.attribute_scores[rows[best].numpy()].argmax(axis=1)
    return Detections(boxes[best].numpy(), labels[best].numpy(), kept[best].numpy(), attributes)


def _average_precision(
    annotations: Annotations, detected: Sequence[Detections]
) -> dict[str, float]:
    # pycocotools prints its progress on stdout, which is the user's.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _dataset(annotations)
        truth.createIndex()
        results = [
            (image_id, *_xywh(box), float(score), float(label + 1))
            for image_id, each in enumerate(detected, 1)
            for box, label, score in zip(each.boxes, each.labels, each.scores, strict=True)
        ]
        rows = np.array(results, dtype=np.float64).reshape(-1, 7)
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox") if len(rows) else None
        if evaluation is None:
            return {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: 100 * float(evaluation.stats[i]) for i, name in enumerate(("AP", "AP50", "AP75"))}


def _dataset(annotations: Annotations) -> dict[str, Any]:
    """Return `annotations` in pycocotools' form, with ids from 1 (it takes 0 for unmatched)."""
    boxes: list[dict[str, Any]] = []
    for image_id, image in enumerate(annotations.images, 1):
        for crowd, group in enumerate((image.objects, image.crowds)):
            for each in group:
                ids = {"id": len(boxes) + 1, "image_id": image_id, "category_id": each.label + 1}
                place = {"bbox": _xywh(each.box), "area": each.area}
                boxes.append({**ids, **place, "iscrowd": crowd})
    return {
        "images": [
            {"id": image_id, "width": image.width, "height": image.height}
            for image_id, image in enumerate(annotations.images, 1)
        ],
        "categories": [
            {"id": label, "name": name} for label, name in enumerate(annotations.object_labels, 1)
        ],
        "annotations": boxes,
    }


def _xywh(box: Sequence[float] | NDArray[np.float32]) -> list[float]:
    """Return x, y, width and height of a box that is xyxy."""
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]


def _attribute_hits(image: AnnotatedImage, detections: Detections) -> Iterator[bool]:
    """Tell of each detected object with attributes whether its best box names one of them."""
    objects = [each for each in image.objects if each.attributes]
    if not objects or not len(detections.boxes):
        return
    truth = torch.tensor([each.box for each in objects], dtype=torch.float32)
    overlaps, best = box_iou(truth, torch.from_numpy(detections.boxes)).max(dim=1)
    for each, overlap, index in zip(objects, overlaps, best, strict=True):
        if overlap >= 0.5:
            yield int(detections.attributes[index]) in (each.attributes or ())
