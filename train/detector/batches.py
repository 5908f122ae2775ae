"""Which images a step of detector training sees, and how their pixels and boxes are prepared.

B images of one shape, A attributes, N objects of an image, H x W a resized image.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semvlp.extract.detectors.on_torchvision.faster_rcnn import Target
from semvlp.extract.images.resize import ResizeRule, resize
from semvlp.train.detector.coco import Annotated, AnnotatedImage, read_pixels

Group = tuple[Tensor, list[Target]]
"""RGB images [B, 3, H, W] uint8 of one shape with their targets."""


def batch_indices(step: int, *, batch_size: int, num_images: int, seed: int) -> list[int]:
    """Return the images of `step`, counted from 0: a cut from an endless row of shuffled epochs."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [int(_epoch(p // num_images, num_images, seed)[p % num_images]) for p in positions]


def flips(step: int, *, batch_size: int, seed: int) -> list[bool]:
    """Tell of each image of `step` whether it is mirrored left to right."""
    return [bool(flip) for flip in np.random.default_rng([seed, step, 1]).random(batch_size) < 0.5]


def load_groups(
    images: Sequence[AnnotatedImage],
    flipped: Sequence[bool],
    resizing: ResizeRule,
    num_attributes: int,
) -> list[Group]:
    """Read images and put those of equal resized shape together, so that none is padded.

    Raises:
        InputError: an image that cannot be decoded, or has another size than its annotations say.
    """
    by_shape: dict[tuple[int, ...], list[tuple[Tensor, Target]]] = {}
    for image, flip in zip(images, flipped, strict=True):
        pixels = resize(read_pixels(image), resizing).pixels
        boxes = _boxes(image, pixels.shape)
        if flip:
            x1, y1, x2, y2 = boxes.unbind(-1)
            width = pixels.shape[1]
            boxes = torch.stack([width - x2, y1, width - x1, y2], dim=-1)
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        target = _target(boxes, image.objects, num_attributes)
        by_shape.setdefault(pixels.shape, []).append((tensor, target))
    return [
        (torch.stack([tensor for tensor, _ in members]), [target for _, target in members])
        for members in by_shape.values()
    ]


@lru_cache(maxsize=2)
def _epoch(epoch: int, num_images: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(num_images)


def _boxes(image: AnnotatedImage, shape: tuple[int, ...]) -> Tensor:
    """Return the boxes [N, 4], xyxy in pixels of the resized image."""
    scale = torch.tensor([shape[1] / image.width, shape[0] / image.height] * 2)
    boxes = torch.tensor([each.box for each in image.objects], dtype=torch.float32)
    return boxes.view(-1, 4) * scale


def _target(boxes: Tensor, objects: Sequence[Annotated], num_attributes: int) -> Target:
    """Return what is to be learned of `objects`.

    An object with several attributes shares its weight among them; one with none is "none".
    """
    attributes = torch.zeros(len(objects), num_attributes + 1)
    for row, each in zip(attributes, objects, strict=True):
        if each.attributes is not None:
            given = list(each.attributes) or [num_attributes]
            row[given] = 1 / len(given)
    labels = torch.tensor([each.label for each in objects], dtype=torch.int64)
    return Target(boxes, labels, attributes)
