"""A detector without a network: fast, and it fails where it is told to."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp.extract.detectors.detector import Proposals
from semvlp.extract.images.resize import Resized, ResizeRule, resize

CLASSES, ATTRIBUTES, FEATURES, PROPOSALS = 6, 4, 8, 45


class FakeDetector:
    """Proposals drawn from the pixels alone; `fail` may raise for the number in the first pixel."""

    object_labels = tuple(f"object {index}" for index in range(CLASSES))
    attribute_labels = tuple(f"attribute {index}" for index in range(ATTRIBUTES))
    feature_size = FEATURES
    images_per_pass = 1
    describes_boxes = True

    def __init__(self, fail: Callable[[int], None] = lambda number: None) -> None:
        self.profile: dict[str, Any] = {"detector": "fake"}
        self.fail = fail
        self.batches: list[int] = []

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Proposals]:
        return [found for image in images for found in self.detect([self.prepare(image)])]

    def prepare(self, image: NDArray[np.uint8]) -> Resized:
        return resize(image, ResizeRule(0, 0))

    def detect(self, images: Sequence[Resized]) -> list[Proposals]:
        assert len({image.pixels.shape for image in images}) == 1
        self.batches.append(len(images))
        for image in images:
            self.fail(int(image.pixels[0, 0, 0]))
        return [self.propose(image.pixels) for image in images]

    def propose(self, image: NDArray[np.uint8]) -> Proposals:
        rng = np.random.default_rng(int(image.sum()))
        height, width, _ = image.shape
        corners = np.sort(rng.uniform(0, 1, (PROPOSALS, 2, 2)), axis=1).reshape(PROPOSALS, 4)
        boxes = (corners * [width, height, width, height]).astype(np.float32)
        scores = rng.dirichlet(np.full(CLASSES + 1, 0.3), PROPOSALS).astype(np.float32)
        return Proposals(
            width=width,
            height=height,
            proposals=boxes,
            boxes=boxes[:, None] + np.zeros((1, CLASSES, 1), np.float32),
            object_scores=scores,
            attribute_scores=rng.dirichlet(np.ones(ATTRIBUTES), PROPOSALS).astype(np.float32),
            features=rng.random((PROPOSALS, FEATURES)).astype(np.float32),
        )


class Rounding(FakeDetector):
    """What rounding does to a batched convolution, at its worst: all of a pass is in each image."""

    images_per_pass = 3

    def detect(self, images: Sequence[Resized]) -> list[Proposals]:
        found = super().detect(images)
        mark = zlib.crc32(b"".join(image.pixels.tobytes() for image in images)) % 1000
        for each in found:
            each.features[:, 0] = mark
        return found


def stop_at(number: int, error: BaseException) -> Callable[[int], None]:
    """Raises for the image of this number."""

    def fail(found: int) -> None:
        if found == number:
            raise error

    return fail
