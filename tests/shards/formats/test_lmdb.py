"""UNITER's, ViLBERT's and VOLTA's databases, made as the original scripts make them."""

import base64
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from semvlp.errors import InputError
from semvlp.shards.formats.foreign_lmdb import ForeignLmdb, community_key
from semvlp.shards.formats.raw import to_regions
from semvlp.shards.formats.table import load_format
from semvlp.shards.record import Regions
from semvlp.shards.stores.lmdb_store import open_environment, put_all

BOXES = np.array([[1, 2, 19, 9], [0, 0, 5, 5]], np.float32)
FEATURES = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


def database(path: Path, items: dict[bytes, bytes]) -> Path:
    path.mkdir(parents=True)
    environment = open_environment(path, readonly=False)
    put_all(environment, items.items())
    environment.close()
    return path


def read_one(path: Path, name: str, image_id: str) -> Regions:
    dataset = load_format(name).open(path)
    try:
        return to_regions(dataset.read(image_id), image_id, profile="p")
    finally:
        dataset.close()


def pickled(path: Path, **entries: Any) -> Path:
    keys = [key.encode() for key in entries]
    items = {key.encode(): pickle.dumps(entry) for key, entry in entries.items()}
    return database(path, {**items, b"keys": pickle.dumps(keys)})


def vilbert_entry(**changes: Any) -> dict[str, Any]:
    """As script/convert_to_lmdb.py packs it; its classes are wrong and must not be used."""
    return {
        "image_id": 42,
        "image_h": 10,
        "image_w": 20,
        "num_boxes": 2,
        "boxes": BOXES,
        "features": FEATURES,
        "objects": np.array([9, 9]),
        "cls_prob": np.ones((2, 1601), np.float32),
        **changes,
    }


def test_a_vilbert_entry(tmp_path: Path) -> None:
    path = pickled(tmp_path / "db", **{"42": vilbert_entry()})
    regions = read_one(path, "vilbert-lmdb", "42")
    assert (regions.width, regions.height) == (20, 10)
    assert regions.boxes.tolist() == BOXES.tolist()
    assert regions.features.tolist() == FEATURES.tolist()
    assert not regions.object_ids.any()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_boxes": 3}, "3 regions are stated"),
        ({"features": FEATURES[:, :2].copy()[:1]}, None),
        ({"image_w": None}, "image_w must be a whole number"),
        ({"features": None}, "column features is damaged"),
    ],
)
def test_damaged_vilbert_entries(
    tmp_path: Path, changes: dict[str, Any], reason: str | None
) -> None:
    path = pickled(tmp_path / "db", **{"42": vilbert_entry(**changes)})
    if reason is None:
        # Two numbers shared by two regions: still a matrix, refused by its width later.
        assert read_one(path, "vilbert-lmdb", "42").features.shape == (2, 1)
        return
    with pytest.raises(InputError, match=reason):
        read_one(path, "vilbert-lmdb", "42")


def test_an_entry_that_lacks_a_field_or_is_no_dict(tmp_path: Path) -> None:
    entry = vilbert_entry()
    del entry["image_h"]
    path = pickled(tmp_path / "db", a=entry, b=[1])
    with pytest.raises(InputError, match="lacks 'image_h'"):
        read_one(path, "vilbert-lmdb", "a")
    with pytest.raises(InputError, match="must be a dict, got list"):
        read_one(path, "vilbert-lmdb", "b")


def test_a_listed_key_without_entry_is_refused(tmp_path: Path) -> None:
    items = {b"1": pickle.dumps(vilbert_entry()), b"keys": pickle.dumps([b"1", b"2"])}
    dataset = load_format("vilbert-lmdb").open(database(tmp_path / "db", items))
    assert dataset.image_ids == ("1", "2")
    with pytest.raises(InputError, match="lists the key b'2'"):
        dataset.read("2")
    dataset.close()


@pytest.mark.parametrize("listed", [None, pickle.dumps(["7"])])
def test_keys_may_be_missing_or_text(tmp_path: Path, listed: bytes | None) -> None:
    items = {b"7": pickle.dumps(vilbert_entry())}
    if listed is not None:
        items[b"keys"] = listed
    assert len(read_one(database(tmp_path / "db", items), "vilbert-lmdb", "7")) == 2


def b64(values: Any, kind: str) -> str:
    return base64.b64encode(np.array(values, kind).tobytes()).decode()


def test_a_volta_entry_of_text(tmp_path: Path) -> None:
    """As data/mscoco/convert_coco_lmdb.py packs a row of its TSV."""
    entry = {
        "img_id": "COCO_train2014_000000000042",
        "img_h": "10",
        "img_w": "20",
        "objects_id": b64([3, 4], "<i8"),
        "objects_conf": b64([0.25, 0.5], "<f4"),
        "attrs_id": b64([5, 6], "<i8"),
        "attrs_conf": b64([0.5, 0.75], "<f4"),
        "num_boxes": "2",
        "boxes": b64(BOXES, "<f4"),
        "features": b64(FEATURES, "<f4"),
        "cls_prob": None,
        "attrs": None,
        "classes": None,
    }
    regions = read_one(pickled(tmp_path / "db", **{"42": entry}), "volta-lmdb", "42")
    assert (regions.width, regions.height) == (20, 10)
    assert regions.object_ids.tolist() == [4, 3]
    assert regions.attribute_ids.tolist() == [6, 5]
    assert regions.features.tolist() == FEATURES[::-1].tolist()


def test_a_volta_entry_of_arrays(tmp_path: Path) -> None:
    """As features_extraction/h5_to_lmdb.py packs a group of its H5 file."""
    entry = {
        "obj_id": np.array([3, 4]),
        "obj_conf": np.array([0.25, 0.5], np.float32),
        "attr_id": np.array([5, 6]),
        "attr_conf": np.array([0.5, 0.75], np.float32),
        "boxes": BOXES,
        "features": FEATURES,
        "img_w": np.int64(20),
        "img_h": np.int64(10),
        "img_id": "a",
    }
    regions = read_one(pickled(tmp_path / "db", a=entry), "volta-lmdb", "a")
    assert (regions.width, regions.height) == (20, 10)
    assert regions.object_ids.tolist() == [4, 3]
    assert regions.boxes.tolist() == BOXES[::-1].tolist()


def uniter_arrays() -> dict[str, Any]:
    labels = np.zeros((2, 5), np.float16)
    labels[0, 3], labels[1, 1] = 0.3, 0.9
    boxes = [[0.1, 0.2, 0.5, 0.6, 0.4, 0.4], [0, 0, 1, 1, 1, 1]]
    return {
        "norm_bb": np.array(boxes, np.float16),
        "features": FEATURES.astype(np.float16),
        "conf": np.array([[0.3], [0.9]], np.float16),
        "soft_labels": labels,
    }


def as_msgpack(arrays: dict[str, Any]) -> bytes:
    """As msgpack_numpy packs it, written out from its documentation."""

    def encode(array: Any) -> dict[bytes, Any]:
        return {
            b"nd": True,
            b"type": array.dtype.str,
            b"kind": b"",
            b"shape": array.shape,
            b"data": array.tobytes(),
        }

    return bytes(msgpack.packb(arrays, default=encode, use_bin_type=True))


def as_npz(arrays: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize("pack", [as_msgpack, as_npz])
@pytest.mark.parametrize("above", [False, True])
def test_a_uniter_entry(
    tmp_path: Path, pack: Callable[[dict[str, Any]], bytes], above: bool
) -> None:
    name = b"coco_val2014_000000000042.npz"
    items = {name: pack(uniter_arrays()), b"__keys__": json.dumps([name.decode()]).encode()}
    path = database(tmp_path / "img_db" / "feat_th0.2_max100_min10", items)
    image_id = "COCO_val2014_000000000042"
    regions = read_one(path.parent if above else path, "uniter-lmdb", image_id)
    assert regions.object_ids.tolist() == [0, 2]
    assert regions.features.tolist() == FEATURES[::-1].tolist()
    np.testing.assert_allclose(regions.boxes[1], [100, 200, 500, 600], atol=0.3)


def test_the_package_msgpack_numpy_agrees(tmp_path: Path) -> None:
    package = pytest.importorskip("msgpack_numpy")
    value = msgpack.packb(uniter_arrays(), default=package.encode, use_bin_type=True)
    items = {b"a.npz": value, b"__keys__": b'["a.npz"]'}
    assert len(read_one(database(tmp_path / "db", items), "uniter-lmdb", "a")) == 2


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xc1", "damaged MessagePack"),
        (b"", "damaged MessagePack"),
        (as_msgpack(uniter_arrays())[:-5], "damaged MessagePack"),
        (msgpack.packb([1]), "must be a dict of arrays"),
        (as_npz(uniter_arrays())[:-50], "not an .npz file"),
        (
            msgpack.packb({"norm_bb": {b"nd": True, b"kind": b"O", b"data": b""}}),
            "of the kind b'O'",
        ),
    ],
)
def test_damaged_uniter_entries(tmp_path: Path, value: bytes, reason: str) -> None:
    path = database(tmp_path / "db", {b"a.npz": value, b"__keys__": b'["a.npz"]'})
    with pytest.raises(InputError, match=reason):
        read_one(path, "uniter-lmdb", "a")


def test_no_database_and_several(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.mdb was expected, found none"):
        load_format("uniter-lmdb").open(tmp_path)
    for name in ("one", "two"):
        database(tmp_path / name, {b"a": b"b"})
    with pytest.raises(InputError, match="found one, two below it; name one"):
        load_format("uniter-lmdb").open(tmp_path)


def cut(path: Path, size: int) -> None:
    with (path / "data.mdb").open("r+b") as file:
        file.truncate(size)


def test_a_database_of_which_nothing_is_left_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    path = pickled(tmp_path / "db", **{"42": vilbert_entry(features=np.ones((2, 9000)))})
    cut(path, 2 * 4096)
    with pytest.raises(InputError, match=r"data\.mdb must have .* it was cut short"):
        load_format("vilbert-lmdb").open(path)


@pytest.mark.parametrize(
    ("image_id", "key"),
    [
        ("COCO_train2014_000000150367", "150367"),
        ("000000000139", "139"),
        ("2354786", "2354786"),
        ("n54424", "n54424"),
        ("dev-850-0-img0", "dev-850-0-img0"),
        ("flickr_0012", "flickr_0012"),
    ],
)
def test_keys_are_those_the_readers_ask_for(image_id: str, key: str) -> None:
    assert community_key(image_id) == key


def test_closing_a_database_lets_it_be_opened_again(tmp_path: Path) -> None:
    path = database(tmp_path / "db", {b"a": b"b"})
    for _ in range(2):
        opened = ForeignLmdb(path)
        assert opened.listed(b"z", list) == ([b"a"], {})
        opened.close()
