"""Around a network: boxes brought back to the image, bit by bit, and work that needs no network."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from semvlp.extract.detectors.batched import BatchedDetector, GivenRegions, RawDetections
from semvlp.extract.detectors.detector import Proposals
from semvlp.extract.images.resize import Pixels, Resized, ResizeRule
from semvlp.extract.pipeline import ExtractSettings, extract
from tests.extract.fake_detector import FakeDetector

ATTRIBUTES, FEATURES = 3, 5


class Corners(BatchedDetector):
    """Finds boxes that are drawn from a seed, some of them over the border."""

    def __init__(self, rule: ResizeRule, count: int, classes: int) -> None:
        super().__init__(rule, images_per_pass=2)
        rng = np.random.default_rng(count)
        self.proposals = rng.uniform(0, 90, (count, 4)).astype(np.float32)
        self.boxes = rng.uniform(0, 90, (count, classes, 4)).astype(np.float32)

    @torch.inference_mode()
    def _forward(
        self, pixels: Pixels, scales: list[float], given: Sequence[GivenRegions | None]
    ) -> list[RawDetections]:
        count = len(self.proposals)
        found = RawDetections(
            proposals=torch.tensor(self.proposals),
            boxes=torch.tensor(self.boxes),
            object_scores=torch.full((count, 3), 1 / 3),
            attribute_scores=torch.zeros(count, ATTRIBUTES),
            features=torch.zeros(count, FEATURES),
        )
        return [found] * len(pixels)


def straight(boxes: NDArray[np.float32], image: Resized) -> NDArray[np.float32]:
    """One product and one bound a number."""
    height, width = image.size
    factor = np.array([*image.back, *image.back], dtype=np.float32)
    limit = np.array([width, height, width, height], dtype=np.float32)
    return np.minimum(boxes * factor, limit)


@pytest.mark.parametrize("count", [0, 1, 40])
@pytest.mark.parametrize("classes", [1, 7])
@pytest.mark.parametrize("method", ["pillow", "cv2"])
def test_boxes_are_brought_back_to_the_same_bits_as_by_the_formula(
    count: int, classes: int, method: str
) -> None:
    image = np.zeros((37, 53, 3), np.uint8)
    detector = Corners(ResizeRule(61, 90, method), count, classes)  # type: ignore[arg-type]
    prepared = detector.prepare(image)
    for found in detector([image, image, image]):
        assert (found.width, found.height) == (53, 37)
        np.testing.assert_array_equal(found.proposals, straight(detector.proposals, prepared))
        np.testing.assert_array_equal(found.boxes, straight(detector.boxes, prepared))
        assert found.boxes.dtype == np.float32
        assert found.boxes.shape == (count, classes, 4)


def test_images_are_resized_and_regions_selected_beside_the_network(tmp_path: Path) -> None:
    """Neither in the thread that detects nor in the one that writes."""
    threads: dict[str, set[str]] = {"prepare": set(), "detect": set()}

    class Watching(FakeDetector):
        def prepare(self, image: NDArray[np.uint8]) -> Resized:
            threads["prepare"].add(threading.current_thread().name)
            return super().prepare(image)

        def detect(self, images: Sequence[Resized]) -> list[Proposals]:
            threads["detect"].add(threading.current_thread().name)
            return super().detect(images)

    (tmp_path / "images").mkdir()
    for number in range(6):
        Image.new("RGB", (16, 12), (number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    settings = ExtractSettings(workers=2)
    extract(tmp_path / "images", tmp_path / "out", settings, detector=Watching())
    assert threads["prepare"] <= {"prepare_0", "prepare_1"}
    assert threads["detect"] == {"prefetch"}
