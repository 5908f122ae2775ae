"""Odd values for every field of every format, and data sets that have them.

Each image has one field replaced by one value that no extraction writes.
"""

import base64
import io
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from semvlp.shards.stores.lmdb_store import open_environment, put_all

BOXES = np.array([[1, 2, 19, 9], [0, 0, 5, 5]], np.float32)
FEATURES = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
GOOD = tuple(f"good-{number}" for number in range(12))

Fields = dict[str, Any]
Images = Mapping[str, Fields]


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2**31, 10**30, 10**400, 3.7, float("nan"), float("inf"), -1e300),
    *("", "text", "7", "\ud800", "\x00", b"", b"\xff\xfe", [], {}, set(), (), [[1, 2], [3]]),
    *([None, None], {"a": 1}, nested(200), 2 + 3j, range(3)),
    *(np.array(kind) for kind in ("x", b"x", None, np.nan, 1 + 2j, "2020-01-01")),
    *(np.zeros(shape) for shape in ((), (0,), (0, 4), (2,), (3,), (3, 4), (2, 3, 4), (1, 1, 1, 1))),
    *(np.full((2, 4), value) for value in (np.nan, np.inf, 1e39, -5.0, 1e5, 2 + 1j)),
    *(np.full(2, value) for value in (np.nan, 3.5, -7, 40_000, 2**62, np.uint64(2**64 - 1))),
    *(
        np.array(["x", "y"]),
        np.array([b"x", b"y"]),
        np.array([None, 3]),
        np.array([[1], [[2]]], object),
    ),
    np.zeros(2, "datetime64[s]"),
    np.zeros(2, [("a", "f4")]),
    np.zeros((2, 4), np.bool_),
)
"""For formats that hold any value of Python's."""


def base64_of(values: Any, kind: str) -> bytes:
    return base64.b64encode(np.array(values, kind).tobytes())


TEXTS: tuple[bytes, ...] = (
    *(b"", b" ", b"-1", b"0", b"1", b"7", b"2.0", b"3.7", b"1e3", b"nan", b"inf", b"None", b"[]"),
    *(
        b"9" * 30,
        b"9" * 5000,
        b"\xff\xfe",
        b"\x00",
        "٣".encode(),
        b"0x10",
        b"1_0",
        b"=",
        b"A",
        b"AAA=",
    ),
    *(base64_of(value, "<f4") for value in (np.nan, np.inf, [np.nan] * 8, [1e30] * 8, [-9] * 8)),
    *(base64_of(value, "<i8") for value in ([-1, -1], [2**40, 1], [40_000, 0], [1])),
    *(base64_of([1.0] * count, "<f4") for count in (0, 1, 7, 9, 800)),
)
"""For formats of text."""

JSONS: tuple[str, ...] = (
    *("null", "true", "-1", "0", "3.7", "1e400", "NaN", "Infinity", "[]", "{}", '""', '"text"'),
    *(
        r'"\ud800"',
        "[[1, 2], [3]]",
        "[null]",
        '{"a": 1}',
        "9" * 30,
        "9" * 5000,
        "[" * 500 + "]" * 500,
    ),
    '"AAAA"',
)
"""For formats of JSON, as they stand in the file."""


NUMBERS: tuple[float, ...] = (np.nan, np.inf, -np.inf, -5.0, 0.0, 1e5, 1e38, -1, 1.5, 10**9, 2**62)
"""For files of arrays of numbers."""


def cases(fields: Fields, values: tuple[Any, ...]) -> Iterator[tuple[str, Fields]]:
    """Yield good images, then those with one odd field each."""
    for image_id in GOOD:
        yield image_id, fields
    for name in fields:
        for number, value in enumerate(values):
            yield f"{name}-{number}", {**fields, name: value}


def _lxmert() -> Fields:
    return {
        "img_h": b"10",
        "img_w": b"20",
        "objects_id": base64_of([3, 4], "<i8"),
        "objects_conf": base64_of([0.5, 0.25], "<f4"),
        "attrs_id": base64_of([5, 6], "<i8"),
        "attrs_conf": base64_of([0.5, 0.75], "<f4"),
        "num_boxes": b"2",
        "boxes": base64_of(BOXES, "<f4"),
        "features": base64_of(FEATURES, "<f4"),
    }


def _rows(folder: Path, images: Images) -> None:
    rows = [b"\t".join((name.encode(), *fields.values())) for name, fields in images.items()]
    (folder / "all.tsv").write_bytes(b"".join(row + b"\n" for row in rows))


def _butd() -> Fields:
    names = ("img_w", "img_h", "num_boxes", "boxes", "features")
    return {name: _lxmert()[name] for name in names}


def _vinvl() -> Fields:
    relative = np.concatenate([FEATURES, BOXES / [20, 10, 20, 10], np.zeros((2, 2))], axis=1)
    return {
        "num_boxes": "2",
        "features": json.dumps(base64_of(relative, "<f4").decode()),
        "height": "10",
        "width": "20",
        "class": '"dog"',
        "conf": "0.5",
    }


def _vinvl_files(folder: Path, images: Images) -> None:
    """Write the files of the captioning set: features, sizes and labels by image."""
    with (
        (folder / "a.feature.tsv").open("w") as features,
        (folder / "a.hw.tsv").open("w") as sizes,
        (folder / "a.label.tsv").open("w") as labels,
    ):
        for name, field in images.items():
            both = f'"num_boxes": {field["num_boxes"]}, "features": {field["features"]}'
            features.write(f"{name}\t{{{both}}}\n")
            sizes.write(f'{name}\t[{{"height": {field["height"]}, "width": {field["width"]}}}]\n')
            one = f'{{"class": {field["class"]}, "rect": [0, 0, 1, 1], "conf": {field["conf"]}}}'
            labels.write(f"{name}\t[{one}, {one}]\n")


def _uniter() -> Fields:
    return {
        "norm_bb": np.array([[0.1, 0.2, 0.5, 0.6, 0.4, 0.4], [0, 0, 1, 1, 1, 1]], np.float16),
        "features": FEATURES.astype(np.float16),
        "conf": np.array([[0.9], [0.3]], np.float16),
        "soft_labels": np.eye(2, 5, dtype=np.float16),
    }


def npy(value: Any) -> bytes:
    """Return the file that NumPy makes of any value."""
    if not isinstance(value, np.ndarray):
        value, array = np.empty((), object), value
        value[()] = array
    stream = io.BytesIO()
    np.save(stream, value, allow_pickle=True)
    return stream.getvalue()


def _npz_files(folder: Path, images: Images) -> None:
    import zipfile

    for name, fields in images.items():
        with zipfile.ZipFile(folder / f"{name}.npz", "w") as archive:
            for field, value in fields.items():
                archive.writestr(f"{field}.npy", npy(value))


def _milvlg() -> Fields:
    labels = {"objects_id": np.array([5, 7]), "objects_conf": np.array([0.5, 0.25], np.float32)}
    return {
        "x": FEATURES,
        "bbox": BOXES,
        "num_bbox": np.array(2),
        "image_h": np.array(10),
        "image_w": np.array(20),
        "info": labels,
    }


def _mmf() -> Fields:
    return {
        "features": FEATURES,
        "bbox": BOXES,
        "num_boxes": 2,
        "objects": np.array([1, 2]),
        "cls_prob": np.full((2, 4), 0.25, np.float32),
        "image_width": 20,
        "image_height": 10,
    }


def _mmf_files(folder: Path, images: Images) -> None:
    for name, fields in images.items():
        info = {field: value for field, value in fields.items() if field != "features"}
        (folder / f"{name}.npy").write_bytes(npy(fields["features"]))
        (folder / f"{name}_info.npy").write_bytes(npy(info))


def _vilbert() -> Fields:
    size = {"image_h": 10, "image_w": 20, "num_boxes": 2}
    return {**size, "boxes": BOXES, "features": FEATURES}


def _volta() -> Fields:
    labels = {"obj_id": np.array([3, 4]), "obj_conf": np.array([0.5, 0.25], np.float32)}
    return {**labels, "boxes": BOXES, "features": FEATURES, "img_w": 20, "img_h": 10}


def _hdf5() -> Fields:
    arrays = ("image_features", "image_bb", "spatial_features")
    return {**dict.fromkeys(arrays), "end": None, "place": None}


def _hdf5_file(folder: Path, images: Images) -> None:
    """Write two rows an image; an odd number stands in all of them, as their end, or as place."""
    h5py = pytest.importorskip("h5py")
    spatial = np.concatenate([BOXES / [20, 10, 20, 10], np.zeros((2, 2))], axis=1)
    good = {"image_features": FEATURES, "image_bb": BOXES, "spatial_features": spatial}
    places, ends = {}, []
    with h5py.File(folder / "all.hdf5", "w") as file:
        for name, rows in good.items():
            odd = [fields[name] for fields in images.values()]
            filled = [rows if value is None else np.full_like(rows, value) for value in odd]
            file[name] = np.concatenate(filled).astype(np.float32)
        for number, (name, fields) in enumerate(images.items()):
            end, place = fields["end"], fields["place"]
            finite = end is not None and np.isfinite(end)
            ends.append(
                int(min(end, 2**62)) if finite else 2 * number + 2 if end is None else -(2**40)
            )
            places[name] = number if place is None else place
        file["pos_boxes"] = np.stack([np.arange(len(ends)) * 2, np.array(ends)], axis=1)
    (folder / "all_imgid2idx.pkl").write_bytes(pickle.dumps(places))


def _database(path: Path, items: Mapping[bytes, bytes]) -> None:
    environment = open_environment(path, readonly=False)
    put_all(environment, items.items())
    environment.close()


def _pickles(folder: Path, images: Images) -> None:
    items = {name.encode(): pickle.dumps(fields) for name, fields in images.items()}
    _database(folder, {**items, b"keys": pickle.dumps(list(items))})


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        kind = {b"type": value.dtype.str, b"kind": b"", b"shape": value.shape}
        return {b"nd": True, **kind, b"data": b"" if value.dtype.hasobject else value.tobytes()}
    return repr(value)


def _messages(folder: Path, images: Images) -> None:
    def entry(fields: Fields) -> bytes:
        try:
            return bytes(msgpack.packb(fields, default=_packed, unicode_errors="surrogatepass"))
        except (OverflowError, ValueError):  # a number or a depth that MessagePack has no word for
            return bytes(msgpack.packb({name: None for name in fields}))

    items = {f"{name}.npz".encode(): entry(fields) for name, fields in images.items()}
    listed = json.dumps([key.decode() for key in items]).encode()
    _database(folder, {**items, b"__keys__": listed})


Write = Callable[[Path, Images], None]
FORMATS: dict[str, tuple[Fields, tuple[Any, ...], Write]] = {
    "lxmert-tsv": (_lxmert(), TEXTS, _rows),
    "butd-tsv": (_butd(), TEXTS, _rows),
    "vinvl-tsv": (_vinvl(), JSONS, _vinvl_files),
    "butd-hdf5": (_hdf5(), NUMBERS, _hdf5_file),
    "uniter-npz": (_uniter(), VALUES, _npz_files),
    "uniter-lmdb": (_uniter(), VALUES, _messages),
    "milvlg-npz": (_milvlg(), VALUES, _npz_files),
    "mmf-npy": (_mmf(), VALUES, _mmf_files),
    "mmf-lmdb": (_mmf(), VALUES, _pickles),
    "vilbert-lmdb": (_vilbert(), VALUES, _pickles),
    "volta-lmdb": (_volta(), VALUES, _pickles),
}
"""Format -> the fields of a good image, what they are replaced by, how a data set is written."""
COUNT = sum(len(fields) * len(values) for fields, values, _ in FORMATS.values())
