"""Passes of a network over images: what every backend does around its own network.

P proposals, C object classes, A attributes, F feature size, H x W an image as it was given,
h x w the same image resized.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semvlp.errors import ConfigError
from semvlp.extract.detector import Precision, Proposals
from semvlp.extract.resize import Pixels, Resized, ResizeRule, resize
from semvlp.torchrun import place

# Images of one pass on a GPU. On a CPU a pass of several is no faster, and one at a time makes an
# image's numbers the same to the last bit whatever its neighbours are.
_IMAGES_PER_PASS = {"cuda": 8}
# Regions whose 14 x 14 x 2048 maps are in memory at once: 0.5 GB in fp32.
REGIONS_AT_ONCE = 300


class Place(NamedTuple):
    """Where and how exactly a network runs."""

    device: str = "cpu"
    precision: Precision = "fp32"
    """Of the convolutions; boxes and probabilities are always fp32."""

    @property
    def images_per_pass(self) -> int:
        """How many images of equal shape go through the network at once."""
        return _IMAGES_PER_PASS.get(torch.device(self.device).type, 1)

    def convolutions(self) -> AbstractContextManager[Any]:
        """Inside it, convolutions run in the precision of this place."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)


class Found(NamedTuple):
    """What a network finds in one image, boxes in pixels of the resized image."""

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


Find = Callable[[Pixels, list[float]], list[Found]]
"""Finds in a stack [n, h, w, 3] of images, each with its scale: resized over original size."""


def detect_in_passes(
    images: Sequence[NDArray[np.uint8]], find: Find, rule: ResizeRule, *, images_per_pass: int
) -> list[Proposals]:
    """Resize images [H, W, 3] and run `find` on those of equal shape together, never padded."""
    resized = [resize(image, rule) for image in images]
    results: dict[int, Proposals] = {}
    for indices in _equal_shapes(resized, images_per_pass):
        scales = [1 / resized[index].back[0] for index in indices]
        found = find(np.stack([resized[index].pixels for index in indices]), scales)
        for index, each in zip(indices, found, strict=True):
            results[index] = _proposals(each, images[index].shape, resized[index].back)
    return [results[index] for index in range(len(images))]


def choose_device(name: str) -> str:
    """`cpu` or a GPU, under torchrun this process's own; `auto` takes the GPU where there is one.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda needs a GPU that torch can use; take --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{place().local_rank}"


def _equal_shapes(images: Sequence[Resized], most: int) -> Iterator[list[int]]:
    """Indices of images of equal shape, at most `most` together."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        by_shape.setdefault(image.pixels.shape, []).append(index)
    for indices in by_shape.values():
        for start in range(0, len(indices), most):
            yield indices[start : start + most]


def _proposals(found: Found, original: tuple[int, ...], back: tuple[float, float]) -> Proposals:
    """Back to pixels of the original image, in numpy."""
    height, width = original[:2]
    scale = np.array([*back, *back], dtype=np.float32)
    # Rounding must not push a box over the border.
    limit = np.array([width, height] * 2, dtype=np.float32)
    return Proposals(
        width=width,
        height=height,
        proposals=np.minimum(_numpy(found.proposals) * scale, limit),
        boxes=np.minimum(_numpy(found.boxes) * scale, limit),
        object_scores=_numpy(found.object_scores),
        attribute_scores=_numpy(found.attribute_scores),
        features=_numpy(found.features),
    )


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array
