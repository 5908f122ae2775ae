"""Passes of a network over images: what every backend does around its own network.

P proposals, C object classes, A attributes, F feature size, H x W an image as it was given,
h x w the same image resized.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semvlp.extract.batching import passes
from semvlp.extract.detectors.detector import Proposals
from semvlp.extract.images.resize import Pixels, Resized, ResizeRule, resize
from semvlp.names import Precision

# Images of one pass on a GPU. On a CPU a pass of several is no faster, and one at a time makes an
# image's numbers the same to the last bit whatever its neighbours are.
_IMAGES_PER_PASS = {"cpu": 1}
_ON_A_GPU = 8
# Regions whose 14 x 14 x 2048 maps are in memory at once: 0.5 GB in fp32.
REGIONS_AT_ONCE = 300


class Execution(NamedTuple):
    """The device and the precision with which a network runs."""

    device: str = "cpu"
    precision: Precision = "fp32"
    """Precision of the convolutions; boxes and probabilities are always fp32."""

    @property
    def images_per_pass(self) -> int:
        """Return how many images of equal shape go through the network at once."""
        return _IMAGES_PER_PASS.get(torch.device(self.device).type, _ON_A_GPU)

    def convolutions(self) -> AbstractContextManager[Any]:
        """Return a context inside which convolutions run in this precision."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)


class RawDetections(NamedTuple):
    """The output of a network for one image, boxes xyxy in pixels of the resized image."""

    proposals: Tensor
    """[P, 4] best first."""
    boxes: Tensor
    """[P, C, 4] regressed for each class and clipped; [P, 1, 4] where classes share one."""
    object_scores: Tensor
    """[P, C + 1] probabilities, background last."""
    attribute_scores: Tensor
    """[P, A] probabilities; "none" took part in the softmax and was then left out."""
    features: Tensor
    """[P, F]."""


class GivenRegions(NamedTuple):
    """The boxes given with one image, in pixels of the resized image."""

    boxes: Tensor
    """[K, 4]."""
    and_detected: bool
    """The network's own proposals come after them."""


class BatchedDetector(ABC):
    """A detector around its network's own `_forward`; see `Detector`."""

    describes_boxes = True

    def __init__(self, rule: ResizeRule, images_per_pass: int) -> None:
        self.images_per_pass = images_per_pass
        self._rule = rule

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Proposals]:
        """Detect in RGB images [H, W, 3]; only those of equal resized shape share a pass."""
        resized = [self.prepare(image) for image in images]
        results: dict[int, Proposals] = {}
        shapes = [each.pixels.shape for each in resized]
        for alike in passes(range(len(images)), shapes.__getitem__, self.images_per_pass):
            proposals = self.detect([resized[index] for index in alike])
            results.update(zip(alike, proposals, strict=True))
        return [results[index] for index in range(len(images))]

    def prepare(self, image: NDArray[np.uint8]) -> Resized:
        """Resize an RGB image [H, W, 3]; any thread may call this."""
        return resize(image, self._rule)

    def detect(self, images: Sequence[Resized]) -> list[Proposals]:
        """Detect in one pass over prepared images of equal shape, which are never padded."""
        scales = [1 / image.back[0] for image in images]
        pixels = np.stack([image.pixels for image in images])
        detections = self._forward(pixels, scales, [_given_regions(image) for image in images])
        return [_proposals(raw, image) for raw, image in zip(detections, images, strict=True)]

    @abstractmethod
    def _forward(
        self, pixels: Pixels, scales: list[float], given: Sequence[GivenRegions | None]
    ) -> list[RawDetections]:
        """Run the network on images [n, h, w, 3], each with its scale: resized over original.

        `given` are the boxes of each image that are described, see `with_given`; None: the
        network's own proposals are.
        """


def with_given(
    given: Sequence[GivenRegions | None],
    propose: Callable[[], Sequence[Tensor]],
    *,
    like: Tensor,
) -> list[Tensor]:
    """Return the boxes [P, 4] of each image that a network describes, those given first.

    `propose` returns the network's own, and is called where some image wants them; the boxes lie
    where `like` does.
    """
    if all(each is not None and not each.and_detected for each in given):
        return [each.boxes.to(like.device) for each in given if each is not None]
    regions = []
    for each, own in zip(given, propose(), strict=True):
        if each is not None:
            own = own if each.and_detected else own[:0]
            own = torch.cat([each.boxes.to(own.device), own])
        regions.append(own)
    return regions


def _given_regions(image: Resized) -> GivenRegions | None:
    if image.given is None:
        return None
    back = torch.tensor([*image.back] * 2)
    return GivenRegions(torch.from_numpy(image.given.boxes) / back, image.given.and_detected)


def _proposals(raw: RawDetections, image: Resized) -> Proposals:
    """Return detections in pixels of the original image, in NumPy."""
    height, width = image.size
    proposals = _in_original_pixels(raw.proposals, image)
    if image.given is not None:
        proposals[: len(image.given.boxes)] = image.given.boxes
    return Proposals(
        width=width,
        height=height,
        proposals=proposals,
        boxes=_in_original_pixels(raw.boxes, image),
        object_scores=_numpy(raw.object_scores),
        attribute_scores=_numpy(raw.attribute_scores),
        features=_numpy(raw.features),
        **({} if image.given is None else {"given_classes": image.given.classes}),
    )


def _in_original_pixels(boxes: Tensor, image: Resized) -> NDArray[np.float32]:
    """Return boxes [P, ..., 4] in pixels of the original image.

    The factors are laid out along a whole row, because a product with 4 numbers again and again
    takes ten times as long.
    """
    rows = boxes.float().flatten(1)
    height, width = image.size
    boxes_a_row = rows.shape[1] // 4
    scale = rows.new_tensor([*image.back] * 2).repeat(boxes_a_row)
    # Rounding must not push a box over the border.
    limit = rows.new_tensor([width, height] * 2).repeat(boxes_a_row)
    scaled = rows * scale
    return _numpy(torch.minimum(scaled, limit, out=scaled).view(boxes.shape))


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array
