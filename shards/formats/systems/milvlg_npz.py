"""MILVLG's `.npz` files: features `x`, absolute boxes, and labels in the pickled dict `info`.

Layout: MILVLG/bottom-up-attention.pytorch utils/extract_utils.py `save_roi_features`; labels start
at 0 without background.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semvlp.errors import InputError
from semvlp.shards.formats.community import CommunityDataset, CommunityFormat
from semvlp.shards.formats.npz import Npz, by_image, files_dataset, image_files, npz_bytes
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.formats.safe_pickle import ForeignPickle
from semvlp.shards.formats.tsv import decode_number
from semvlp.shards.record import NO_ATTRIBUTE, Regions

log = logging.getLogger(__name__)


def open_milvlg_npz(path: Path) -> CommunityDataset:
    """Open the `.npz` files of a directory.

    Labels are optional. Where the `info` of the first readable file holds pickled tensors of its
    own classes, as the detectron2 mode of the extractor writes, labels are left out everywhere,
    with a warning.

    Raises:
        InputError: there is no file, or two are of one image.
    """
    files = by_image(image_files(path, "*.npz"))
    labelled = _has_labels(files.values())
    facts = {"labels": "read" if labelled else "left out"}
    return files_dataset(files, lambda data: _decode(Npz(data), labelled=labelled), facts)


def write_milvlg_npz(
    regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]
) -> int:
    """Write one compressed `.npz` an image."""
    path.mkdir()
    count = 0
    for image in regions:
        (path / f"{image.image_id}.npz").write_bytes(npz_bytes(_arrays(image), compress=True))
        count += 1
    return count


def _has_labels(paths: Iterable[Path]) -> bool:
    """Tell by the first file that can be read."""
    for path in paths:
        try:
            arrays = Npz(path.read_bytes())
            if "info" not in arrays:
                return False
            if isinstance(arrays["info"], Mapping):
                return True
        except ForeignPickle as error:
            log.warning("%s: labels are left out, as they cannot be read safely: %s", path, error)
            return False
        except (InputError, OSError):
            continue  # refused when its turn comes
    return False


def _decode(arrays: Npz, *, labelled: bool) -> RawRegions:
    info: Mapping[str, Any] = arrays["info"] if labelled else {}
    if not isinstance(info, Mapping):
        raise InputError(f"info must be a dict, got {type(info).__name__}")
    boxes, features = np.asarray(arrays["bbox"]), np.asarray(arrays["x"])
    return RawRegions(
        width=decode_number(arrays["image_w"], "image_w"),
        height=decode_number(arrays["image_h"], "image_h"),
        count=decode_number(arrays["num_bbox"], "num_bbox"),
        boxes=boxes,
        features=features,
        object_ids=info.get("objects_id"),
        object_conf=info.get("objects_conf"),
        attribute_ids=info.get("attrs_id"),
        attribute_conf=info.get("attrs_conf"),
    )


def _arrays(regions: Regions) -> dict[str, Any]:
    info: dict[str, Any] = {
        "image_id": regions.image_id,
        "image_h": regions.height,
        "image_w": regions.width,
        "num_boxes": len(regions),
        "objects_id": regions.object_ids.astype(np.int64),
        "objects_conf": regions.object_conf.astype(np.float32),
    }
    if (regions.attribute_ids != NO_ATTRIBUTE).all():
        info["attrs_id"] = regions.attribute_ids.astype(np.int64)
        info["attrs_conf"] = regions.attribute_conf.astype(np.float32)
    return {
        "x": regions.features.astype(np.float32),
        "bbox": regions.boxes,
        "num_bbox": np.array(len(regions)),
        "image_h": np.array(regions.height),
        "image_w": np.array(regions.width),
        "info": info,
    }


MILVLG_NPZ = CommunityFormat(
    what="directory of MILVLG bottom-up-attention.pytorch .npz files",
    open=open_milvlg_npz,
    write=write_milvlg_npz,
)
