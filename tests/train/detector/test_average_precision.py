"""AP of detectors whose answers are known."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from semvlp.errors import InputError
from semvlp.extract.detectors.detector import Proposals
from semvlp.train.detector.average_precision import detections, score_detector
from semvlp.train.detector.coco import Annotations, read_annotations


class Oracle:
    """A detector that finds exactly what is annotated."""

    object_labels, attribute_labels, feature_size = ("square", "circle"), ("red", "blue"), 1
    profile: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, data: Annotations, *, shift: float = 0.0) -> None:
        self.images, self.shift = iter(data.images), shift

    def __call__(self, images: Any) -> list[Proposals]:
        image = next(self.images)
        objects = (*image.objects, *image.crowds)
        boxes = np.array([each.box for each in objects], np.float32) + np.float32(self.shift)
        return [
            Proposals(
                width=64,
                height=48,
                proposals=boxes,
                boxes=np.repeat(boxes[:, None], 2, axis=1),
                object_scores=np.eye(3, dtype=np.float32)[[each.label for each in objects]],
                attribute_scores=np.eye(2, dtype=np.float32)[
                    [each.attributes[0] for each in objects if each.attributes]
                ],
                features=np.zeros((len(boxes), 1), np.float32),
            )
        ]


def test_a_perfect_detector_scores_100(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = read_annotations(drawn / "boxes.json", drawn)
    scores = score_detector(Oracle(data), data)
    assert scores == pytest.approx({"AP": 100, "AP50": 100, "AP75": 100, "attribute_accuracy": 100})
    # IoU of 18 pixels shifted by 2 along both axes: 256 / 392.
    shifted = score_detector(Oracle(data, shift=2), data)
    assert shifted["AP50"] == pytest.approx(100)
    assert shifted["AP75"] == 0
    # pycocotools prints; stdout is the user's.
    assert capsys.readouterr().out == ""


def test_a_blind_detector_scores_0(drawn: Path) -> None:
    data = read_annotations(drawn / "boxes.json", drawn)
    assert score_detector(Oracle(data, shift=1000), data)["AP50"] == 0


def test_detections_on_crowds_are_neither_right_nor_wrong(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores are those of pycocotools on the file as it is, areas and crowds and all."""
    tree = json.loads((drawn / "boxes.json").read_text())
    for number, entry in enumerate(tree["annotations"]):
        entry.update(iscrowd=int(number % 3 == 0), area=2000.0 if number % 2 else 9.0)
    (tmp_path / "boxes.json").write_text(json.dumps(tree))
    data = read_annotations(tmp_path / "boxes.json", drawn)
    scores = score_detector(Oracle(data), data)
    assert scores["AP50"] == pytest.approx(100)

    official = COCO(str(tmp_path / "boxes.json"))
    answers = [
        [entry["image_id"], *entry["bbox"], 1.0, entry["category_id"]]
        for entry in tree["annotations"]
    ]
    evaluation = COCOeval(official, official.loadRes(np.array(answers)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert scores["AP"] == pytest.approx(100 * evaluation.stats[0])


def test_an_image_of_another_size_than_its_boxes_is_not_scored(drawn: Path) -> None:
    data = read_annotations(drawn / "boxes.json", drawn)
    wider = replace(data, images=(replace(data.images[0], width=65), *data.images[1:]))
    with pytest.raises(InputError, match=r"0\.png: must have the 65x48 pixels .* found 64x48"):
        score_detector(Oracle(wider), wider)


def test_detections_drop_doubles_within_a_class_and_low_scores() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40]], np.float32)
    scores = np.array([[0.9, 0.1, 0], [0.8, 0.04, 0.16], [0.02, 0.03, 0.95]], np.float32)
    found = detections(
        Proposals(
            width=64,
            height=48,
            proposals=boxes,
            boxes=boxes[:, None],
            object_scores=scores,
            attribute_scores=np.zeros((3, 0), np.float32),
            features=np.zeros((3, 1), np.float32),
        )
    )
    assert found.labels.tolist() == [0, 1]
    assert found.boxes[:, 0].tolist() == [0, 0]
    assert found.attributes.tolist() == [-1, -1]
