"""One image as a community file has it, and its way into our record.

R regions, F feature size. Boxes are xyxy in pixels of the original image.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semvlp.errors import InputError, shown
from semvlp.shards.record import MAX_REGIONS, NO_ATTRIBUTE, Regions

# A box may stand out of its image by rounding (float16 files), not by more.
BOX_TOLERANCE = (1.0, 0.002)
MAX_SIDE = 2**24
"""Pixels of a side up to which a float32 has every one of them."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RawRegions:
    """One image as its file has it: any number type, any order, labels or none."""

    width: int
    height: int
    boxes: NDArray[Any]
    """[R, 4] xyxy pixels."""
    features: NDArray[Any]
    """[R, F]"""
    count: int | None = None
    """Number of regions the file states, where it does."""
    object_ids: ArrayLike | None = None
    """[R] from 0, without background."""
    object_conf: ArrayLike | None = None
    attribute_ids: ArrayLike | None = None
    """[R] from 0, without "none"."""
    attribute_conf: ArrayLike | None = None


def to_regions(
    raw: RawRegions, image_id: str, profile: str, *, feature_size: int | None = None
) -> Regions:
    """Return our record: no padding, most confident region first, what the file lacks filled in.

    Without confidences the order stays. At most MAX_REGIONS are kept. Proposals are the boxes, as
    no community format has both. `feature_size` is the width given to an image without regions.

    Raises:
        InputError: columns of different lengths, boxes outside the image, values no float16 or
            labels no int16 holds.
    """
    for name, array in (("features", raw.features), ("boxes", raw.boxes)):
        _check_kind(name, np.asarray(array))
    rows = _real_rows(raw)
    object_conf = _column(raw.object_conf, raw, 0.0)
    order = np.argsort(-object_conf[:rows], kind="stable")[:MAX_REGIONS]
    boxes = np.asarray(raw.boxes, np.float32).reshape(-1, 4)[order]
    _check_boxes(boxes, raw)
    with np.errstate(over="ignore"):
        features = np.asarray(raw.features).astype(np.float16)[order]
    if not rows and feature_size is not None:
        features = np.empty((0, feature_size), np.float16)
    attribute_ids = _column(raw.attribute_ids, raw, NO_ATTRIBUTE)
    return Regions(
        image_id=image_id,
        width=raw.width,
        height=raw.height,
        boxes=boxes,
        proposals=boxes.copy(),
        features=features,
        object_ids=_ids(_column(raw.object_ids, raw, 0)[order], 0),
        object_conf=object_conf[order].astype(np.float16),
        attribute_ids=_ids(attribute_ids[order], NO_ATTRIBUTE),
        attribute_conf=_column(raw.attribute_conf, raw, 0.0)[order].astype(np.float16),
        profile=profile,
    )


def _real_rows(raw: RawRegions) -> int:
    """Count the rows before the zero padding that some extractors add up to a fixed count."""
    rows = len(raw.features)
    if raw.features.ndim != 2 or (raw.boxes.shape != (rows, 4) and (rows or raw.boxes.size)):
        raise InputError(
            f"features must be [R, F] and boxes [R, 4], "
            f"got {raw.features.shape} and {raw.boxes.shape}"
        )
    last = rows
    while last and not raw.features[last - 1].any() and not raw.boxes[last - 1].any():
        last -= 1
    stated = rows if raw.count is None else raw.count
    if not last <= stated <= rows:
        raise InputError(f"{stated} regions are stated, but {last} of {rows} rows are filled")
    return last


def _column(values: ArrayLike | None, raw: RawRegions, default: float) -> NDArray[Any]:
    rows = len(raw.features)
    if values is None:
        return np.full(rows, default)
    column = np.asarray(values).reshape(-1)
    _check_kind("a label column", column)
    if len(column) != rows:
        raise InputError(f"a label column has {len(column)} entries for {rows} regions")
    return column


def _check_kind(name: str, array: NDArray[Any]) -> None:
    """Raise for text, complex numbers and objects: what NumPy would make of them is not said."""
    if array.size and array.dtype.kind not in "biuf":
        raise InputError(f"{name} must hold numbers, got {array.dtype}")


def _ids(column: NDArray[Any], least: int) -> NDArray[np.int16]:
    if len(column) and not (column.min() >= least and column.max() <= np.iinfo(np.int16).max):
        raise InputError(f"labels must be {least}..32767, got {column.min()}..{column.max()}")
    ids = column.astype(np.int16)
    if not np.array_equal(ids, column):
        raise InputError("labels must be whole numbers")
    return ids


def _check_boxes(boxes: NDArray[np.float32], raw: RawRegions) -> None:
    if not (0 < raw.width <= MAX_SIDE and 0 < raw.height <= MAX_SIDE):
        size = f"{shown(raw.width, 40)} x {shown(raw.height, 40)}"
        raise InputError(f"the image size must be positive and at most {MAX_SIDE}, got {size}")
    limit = np.array([raw.width, raw.height] * 2, np.float32)
    slack = BOX_TOLERANCE[0] + BOX_TOLERANCE[1] * limit
    if (boxes < -slack).any() or (boxes > limit + slack).any():
        raise InputError(
            f"boxes must lie in the image of {raw.width} x {raw.height} pixels, but they reach "
            f"from {boxes.min():.1f} to {boxes.max(axis=0)[2:].tolist()}; are width and height "
            "exchanged?"
        )
