"""Databases of one pickled dict an image and a pickled list of keys: ViLBERT's and VOLTA's.

ViLBERT multi-task has arrays by image id. Layout: facebookresearch/vilbert-multi-task
script/convert_to_lmdb.py and vilbert/datasets/_image_features_reader.py. Stored classes are not
read: script/extract_features.py cuts its scores along the wrong axis, so they are wrong in every
published file.

VOLTA has LXMERT's columns as text, or arrays from its H5 files. Layout: e-bug/volta
data/mscoco/convert_coco_lmdb.py (text) and features_extraction/h5_to_lmdb.py (arrays, shorter
names).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semvlp.errors import InputError, shown
from semvlp.shards.formats.community import CommunityDataset, CommunityFormat
from semvlp.shards.formats.foreign_lmdb import ForeignLmdb, by_key, community_key, write_database
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.formats.safe_pickle import dumps, loads
from semvlp.shards.formats.systems.bottom_up_tsv import lxmert_columns
from semvlp.shards.formats.tsv import decode_number, decode_rows, labelled_regions
from semvlp.shards.record import Regions

LIST_KEY = b"keys"
H5_NAMES = {
    "obj_id": "objects_id",
    "obj_conf": "objects_conf",
    "attr_id": "attrs_id",
    "attr_conf": "attrs_conf",
}

MMF_NAMES = {"bbox", "image_width", "image_height", "features"}

Entry = Mapping[str, Any]


def pickle_format(
    what: str, decode: Callable[[Entry], RawRegions], encode: Callable[[Regions, str], Entry]
) -> CommunityFormat:
    """Make the format whose entries `decode` reads, and `encode` makes of an image and its key."""

    def write(regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]) -> int:
        return write_pickles(regions, path, encode)

    return CommunityFormat(what=what, open=lambda path: open_pickles(path, decode), write=write)


def open_pickles(path: Path, decode: Callable[[Entry], RawRegions]) -> CommunityDataset:
    """Open a database whose entries `decode` reads.

    Raises:
        InputError: there is none, it is damaged, or two keys are of one image.
    """
    database = ForeignLmdb(path)
    listed, unnamed = database.listed(LIST_KEY, _decode_list)
    keys = by_key(listed, database.path)

    def read(image_id: str) -> RawRegions:
        entry = loads(database.value(keys[image_id]), "the entry")
        if not isinstance(entry, Mapping):
            raise InputError(f"the entry must be a dict, got {type(entry).__name__}")
        try:
            return decode(entry)
        except KeyError as error:
            other = "; MMF's has its names: give --from mmf-lmdb"
            hint = other if MMF_NAMES.issubset(entry) else ""
            raise InputError(f"the entry lacks {error}{hint}") from error

    return CommunityDataset(
        image_ids=tuple(keys),
        read=read,
        file_of=lambda image_id: str(database.path),
        unreadable=unnamed,
        close=database.close,
    )


def write_pickles(
    regions: Iterable[Regions],
    path: Path,
    encode: Callable[[Regions, str], Entry],
    key_of_image: Callable[[str], str] = community_key,
) -> int:
    """Write a database of the entries that `encode` makes of images and their keys."""
    keys: list[bytes] = []

    def items() -> Iterator[tuple[bytes, bytes]]:
        for image in regions:
            key = key_of_image(image.image_id)
            keys.append(key.encode())
            yield keys[-1], dumps(encode(image, key))
        yield LIST_KEY, dumps(keys)

    write_database(path, items())
    return len(keys)


def _decode_list(value: bytes) -> list[bytes]:
    keys = loads(value, "it")
    if not isinstance(keys, list) or (
        keys and not any(isinstance(key, bytes | str) for key in keys)
    ):
        raise InputError("`keys` must be a list of byte strings")
    # Of what is no key an entry is looked for all the same, and missed.
    texts = (key if isinstance(key, bytes | str) else f"no key: {shown(key)}" for key in keys)
    return [key.encode(errors="surrogatepass") if isinstance(key, str) else key for key in texts]


def _decode_vilbert(entry: Mapping[str, Any]) -> RawRegions:
    boxes = np.asarray(entry["boxes"]).reshape(-1, 4)
    return RawRegions(
        width=decode_number(entry["image_w"], "image_w"),
        height=decode_number(entry["image_h"], "image_h"),
        count=decode_number(entry["num_boxes"], "num_boxes"),
        boxes=boxes,
        features=decode_rows(entry["features"], np.float32, len(boxes), "features"),
    )


def _encode_vilbert(regions: Regions, key: str) -> dict[str, Any]:
    return {
        "image_id": key,
        "image_h": regions.height,
        "image_w": regions.width,
        "num_boxes": len(regions),
        "boxes": regions.boxes,
        "features": regions.features.astype(np.float32),
    }


def _decode_volta(entry: Mapping[str, Any]) -> RawRegions:
    columns = {H5_NAMES.get(name, name): value for name, value in entry.items()}
    if "num_boxes" not in columns:
        columns["num_boxes"] = len(np.asarray(columns["boxes"]).reshape(-1, 4))
    return labelled_regions(columns)


def _encode_volta(regions: Regions, key: str) -> dict[str, Any]:
    # Everything is text there: the rows came out of a TSV reader.
    columns = {name: str(value) for name, value in lxmert_columns(regions).items()}
    return {"img_id": regions.image_id, **columns}


VILBERT_LMDB = pickle_format(
    "LMDB of ViLBERT multi-task: pickled dicts of arrays", _decode_vilbert, _encode_vilbert
)

VOLTA_LMDB = pickle_format(
    "LMDB of VOLTA: pickled dicts of LXMERT's columns", _decode_volta, _encode_volta
)
