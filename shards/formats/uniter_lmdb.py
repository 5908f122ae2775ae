"""UNITER's LMDB: the arrays of its `.npz` files in MessagePack, or the compressed files themselves.

Layout: ChenRocks/UNITER scripts/convert_imgdir.py and data/data.py `DetectFeatLmdb`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError
from semvlp.shards.formats.foreign_lmdb import ForeignLmdb, write_database
from semvlp.shards.formats.npz import Npz
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.formats.source import CommunityFormat, Source
from semvlp.shards.formats.uniter_npz import (
    UNIT_FACTS,
    image_id_of,
    uniter_arrays,
    uniter_name,
    uniter_regions,
)
from semvlp.shards.record import Regions

KEYS = b"__keys__"
# The reader takes the number of regions from the sidecar of this suffix, so it uses exactly the
# regions written, whatever the thresholds in the name say.
SUFFIX = "th0.2_max100_min10"
ZIP_MAGIC = b"PK"


def open_uniter_lmdb(path: Path) -> Source:
    """The database directory, or the directory above the only one.

    Raises:
        InputError: there is no database, or two keys are of one image.
    """
    database = ForeignLmdb(path)
    keys: dict[str, bytes] = {}
    for key in _keys(database):
        image_id = image_id_of(key)
        if image_id in keys:
            raise InputError(f"{database.path}: {key!r} is a second entry of image {image_id!r}")
        keys[image_id] = key.encode()
    return Source(
        image_ids=tuple(keys),
        read=lambda image_id: _decode(database.value(keys[image_id])),
        file_of=lambda image_id: str(database.path),
        facts=UNIT_FACTS,
        close=database.close,
    )


def write_uniter_lmdb(
    regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]
) -> int:
    """`feat_<thresholds>/` in MessagePack, and the number of regions of each image beside it."""
    counts: dict[str, int] = {}

    def items() -> Iterator[tuple[bytes, bytes]]:
        for image in regions:
            name = uniter_name(image.image_id)
            counts[name] = len(image)
            arrays = uniter_arrays(image, object_labels)
            yield name.encode(), msgpack.packb(arrays, default=_pack_array, use_bin_type=True)
        yield KEYS, json.dumps(list(counts)).encode()

    write_database(path / f"feat_{SUFFIX}", items())
    (path / f"nbb_{SUFFIX}.json").write_text(json.dumps(counts), encoding="utf-8")
    return len(counts)


def _keys(database: ForeignLmdb) -> list[str]:
    listed = database.get(KEYS)
    if listed is None:
        return [key.decode() for key in database.keys_but(KEYS)]
    try:
        return [str(key) for key in json.loads(listed)]
    except (ValueError, TypeError) as error:
        raise InputError(f"{database.path}: the list of keys is damaged: {error}") from error


def _decode(value: bytes) -> RawRegions:
    if value.startswith(ZIP_MAGIC):
        return uniter_regions(Npz(value))
    try:
        arrays = msgpack.unpackb(value, raw=False, strict_map_key=False, object_hook=_unpack_array)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise InputError(f"the entry is damaged MessagePack: {error}") from error
    if not isinstance(arrays, Mapping):
        raise InputError(f"the entry must be a dict of arrays, got {type(arrays).__name__}")
    return uniter_regions(arrays)


def _pack_array(array: NDArray[Any]) -> dict[bytes, Any]:
    """An array as the package msgpack_numpy encodes it."""
    return {
        b"nd": True,
        b"type": array.dtype.str,
        b"kind": b"",
        b"shape": list(array.shape),
        b"data": array.tobytes(),
    }


def _unpack_array(entry: dict[Any, Any]) -> Any:
    """An array of numbers; its pickled and structured kinds are refused."""
    plain = {key.decode() if isinstance(key, bytes) else key: value for key, value in entry.items()}
    if "nd" not in plain:
        return plain
    if plain.get("kind") not in (None, b"", ""):
        raise ValueError(f"an array of the kind {plain['kind']!r} was found where numbers belong")
    array = np.frombuffer(plain["data"], np.dtype(str(plain["type"])))
    return array.reshape(plain["shape"]) if plain["nd"] else array[0]


UNITER_LMDB = CommunityFormat(
    what="LMDB of UNITER: its .npz arrays in MessagePack or compressed",
    open=open_uniter_lmdb,
    write=write_uniter_lmdb,
)
