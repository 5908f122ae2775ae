"""UNITER's `.npz` files: float16 features and boxes divided by an image size that is not kept.

Layout: ChenRocks/BUTD-UNITER-NLVR2 tools/generate_npz.py; names as in ChenRocks/UNITER
scripts/convert_imgdir.py. Names lead with the data set: `nlvr2_dev-0-0-img0.npz`.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError
from semvlp.shards.formats.npz import Npz, by_image, files_source, image_files, npz_bytes
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.formats.source import CommunityFormat, Source
from semvlp.shards.image_ids import stem
from semvlp.shards.record import Regions

UNIT = 1000
"""Width and height in pixels an image is given whose size is not known."""

UNIT_FACTS = {
    "boxes": f"the files hold no image sizes: boxes are on a square of {UNIT} x {UNIT} pixels, so "
    "positions relative to the image are right, but pixels and aspect ratios are not"
}
NUM_CLASSES = 1601
"""Classes of `soft_labels`: 1,600 of Visual Genome behind the background."""

ARRAYS = ("norm_bb", "features", "conf", "soft_labels")

# UNITER's name of an image without `.npz` <-> the name its own data set gives it.
_TO_OURS = (
    (r"nlvr2_((?:train|dev|test1|test2)-.*)", r"\1"),
    (r"coco_((?:train|val)2014_.*)", r"COCO_\1"),
)
_TO_UNITER = (
    (r"((?:train|dev|test1|test2)-[0-9]+-[0-9]+-img[01])", r"nlvr2_\1"),
    (r"COCO_((?:train|val)2014_.*)", r"coco_\1"),
)


def image_id_of(name: str) -> str:
    """`coco_train2014_000000000009.npz` -> `COCO_train2014_000000000009`."""
    return _renamed(stem(name), _TO_OURS)


def uniter_name(image_id: str) -> str:
    """`COCO_train2014_000000000009` -> `coco_train2014_000000000009.npz`."""
    return f"{_renamed(image_id, _TO_UNITER)}.npz"


def uniter_regions(arrays: Mapping[str, Any] | Npz) -> RawRegions:
    """One image from UNITER's arrays; its size becomes UNIT x UNIT.

    Raises:
        InputError: an array is missing or has another shape.
    """
    boxes, features, conf, labels = (_matrix(arrays, name) for name in ARRAYS)
    rows = len(features)
    if boxes.shape[1] < 4 or not len(boxes) == len(conf) == len(labels) == rows:
        shapes = ", ".join(f"{name} {np.shape(arrays[name])}" for name in ARRAYS)
        raise InputError(f"the arrays do not fit each other: {shapes}")
    return RawRegions(
        width=UNIT,
        height=UNIT,
        boxes=boxes[:, :4].astype(np.float32) * UNIT,
        features=features,
        # Class 0 is the background.
        object_ids=labels[:, 1:].argmax(axis=1) if labels.shape[1] > 1 else None,
        object_conf=conf[:, 0],
    )


def uniter_arrays(regions: Regions, object_labels: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """UNITER's arrays of one image.

    Only the best class of a region is kept by us, so the rest of its probability goes to the
    background.
    """
    size = np.array([regions.width, regions.height] * 2, np.float32)
    boxes = regions.boxes / size
    sides = boxes[:, 2:] - boxes[:, :2]
    conf = regions.object_conf.astype(np.float32)
    labels = np.zeros((len(regions), len(object_labels) + 1 if object_labels else NUM_CLASSES))
    rows = np.arange(len(regions))
    labels[:, 0] = 1 - conf
    labels[rows, regions.object_ids.astype(np.int64) + 1] = conf
    return {
        "norm_bb": np.concatenate([boxes, sides], axis=1).astype(np.float16),
        "features": regions.features,
        "conf": regions.object_conf[:, None],
        "soft_labels": labels.astype(np.float16),
    }


def open_uniter_npz(path: Path) -> Source:
    """The `.npz` files of a directory.

    Raises:
        InputError: there is none, or two are of one image.
    """
    files = by_image(image_files(path, "*.npz"), image_id_of)
    return files_source(files, lambda data: uniter_regions(Npz(data)), UNIT_FACTS)


def write_uniter_npz(
    regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]
) -> int:
    """One compressed `.npz` an image; attributes have no place in this format."""
    path.mkdir()
    count = 0
    for image in regions:
        data = npz_bytes(uniter_arrays(image, object_labels), compress=True)
        (path / uniter_name(image.image_id)).write_bytes(data)
        count += 1
    return count


def _matrix(arrays: Mapping[str, Any] | Npz, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(arrays[name])
    except KeyError:
        raise InputError(f"the array {name!r} is missing") from None
    # Some writers drop the second axis of `conf`.
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{name} must be a matrix of floats, got {array.dtype} {array.shape}")
    return array


def _renamed(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    return name


UNITER_NPZ = CommunityFormat(
    what="directory of UNITER's .npz files: float16, relative boxes, soft labels",
    open=open_uniter_npz,
    write=write_uniter_npz,
)
