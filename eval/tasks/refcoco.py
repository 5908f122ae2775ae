"""RefCOCO, RefCOCO+ and RefCOCOg: which region of a photograph an expression speaks of.

N examples, R regions of an image. Boxes of regions are xyxy, those of files and answers
x, y, width, height, all in pixels of the original image.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError
from semvlp.eval import metrics
from semvlp.eval.credits import Credits
from semvlp.eval.files.forms import BoxFile
from semvlp.eval.files.submission import checked, unique
from semvlp.eval.task import (
    Answer,
    Box,
    Example,
    ExampleId,
    Head,
    Loss,
    Reach,
    Referent,
    RegionsOf,
    Scores,
    Submission,
)
from semvlp.eval.tasks.base import BaseTask
from semvlp.eval.tasks.refcoco_files import REFERRED, instances_beside, read_expressions

if TYPE_CHECKING:
    from semvlp.model.packing import PairRegions

# A box is right from this IoU on (ashkamath/mdetr datasets/refexp.py), and a region of training is
# what the expression speaks of (VL-BERT takes IoU > 0.5 likewise, UNITER the annotated box alone).
MIN_IOU = 0.5
DIGITS = 3
"""Of coordinates in the leaderboard file: thousandths of a pixel."""


class RefCoco(BaseTask):
    """Share of expressions whose box has an IoU of at least 0.5 with the annotated one."""

    name = "refcoco"
    head: Head = "region"
    loss: Loss = "cross_entropy"
    metric = "accuracy"
    fixed_labels = (REFERRED,)
    form = BoxFile()

    def read_beside(self, paths: Sequence[Path]) -> list[Path]:
        """Return the `instances.json` beside pickled references where none is given."""
        return instances_beside(paths)

    def read(self, paths: Sequence[Path], *, split: str = "train") -> list[Example]:
        """Read an example an expression, see `refcoco_files.read_expressions`."""
        return unique(read_expressions(paths, split), paths)

    def baseline_examples(self, paths: Sequence[Path]) -> list[Example]:
        """Return none: what needs no text, the first and the largest region, is in the scores."""
        return []

    def targets(
        self, example: Example, index_of: Mapping[str, int], images: "Sequence[PairRegions]"
    ) -> list[float]:
        """Return 1 for each region that fits the annotated box, else 0."""
        (_, boxes, _, _) = images[0]
        return [float(fit >= MIN_IOU) for fit in iou(boxes, example.meta["box"])]

    def answers(
        self,
        examples: Sequence[Example],
        labels: Sequence[str],
        scores: Scores,
        regions: RegionsOf,
    ) -> dict[ExampleId, Answer]:
        """Return the box of the most probable region; of an image without any, the whole image."""
        answers: dict[ExampleId, Answer] = {}
        for example, row in zip(examples, scores, strict=True):
            ((_, boxes, width, height),) = regions(example.images)
            best = boxes[row[: len(boxes)].argmax()] if len(boxes) else (0, 0, width, height)
            reach = _reach(boxes, example.meta["box"])
            answers[example.example_id] = Referent(example.meta["ref_id"], _xywh(best), reach)
        return answers

    def write(self, answers: Mapping[ExampleId, Answer], path: Path) -> Submission:
        """Write the boxes alone."""
        bare = {
            key: Referent(*a[:2]) if isinstance(a, Referent) else a for key, a in answers.items()
        }
        return super().write(bare, path)

    def example_score(self, example: Example, answer: Answer) -> float:
        """Return 1 where the box is right, else 0."""
        if not isinstance(answer, Referent):
            return 0.0
        return float(overlap(answer.box, example.meta["box"]) >= MIN_IOU)

    def credits(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, Credits]:
        """Return those of `accuracy`, and where the regions are known of what other choices reach.

        They are `upper_bound` (always the best one), `first_region` and `largest_region`.
        """
        values = self._values(examples, answers)
        return {name: metrics.of_examples(examples, own) for name, own in values.items()}

    def warnings(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> list[str]:
        """Tell boxes that were written with their far corner in place of width and height."""
        corners = {
            key: answer._replace(box=_xywh(answer.box))
            for key, answer in answers.items()
            if isinstance(answer, Referent)
        }
        as_written = metrics.percent(self._values(examples, answers)["accuracy"])
        as_corners = metrics.percent(self._values(examples, corners)["accuracy"])
        if as_corners <= as_written:
            return []
        return [
            f"accuracy is {as_written:.2f}, but {as_corners:.2f} if the boxes are read as x0, y0, "
            "x1, y1; they must be x, y, width, height"
        ]

    def _values(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, list[float]]:
        """Return 1 or 0 for each example, by the name of the score that is their mean."""
        given = checked(self.ids(examples), answers, Referent)
        for example, answer in zip(examples, given, strict=True):
            if answer.ref_id != example.meta["ref_id"]:
                raise InputError(
                    f"the answer to sent_id {example.example_id} must have the ref_id "
                    f"{example.meta['ref_id']}, got {answer.ref_id}; is it for another data set?"
                )
        pairs = zip(examples, given, strict=True)
        values = {"accuracy": [self.example_score(example, answer) for example, answer in pairs]}
        reaches = [answer.reach for answer in given if answer.reach is not None]
        if len(reaches) < len(given):
            return values
        names = {"upper_bound": "best", "first_region": "first", "largest_region": "largest"}
        return values | {
            name: [float(getattr(reach, which) >= MIN_IOU) for reach in reaches]
            for name, which in names.items()
        }


def iou(boxes: NDArray[np.floating[Any]], box: Box) -> NDArray[np.float64]:
    """Return the intersection over union, [R] 0..1, of boxes [R, 4] xyxy with one xywh."""
    x, y, width, height = box
    left, top, right, bottom = np.asarray(boxes, np.float64).reshape(-1, 4).T
    across = (np.minimum(right, x + width) - np.maximum(left, x)).clip(min=0)
    down = (np.minimum(bottom, y + height) - np.maximum(top, y)).clip(min=0)
    shared = across * down
    union = (right - left) * (bottom - top) + width * height - shared
    overlaps: NDArray[np.float64] = shared / union
    return overlaps


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union, 0..1, of two boxes xywh."""
    x, y, width, height = one
    return float(iou(np.array([[x, y, x + width, y + height]]), other)[0])


def _reach(boxes: NDArray[np.floating[Any]], box: Box) -> Reach:
    """Return how well regions [R, 4] xyxy fit a box; not at all where there are none."""
    if not len(boxes):
        return Reach(0.0, 0.0, 0.0)
    fits = iou(boxes, box)
    left, top, right, bottom = np.asarray(boxes).T
    largest = ((right - left) * (bottom - top)).argmax()
    return Reach(float(fits.max()), float(fits[0]), float(fits[largest]))


def _xywh(box: Sequence[float]) -> Box:
    left, top, right, bottom = (round(float(value), DIGITS) for value in box)
    return left, top, round(right - left, DIGITS), round(bottom - top, DIGITS)
