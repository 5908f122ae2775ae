"""Tar shards: what is written is what stock tools read, and damage is never silent."""

import gc
import os
import pickle
import shutil
import subprocess
import tarfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from semvlp.errors import InputError
from semvlp.shards.codec import encode
from semvlp.shards.open import open_store
from semvlp.shards.record import TENSORS, Sample
from semvlp.shards.stores.tar_file import BLOCK, END, header, padded, scan
from semvlp.shards.stores.tar_store import TarStore, webdataset
from tests.shards.datasets import plan_of, sample_of, write_dataset

MEMBER = "regions.safetensors"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "set", refused=["img-1"])
    return tmp_path / "set"


def assert_equal(actual: Sample, expected: Sample) -> None:
    assert actual.key == expected.key
    assert actual.texts == expected.texts
    for name in ("image_id", "width", "height", "profile"):
        assert getattr(actual.regions, name) == getattr(expected.regions, name)
    for name in TENSORS:
        np.testing.assert_array_equal(
            getattr(actual.regions, name), getattr(expected.regions, name), strict=True
        )


def test_samples_come_back_in_the_order_of_the_plan(dataset: Path) -> None:
    with open_store(dataset) as store:
        assert isinstance(store, TarStore)
        assert list(store.image_ids) == ["img-0", "img-2", "img-3", "img-4"]
        for index, image_id in enumerate(store.image_ids):
            assert store.index_of(image_id) == index
            assert_equal(store.sample(index), sample_of(image_id))
            assert store.texts(index) == sample_of(image_id).texts
        assert "img-3" in store
        assert "img-1" not in store
        with pytest.raises(InputError, match="no image 'img-1'"):
            store.index_of("img-1")


def test_python_tarfile_sees_plain_ustar(dataset: Path) -> None:
    path = dataset / "shard-000000.tar"
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == ["img-0.json", "img-0.regions.safetensors"]
    for member in members:
        assert (member.type, member.mode, member.mtime) == (b"0", 0o444, 0)
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        assert member.pax_headers == {}
    assert path.read_bytes()[-1024:] == END
    assert path.stat().st_size == members[-1].offset_data + 2 * BLOCK + padded(members[-1].size)


def test_header_is_what_python_writes_up_to_unused_fields() -> None:
    info = tarfile.TarInfo("key.json")
    info.size, info.mode = 123456, 0o444
    ours, theirs = header("key.json", 123456), info.tobuf(tarfile.USTAR_FORMAT)
    # The device numbers, and with them the checksum, are left empty in some versions of Python.
    assert ours[:148] == theirs[:148]
    assert ours[156:329] == theirs[156:329]
    assert tarfile.TarInfo.frombuf(ours, "ascii", "strict").chksum == int(ours[148:154], 8)


def test_stock_webdataset_reads_the_shards(dataset: Path) -> None:
    with warnings.catch_warnings():
        # It leaves its last file to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        items = list(webdataset(dataset).decode())
        gc.collect()
    assert [item["__key__"] for item in items] == ["img-0", "img-2", "img-3", "img-4"]
    for item in items:
        expected = sample_of(item["__key__"])
        assert item["json"]["captions"] == list(expected.texts.captions)
        blob = item["regions.safetensors"]
        assert zlib.crc32(blob) == item["json"]["regions_crc32"]
        tensors = safetensors.numpy.load(blob)
        for name, (tensor, _, _) in TENSORS.items():
            np.testing.assert_array_equal(tensors[tensor], getattr(expected.regions, name))


@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no program `tar` here")
def test_the_program_tar_lists_and_unpacks_the_shards(dataset: Path, tmp_path: Path) -> None:
    shard = dataset / "shard-000001.tar"
    listed = subprocess.run(["tar", "-tf", shard], capture_output=True, text=True, check=True)
    names = [f"{key}.{kind}" for key in ("img-2", "img-3") for kind in ("json", MEMBER)]
    assert listed.stdout.split() == names
    assert listed.stderr == ""
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xf", shard, "-C", unpacked], check=True)
    text, blob = encode(sample_of("img-3"))
    assert (unpacked / "img-3.json").read_bytes() == text
    assert (unpacked / f"img-3.{MEMBER}").read_bytes() == blob


def test_hugging_face_datasets_reads_the_shards(dataset: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    files = [str(path) for path in sorted(dataset.glob("*.tar"))]
    items = datasets.load_dataset(
        "webdataset", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert items["__key__"][:] == ["img-0", "img-2", "img-3", "img-4"]
    for item in items:
        expected = sample_of(item["__key__"])
        assert item["json"]["captions"] == list(expected.texts.captions)
        tensors = safetensors.numpy.load(bytes(item[MEMBER]))
        np.testing.assert_array_equal(tensors["regions"], expected.regions.features)


def test_records_are_aligned_and_tile_the_file(dataset: Path) -> None:
    path = dataset / "shard-000001.tar"
    locations = [record.location for record in scan(path)]
    assert [location.key for location in locations] == ["img-2", "img-3"]
    assert locations[0].start == 0
    assert locations[0].end == locations[1].start
    assert locations[1].end + len(END) == path.stat().st_size


def test_texts_do_not_touch_the_regions(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    pread = os.pread

    def counting(descriptor: int, size: int, offset: int) -> bytes:
        read.append(size)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", counting)
    with open_store(dataset) as store:
        assert store.texts(2) == sample_of("img-3").texts
        text, _ = store.members(2)
    assert read[0] == len(text)


def test_a_store_survives_pickling_and_forking(dataset: Path) -> None:
    with open_store(dataset) as store, pickle.loads(pickle.dumps(store)) as copy:
        assert_equal(copy.sample(3), sample_of("img-4"))


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def _location(dataset: Path, key: str) -> tuple[Path, dict[str, int]]:
    for path in sorted(dataset.glob("*.tar")):
        for record in scan(path):
            if record.location.key == key:
                place = record.location
                return path, {
                    "json header": place.start + 3,
                    "json": place.json_offset + place.json_bytes // 2,
                    "regions header": place.regions_offset - BLOCK + 130,
                    "regions": place.regions_offset + place.regions_bytes - 1,
                }
    raise AssertionError(key)


@pytest.mark.parametrize("where", ["json header", "json", "regions header", "regions"])
def test_a_flipped_bit_is_one_error_naming_shard_and_key(dataset: Path, where: str) -> None:
    path, offsets = _location(dataset, "img-3")
    _flip(path, offsets[where])
    with open_store(dataset) as store:
        store.sample(1)
        with pytest.raises(InputError, match=r"shard-000001\.tar, offset \d+, sample img-3"):
            store.sample(2)
        with pytest.raises(InputError, match="img-3"):
            store.members(2)


def test_a_flipped_bit_in_the_texts_is_found_without_reading_the_regions(dataset: Path) -> None:
    path, offsets = _location(dataset, "img-3")
    _flip(path, offsets["json"])
    with open_store(dataset) as store, pytest.raises(InputError, match="img-3"):
        store.texts(2)


@pytest.mark.parametrize("cut", [1, 1024, 1500])
def test_a_shard_cut_short_is_refused_at_open(dataset: Path, cut: int) -> None:
    path = dataset / "shard-000001.tar"
    os.truncate(path, path.stat().st_size - cut)
    with pytest.raises(InputError, match=r"shard-000001\.tar must have \d+ bytes, but has \d+"):
        open_store(dataset)


def test_a_missing_shard_is_refused_at_open(dataset: Path) -> None:
    (dataset / "shard-000002.tar").unlink()
    with pytest.raises(InputError, match=r"shard-000002\.tar is missing"):
        open_store(dataset)


def test_a_missing_or_foreign_index_is_refused_at_open(dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "other", plan_of(3))
    index = dataset / "index.safetensors"
    index.write_bytes((tmp_path / "other" / "index.safetensors").read_bytes())
    with pytest.raises(InputError, match="does not hold the 4 samples"):
        open_store(dataset)
    index.write_bytes(b"no index")
    with pytest.raises(InputError, match="damaged"):
        open_store(dataset)
    index.unlink()
    with pytest.raises(InputError, match="missing"):
        open_store(dataset)


@pytest.mark.parametrize("damage", ["flip", "zero header", "zero page", "cut", "garbage behind"])
def test_the_scan_never_takes_damage_for_the_end(dataset: Path, damage: str) -> None:
    path, offsets = _location(dataset, "img-3")
    data = bytearray(path.read_bytes())
    start = offsets["json header"] - 3
    match damage:
        case "flip":
            data[offsets["json header"]] ^= 1
        case "zero header":
            data[start : start + BLOCK] = bytes(BLOCK)
        case "zero page":
            data[start:] = bytes(len(data) - start)
        case "cut":
            del data[start:]
        case "garbage behind":
            data += bytes(BLOCK)
    path.write_bytes(data)
    whole: list[str] = []
    keys = (record.location.key for record in scan(path))
    with pytest.raises(InputError, match=r"shard-000001\.tar, offset \d+"):
        # Unlike a list made of it, this keeps what came before the error.
        whole.extend(keys)
    assert whole == (["img-2", "img-3"] if damage == "garbage behind" else ["img-2"])


def test_a_pattern_opens_some_shards_alone(tmp_path: Path) -> None:
    write_dataset(tmp_path, plan_of(9), refused=["img-3"])
    with open_store(tmp_path / "shard-00000[13].tar") as store:
        assert list(store.image_ids) == ["img-2", "img-6", "img-7"]
        assert list(store.shard_sizes) == [1, 2]
        assert [store.sample(index).key for index in range(3)] == list(store.image_ids)
        copy = pickle.loads(pickle.dumps(store))
        assert copy.sample(2).key == "img-7"
        assert store.manifest.counts["samples"] == 3
    with open_store(tmp_path / "shard-000004.tar") as one:
        assert list(one.image_ids) == ["img-8"]
    with pytest.raises(InputError, match=r"no shard of .* fits other-\*\.tar"):
        open_store(tmp_path / "other-*.tar")
