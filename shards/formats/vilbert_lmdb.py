"""ViLBERT multi-task's LMDB: pickled dicts of arrays by image id.

Layout: facebookresearch/vilbert-multi-task script/convert_to_lmdb.py and
vilbert/datasets/_image_features_reader.py. Stored classes are not read: script/extract_features.py
cuts its scores along the wrong axis, so they are wrong in every published file.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semvlp.shards.formats.columns import decode_number, decode_rows
from semvlp.shards.formats.pickle_lmdb import open_pickles, write_pickles
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.formats.source import CommunityFormat, Source
from semvlp.shards.record import Regions


def open_vilbert_lmdb(path: Path) -> Source:
    """The database directory.

    Raises:
        InputError: there is no database, or its list of keys is damaged.
    """
    return open_pickles(path, _decode)


def write_vilbert_lmdb(
    regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]
) -> int:
    """A database directory; labels are not written, as nothing reads them."""
    return write_pickles(regions, path, _encode)


def _decode(entry: Mapping[str, Any]) -> RawRegions:
    boxes = np.asarray(entry["boxes"]).reshape(-1, 4)
    return RawRegions(
        width=decode_number(entry["image_w"], "image_w"),
        height=decode_number(entry["image_h"], "image_h"),
        count=decode_number(entry["num_boxes"], "num_boxes"),
        boxes=boxes,
        features=decode_rows(entry["features"], np.float32, len(boxes), "features"),
    )


def _encode(regions: Regions, key: str) -> dict[str, Any]:
    return {
        "image_id": key,
        "image_h": regions.height,
        "image_w": regions.width,
        "num_boxes": len(regions),
        "boxes": regions.boxes,
        "features": regions.features.astype(np.float32),
    }


VILBERT_LMDB = CommunityFormat(
    what="LMDB of ViLBERT multi-task: pickled dicts of arrays",
    open=open_vilbert_lmdb,
    write=write_vilbert_lmdb,
)
