"""The protocol of a detector: images in, proposals out.

P proposals, C object classes, A attributes, F feature size. Boxes are xyxy in pixels of the image
as it was given; scores are probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from semvlp.extract.images.resize import Resized

Runner = Literal["detectron2", "torchvision", "transformers"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Proposals:
    """Everything a detector knows of one image before regions are selected."""

    width: int
    height: int
    proposals: NDArray[np.float32]
    """[P, 4] boxes of the region proposal network."""
    boxes: NDArray[np.float32]
    """[P, C, 4] boxes regressed for each class and clipped; [P, 1, 4] where classes share one."""
    object_scores: NDArray[np.float32]
    """[P, C + 1] class probabilities, background last."""
    attribute_scores: NDArray[np.float32]
    """[P, A] attribute probabilities without "none"; A is 0 where there is no attribute head."""
    features: NDArray[np.float32]
    """[P, F] region features."""
    given_classes: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """[K] object classes of the first K rows, which are boxes given with the image, in their order;
    UNKNOWN_CLASS where the most probable one counts."""

    def class_boxes(
        self, rows: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the boxes [R, 4] regressed for the class [R] of the proposals at `rows` [R]."""
        shared = self.boxes.shape[1] == 1
        boxes: NDArray[np.float32] = self.boxes[rows, 0 if shared else labels]
        return boxes


class Detector(Protocol):
    """A network ready to run."""

    object_labels: tuple[str, ...]
    attribute_labels: tuple[str, ...]
    feature_size: int
    profile: dict[str, Any]
    """Everything that shapes the numbers, as plain JSON values: the source of the profile hash."""
    describes_boxes: bool
    """Boxes given with an image are described, see `Resized.given`."""
    images_per_pass: int
    """Most images of equal prepared shape that a pass may hold; by rounding, each depends on all
    of its pass."""

    def prepare(self, image: NDArray[np.uint8]) -> Resized:
        """Do the work on an RGB image [H, W, 3] that needs no network; any thread may call it."""

    def detect(self, images: Sequence[Resized]) -> list[Proposals]:
        """Detect in one pass over prepared images of equal shape."""

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Proposals]:
        """Detect in RGB images [H, W, 3] of any sizes, each as if it were alone."""


@runtime_checkable
class OpenVocabulary(Protocol):
    """A detector that is told in words what to find."""

    def look_for(self, labels: tuple[str, ...]) -> None:
        """Make `labels` the object classes, of which there are none before."""
