"""VOLTA's LMDB: pickled dicts with LXMERT's columns as text, or with arrays from its H5 files.

Layout: e-bug/volta data/mscoco/convert_coco_lmdb.py (text) and features_extraction/h5_to_lmdb.py
(arrays, shorter names).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from semvlp.shards.formats.columns import labelled_regions
from semvlp.shards.formats.lxmert_tsv import lxmert_columns
from semvlp.shards.formats.pickle_lmdb import pickle_format
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.record import Regions

H5_NAMES = {
    "obj_id": "objects_id",
    "obj_conf": "objects_conf",
    "attr_id": "attrs_id",
    "attr_conf": "attrs_conf",
}


def _decode(entry: Mapping[str, Any]) -> RawRegions:
    columns = {H5_NAMES.get(name, name): value for name, value in entry.items()}
    if "num_boxes" not in columns:
        columns["num_boxes"] = len(np.asarray(columns["boxes"]).reshape(-1, 4))
    return labelled_regions(columns)


def _encode(regions: Regions, key: str) -> dict[str, Any]:
    # Everything is text there: the rows came out of a TSV reader.
    columns = {name: str(value) for name, value in lxmert_columns(regions).items()}
    return {"img_id": regions.image_id, **columns}


VOLTA_LMDB = pickle_format("LMDB of VOLTA: pickled dicts of LXMERT's columns", _decode, _encode)
