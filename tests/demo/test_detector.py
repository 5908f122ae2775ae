"""The detector of the drawn world: how it is made, and what the shipped one sees."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from semvlp.demo.detector import train_demo_detector
from semvlp.demo.world.draw import ATTRIBUTE_LABELS, OBJECT_LABELS, draw, objects
from semvlp.demo.world.random_scenes import draw_lots
from semvlp.demo.world.scene import Kind
from semvlp.extract.detectors.zoo import load_detector
from semvlp.train.detector.average_precision import detections

SURE = 0.3


def test_a_training_gives_files_that_open_as_a_detector(tmp_path: Path) -> None:
    report = train_demo_detector(tmp_path, steps=1, seed=3, pictures=20)
    assert (report.steps, report.images) == (1, 20)
    assert report.scores.keys() >= {"AP50", "attribute_accuracy"}
    for name in ("demo_detector.json", "demo_detector.safetensors"):
        assert (tmp_path / name).is_file()
    described = json.loads((tmp_path / "demo_detector.json").read_text())
    assert tuple(described["object_labels"]) == OBJECT_LABELS
    assert tuple(described["attribute_labels"]) == ATTRIBUTE_LABELS
    boxes = json.loads((tmp_path / "pictures" / "train.json").read_text())
    assert len(boxes["images"]) == 20
    assert {image["width"] for image in boxes["images"]} == {224, 400}


def test_the_shipped_detector_knows_the_labels_of_the_world() -> None:
    detector = load_detector("demo", device="cpu")
    assert tuple(detector.object_labels) == OBJECT_LABELS
    assert tuple(detector.attribute_labels) == ATTRIBUTE_LABELS


@pytest.mark.parametrize(("kind", "found_at_least"), [("towers", 0.9), ("scatter", 0.75)])
def test_the_shipped_detector_sees_what_was_drawn(kind: Kind, found_at_least: float) -> None:
    detector = load_detector("demo", device="cpu")
    scenes = draw_lots(kind, {"test": 8}, seed="unseen by the training", seen=set())["test"]
    right = total = 0
    for scene in scenes:
        detected = detections(detector([np.asarray(draw(scene))])[0])
        sure = detected.scores > SURE
        boxes = torch.from_numpy(detected.boxes[sure])
        for thing in objects(scene):
            overlap, best = box_iou(torch.tensor([thing.box], dtype=torch.float), boxes).max(1)
            label = detector.object_labels[detected.labels[sure][best]]
            color = detector.attribute_labels[detected.attributes[sure][best]]
            right += bool(overlap > 0.5 and (label, color) == (thing.label, thing.attribute))
            total += 1
    assert right >= found_at_least * total
