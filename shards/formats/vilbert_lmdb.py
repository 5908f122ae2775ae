"""ViLBERT multi-task's LMDB: pickled dicts of arrays by image id.

Layout: facebookresearch/vilbert-multi-task script/convert_to_lmdb.py and
vilbert/datasets/_image_features_reader.py. Stored classes are not read: script/extract_features.py
cuts its scores along the wrong axis, so they are wrong in every published file.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from semvlp.shards.formats.columns import decode_number, decode_rows
from semvlp.shards.formats.pickle_lmdb import pickle_format
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.record import Regions


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


VILBERT_LMDB = pickle_format(
    "LMDB of ViLBERT multi-task: pickled dicts of arrays", _decode, _encode
)
