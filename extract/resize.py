"""Resizing images for a detector: one rule for every backend."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resized_shape(height: int, width: int, *, shorter: int, longer: int) -> tuple[int, int]:
    """Height and width after resizing to `shorter`, or to `longer` where that would be exceeded.

    0 leaves the image as it is. The rule of detectron2's `ResizeShortestEdge`
    (detectron2/data/transforms/augmentation_impl.py).
    """
    if not shorter:
        return height, width
    scale = shorter / min(height, width)
    tall, wide = scale * height, scale * width
    if max(tall, wide) > longer:
        shrink = longer / max(tall, wide)
        tall, wide = tall * shrink, wide * shrink
    # An image 50 times as long as wide must keep one row.
    return max(1, int(tall + 0.5)), max(1, int(wide + 0.5))


def resize(image: NDArray[np.uint8], *, shorter: int, longer: int) -> NDArray[np.uint8]:
    """The RGB image [H, W, 3] resized with Pillow's bilinear filter."""
    shape = resized_shape(*image.shape[:2], shorter=shorter, longer=longer)
    if shape == image.shape[:2]:
        return image
    size = (shape[1], shape[0])
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
