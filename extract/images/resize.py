"""Resizing images for a detector: one rule for every backend, in one of two arithmetics.

H x W an image as it was given, h x w the same image resized.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semvlp.extract.images.given import Given
from semvlp.extract.networks import NetworkConfig

Pixels = NDArray[Any]
"""[H, W, 3] of 0..255, uint8 or float32."""


class ResizeRule(NamedTuple):
    """The size an image gets; 0 leaves it as it is."""

    shorter: int
    """Its shorter side."""
    longer: int
    """Upper bound of its longer side, which wins."""
    method: Literal["pillow", "cv2"] = "pillow"

    @classmethod
    def of(cls, config: NetworkConfig) -> "ResizeRule":
        """Return the rule of a network."""
        method = config.variant.resize if config.variant else "pillow"
        return cls(config.shorter_side, config.longer_side, method)


class Resized(NamedTuple):
    """An image ready for a network."""

    pixels: Pixels
    """[h, w, 3]: bytes from Pillow, float32 from the arithmetic of OpenCV."""
    back: tuple[float, float]
    """Factors that bring x and y of a box back to pixels of the original image."""
    size: tuple[int, int]
    """Height and width of the original image."""
    given: Given | None = None
    """Boxes to be described, if not all that a detector finds."""
    in_patches: Pixels | None = None
    """[h', w', 3] bytes of the image as a vision transformer has it that describes the boxes."""


def resize(image: NDArray[np.uint8], rule: ResizeRule) -> Resized:
    """Resize the RGB image [H, W, 3] with a bilinear filter."""
    height, width = image.shape[:2]
    tall, wide = resized_shape(height, width, rule)
    if rule.method == "cv2" and rule.shorter:
        scale = _caffe_scale(height, width, rule)
        resized = _interpolated(image, (tall, wide), scale)
        return Resized(resized, (1 / scale, 1 / scale), (height, width))
    pixels = image
    if (tall, wide) != (height, width):
        pixels = np.asarray(Image.fromarray(image).resize((wide, tall), Image.Resampling.BILINEAR))
    return Resized(pixels, (width / wide, height / tall), (height, width))


def resized_shape(height: int, width: int, rule: ResizeRule) -> tuple[int, int]:
    """Return height and width after resizing.

    `pillow` is detectron2's `ResizeShortestEdge` (detectron2/data/transforms/augmentation_impl.py),
    `cv2` the rule of Caffe's Faster R-CNN (py-faster-rcnn lib/utils/blob.py).
    """
    if not rule.shorter:
        return height, width
    if rule.method == "cv2":
        scale = _caffe_scale(height, width, rule)
        return max(1, round(height * scale)), max(1, round(width * scale))
    scale = rule.shorter / min(height, width)
    tall, wide = scale * height, scale * width
    if max(tall, wide) > rule.longer:
        shrink = rule.longer / max(tall, wide)
        tall, wide = tall * shrink, wide * shrink
    # An image 50 times as long as wide must keep one row.
    return max(1, int(tall + 0.5)), max(1, int(wide + 0.5))


def _caffe_scale(height: int, width: int, rule: ResizeRule) -> float:
    scale = rule.shorter / min(height, width)
    if round(scale * max(height, width)) > rule.longer:
        scale = rule.longer / max(height, width)
    return scale


def _interpolated(
    image: NDArray[np.uint8], shape: tuple[int, int], scale: float
) -> NDArray[np.float32]:
    """Resize as OpenCV's INTER_LINEAR does on float32, first along the rows, then between them.

    opencv modules/imgproc/src/resize.cpp: the factor is the one that was asked for, not the
    quotient of the rounded sizes; weights are float32. Nothing is averaged when an image shrinks.
    """
    left, right, share = _neighbours(image.shape[1], shape[1], scale)
    values = image.astype(np.float32)
    share = share[:, None]
    rows = values[:, left] * (np.float32(1) - share) + values[:, right] * share
    above, below, share = _neighbours(image.shape[0], shape[0], scale)
    share = share[:, None, None]
    mixed: NDArray[np.float32] = rows[above] * (np.float32(1) - share) + rows[below] * share
    return mixed


def _neighbours(
    length: int, resized: int, scale: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return both source pixels of each resized pixel, and the share of the second."""
    position = ((np.arange(resized) + 0.5) * (1 / scale) - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    share = (position - first.astype(np.float32)).astype(np.float32)
    share[(first < 0) | (first >= length - 1)] = 0
    first = first.clip(0, length - 1)
    return first, np.minimum(first + 1, length - 1), share
