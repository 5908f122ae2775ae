"""MMF's features: pairs of files, `<id>.npy` and `<id>_info.npy` with a pickled dict, and its LMDB.

The LMDB has one pickled dict an image, the features among the rest. Layout: facebookresearch/mmf
tools/scripts/features/lmdb_conversion.py.

Layout of the pairs: facebookresearch/mmf tools/scripts/features/extract_features_vmb.py. The VinVL
script beside it stores relative boxes of six numbers and appends them to the features. `num_boxes`
may be lower than the rows there are (boxes under the threshold follow) or higher (what was asked
for). The frcnn script writes the size of the resized image; such files cannot be told from the
others.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError
from semvlp.shards.formats.community import CommunityDataset, CommunityFormat
from semvlp.shards.formats.npz import by_image, image_files
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.formats.safe_pickle import dump_npy, load_npy
from semvlp.shards.formats.systems.pickle_lmdb import open_pickles, write_pickles
from semvlp.shards.formats.tsv import decode_number
from semvlp.shards.record import Regions

INFO = "_info.npy"
RELATIVE_BOX = 6
"""x1/W, y1/H, x2/W, y2/H, w/W, h/H."""


def open_mmf_npy(path: Path) -> CommunityDataset:
    """Open the pairs of a directory.

    Raises:
        InputError: there is none, or two are of one image.
    """
    features = [file for file in image_files(path, "*.npy") if not file.name.endswith(INFO)]
    files = by_image(features)
    return CommunityDataset(
        image_ids=tuple(files),
        read=lambda image_id: _read(files[image_id]),
        file_of=lambda image_id: str(files[image_id]),
    )


def write_mmf_npy(regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]) -> int:
    """Write two files an image; attributes have no place in this format.

    Confidences stand in a column for each class, so without names of the classes there are none:
    MMF stacks these arrays, which must be equally wide.
    """
    path.mkdir()
    count = 0
    for image in regions:
        features = image.features.astype(np.float32)
        (path / f"{image.image_id}.npy").write_bytes(dump_npy(features))
        info = dump_npy(_info(image, len(object_labels)))
        (path / f"{image.image_id}{INFO}").write_bytes(info)
        count += 1
    return count


def open_mmf_lmdb(path: Path) -> CommunityDataset:
    """Open the database directory, or the only one in a directory right below `path`.

    Raises:
        InputError: there is none, it is damaged, or two keys are of one image.
    """
    return open_pickles(path, lambda entry: _decode(np.asarray(entry["features"]), entry))


def write_mmf_lmdb(
    regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]
) -> int:
    """Write one entry an image under its id; see `write_mmf_npy` for what is left out."""

    def encode(image: Regions, key: str) -> dict[str, Any]:
        features = image.features.astype(np.float32)
        return {"feature_path": key, "features": features, **_info(image, len(object_labels))}

    return write_pickles(regions, path, encode, str)


def _read(path: Path) -> RawRegions:
    info_path = path.with_name(path.stem + INFO)
    if not info_path.is_file():
        raise InputError(f"{info_path.name} is missing: without it there are no boxes")
    features = load_npy(path.read_bytes(), path.name)
    info = load_npy(info_path.read_bytes(), info_path.name)
    if not isinstance(features, np.ndarray) or not isinstance(info, Mapping):
        raise InputError(f"{path.name} must hold an array and {info_path.name} a dict")
    try:
        return _decode(features, info)
    except KeyError as error:
        raise InputError(f"{info_path.name} lacks {error}") from error


def _decode(features: NDArray[Any], info: Mapping[str, Any]) -> RawRegions:
    width = decode_number(info["image_width"], "image_width")
    height = decode_number(info["image_height"], "image_height")
    boxes = np.asarray(info["bbox"])
    rows = len(features)
    if "num_boxes" in info:
        rows = min(rows, decode_number(info["num_boxes"], "num_boxes"))
    if boxes.ndim == 2 and boxes.shape[1] == RELATIVE_BOX:
        boxes = boxes[:, :4] * np.array([width, height] * 2, np.float32)
        features = features[:, :-RELATIVE_BOX]
    ids, conf = _labels(info)
    return RawRegions(
        width=width,
        height=height,
        boxes=boxes[:rows],
        features=features[:rows],
        object_ids=None if ids is None else ids[:rows],
        object_conf=None if conf is None else conf[:rows],
    )


def _labels(info: Mapping[str, Any]) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """Return classes from 0 without background, and the probability of each."""
    if "objects" in info:
        ids = np.asarray(info["objects"]).reshape(-1)
        probabilities = np.asarray(info.get("cls_prob", np.empty((0, 0))))
        fits = probabilities.ndim == 2 and len(probabilities) == len(ids) > 0
        fits = fits and ids.min() >= 0 and ids.max() < probabilities.shape[1]
        return ids, probabilities[np.arange(len(ids)), ids] if fits else None
    if "labels" in info and "scores" in info:
        # maskrcnn-benchmark counts the background as class 0.
        return np.asarray(info["labels"]).reshape(-1) - 1, np.asarray(info["scores"]).reshape(-1)
    return None, None


def _info(regions: Regions, classes: int) -> dict[str, Any]:
    ids = regions.object_ids.astype(np.int64)
    info = {
        "bbox": regions.boxes,
        "num_boxes": len(regions),
        "objects": ids,
        "image_width": regions.width,
        "image_height": regions.height,
    }
    if classes:
        probabilities = np.zeros((len(regions), classes), np.float32)
        probabilities[np.arange(len(regions)), ids] = regions.object_conf
        info["cls_prob"] = probabilities
    return info


MMF_LMDB = CommunityFormat(
    what="LMDB of MMF: pickled dicts of features and labels",
    open=open_mmf_lmdb,
    write=write_mmf_lmdb,
)

MMF_NPY = CommunityFormat(
    what="directory of MMF's .npy and _info.npy pairs",
    open=open_mmf_npy,
    write=write_mmf_npy,
)
