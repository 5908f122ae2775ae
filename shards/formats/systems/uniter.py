"""UNITER's `.npz` files, and its LMDB of the same arrays.

Files: float16 features and boxes divided by an image size that is not kept. Layout:
ChenRocks/BUTD-UNITER-NLVR2 tools/generate_npz.py; names as in ChenRocks/UNITER
scripts/convert_imgdir.py. Names lead with the data set: `nlvr2_dev-0-0-img0.npz`.

LMDB: the arrays in MessagePack, or the compressed files themselves. Layout: ChenRocks/UNITER
scripts/convert_imgdir.py and data/data.py `DetectFeatLmdb`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from semvlp.documents import from_json
from semvlp.errors import InputError, shown
from semvlp.shards.formats.community import CommunityDataset, CommunityFormat
from semvlp.shards.formats.foreign_lmdb import ForeignLmdb, by_key, write_database
from semvlp.shards.formats.npz import Npz, by_image, files_dataset, image_files, npz_bytes
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.record import Regions
from semvlp.shards.texts.image_ids import stem

UNIT = 1000
"""Width and height in pixels an image is given whose size is not known."""
UNIT_FACTS = {
    "boxes": f"the files hold no image sizes: boxes are on a square of {UNIT} x {UNIT} pixels, so "
    "positions relative to the image are right, but pixels and aspect ratios are not"
}

NUM_CLASSES = 1601
"""Classes of `soft_labels`: 1,600 of Visual Genome behind the background."""
ARRAYS = ("norm_bb", "features", "conf", "soft_labels")
LIST_KEY = b"__keys__"

# The reader takes the number of regions from the sidecar of this suffix, so it uses exactly the
# regions written, whatever the thresholds in the name say.
SUFFIX = "th0.2_max100_min10"
ZIP_MAGIC = b"PK"

# UNITER's name of an image without `.npz` <-> the name its own data set gives it.
_TO_OURS = (
    (r"nlvr2_((?:train|dev|test1|test2)-.*)", r"\1"),
    (r"coco_((?:train|val)2014_.*)", r"COCO_\1"),
)

_TO_UNITER = (
    (r"((?:train|dev|test1|test2)-[0-9]+-[0-9]+-img[01])", r"nlvr2_\1"),
    (r"COCO_((?:train|val)2014_.*)", r"coco_\1"),
)


def open_uniter_npz(path: Path) -> CommunityDataset:
    """Open the `.npz` files of a directory.

    Raises:
        InputError: there is none, or two are of one image.
    """
    files = by_image(image_files(path, "*.npz"), image_id_of)
    return files_dataset(files, lambda data: uniter_regions(Npz(data)), UNIT_FACTS)


def write_uniter_npz(
    regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]
) -> int:
    """Write one compressed `.npz` an image; attributes have no place in this format."""
    path.mkdir()
    count = 0
    for image in regions:
        data = npz_bytes(uniter_arrays(image, object_labels), compress=True)
        (path / uniter_name(image.image_id)).write_bytes(data)
        count += 1
    return count


def open_uniter_lmdb(path: Path) -> CommunityDataset:
    """Open the database directory, or the only one in a directory right below `path`.

    Raises:
        InputError: there is no database, or two keys are of one image.
    """
    database = ForeignLmdb(path)
    listed, unnamed = database.listed(LIST_KEY, _decode_list)
    keys = by_key(listed, database.path, image_id_of)
    return CommunityDataset(
        image_ids=tuple(keys),
        read=lambda image_id: _decode_entry(database.value(keys[image_id])),
        file_of=lambda image_id: str(database.path),
        facts=UNIT_FACTS,
        unreadable=unnamed,
        close=database.close,
    )


def write_uniter_lmdb(
    regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]
) -> int:
    """Write `feat_<thresholds>/` in MessagePack, the number of regions of each image beside it."""
    counts: dict[str, int] = {}

    def items() -> Iterator[tuple[bytes, bytes]]:
        for image in regions:
            name = uniter_name(image.image_id)
            counts[name] = len(image)
            arrays = uniter_arrays(image, object_labels)
            yield name.encode(), msgpack.packb(arrays, default=_pack_array, use_bin_type=True)
        yield LIST_KEY, json.dumps(list(counts)).encode()

    write_database(path / f"feat_{SUFFIX}", items())
    (path / f"nbb_{SUFFIX}.json").write_text(json.dumps(counts), encoding="utf-8")
    return len(counts)


def uniter_regions(arrays: Mapping[str, Any] | Npz) -> RawRegions:
    """Read one image from UNITER's arrays; its size becomes UNIT x UNIT.

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
    """Return UNITER's arrays of one image.

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


def image_id_of(name: str) -> str:
    """Rename `coco_train2014_000000000009.npz` to `COCO_train2014_000000000009`."""
    return _renamed(stem(name), _TO_OURS)


def uniter_name(image_id: str) -> str:
    """Rename `COCO_train2014_000000000009` to `coco_train2014_000000000009.npz`."""
    return f"{_renamed(image_id, _TO_UNITER)}.npz"


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


def _decode_list(value: bytes) -> list[bytes]:
    try:
        keys = from_json(value)
    except ValueError as error:
        raise InputError(str(error)) from error
    if not isinstance(keys, list):
        raise InputError(f"it must be a list, got {shown(keys)}")
    # Half a character of JSON's is no key of any entry, which is then said of it.
    return [str(key).encode(errors="surrogatepass") for key in keys]


def _decode_entry(value: bytes) -> RawRegions:
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
    """Encode an array as the package msgpack_numpy does."""
    return {
        b"nd": True,
        b"type": array.dtype.str,
        b"kind": b"",
        b"shape": list(array.shape),
        b"data": array.tobytes(),
    }


def _unpack_array(entry: dict[Any, Any]) -> Any:
    """Decode an array of numbers; its pickled and structured kinds are refused."""
    plain = {key.decode() if isinstance(key, bytes) else key: value for key, value in entry.items()}
    if "nd" not in plain:
        return plain
    if plain.get("kind") not in (None, b"", ""):
        raise ValueError(f"an array of the kind {plain['kind']!r} was found where numbers belong")
    array = np.frombuffer(plain["data"], np.dtype(str(plain["type"])))
    return array.reshape(plain["shape"]) if plain["nd"] else array[0]


UNITER_NPZ = CommunityFormat(
    what="directory of UNITER's .npz files: float16, relative boxes, soft labels",
    open=open_uniter_npz,
    write=write_uniter_npz,
)

UNITER_LMDB = CommunityFormat(
    what="LMDB of UNITER: its .npz arrays in MessagePack or compressed",
    open=open_uniter_lmdb,
    write=write_uniter_lmdb,
)
