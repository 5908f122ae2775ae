"""The LMDB store: its layout, its life over forks and in two hands, damage."""

import json
import os
import pickle
from pathlib import Path

import lmdb
import numpy as np
import pytest
import safetensors.numpy

from semvlp.errors import InputError
from semvlp.shards.codec import encode
from semvlp.shards.open import open_store
from semvlp.shards.stores import lmdb_store
from semvlp.shards.stores.lmdb_store import LmdbStore, open_environment, put_all, split_value
from tests.shards.datasets import plan_of, sample_of, write_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    plan = plan_of(image_ids=("b", "a", "d", "c"))
    write_dataset(tmp_path / "set", plan, format="lmdb", refused=["d"])
    return tmp_path / "set"


def test_samples_come_back_in_the_order_of_the_plan_not_of_the_keys(dataset: Path) -> None:
    with open_store(dataset) as store:
        assert isinstance(store, LmdbStore)
        assert list(store.image_ids) == ["b", "a", "c"]
        for index, image_id in enumerate(store.image_ids):
            assert store.index_of(image_id) == index
            sample, expected = store.sample(index), sample_of(image_id)
            np.testing.assert_array_equal(sample.regions.features, expected.regions.features)
            assert sample.texts == store.texts(index) == expected.texts
        assert "d" not in store
        with pytest.raises(InputError, match="no image 'd'"):
            store.index_of("d")


def test_the_file_is_plain_lmdb_of_the_old_data_format(dataset: Path) -> None:
    path = str(dataset / "regions.lmdb")
    with lmdb.open(path, subdir=False, readonly=True, lock=False) as environment:
        assert environment.lib_version()[0] == 0
        with environment.begin() as transaction:
            items = dict(transaction.cursor())
    assert list(items) == [b"!keys", b"!meta", b"a", b"b", b"c"]
    assert items[b"!keys"] == b"b\na\nc"
    meta = json.loads(items[b"!meta"])
    assert meta["counts"] == {"samples": 3, "captions": 3, "questions": 3, "errors": 1}
    text, blob = split_value(items[b"c"])
    assert (text, bytes(blob)) == encode(sample_of("c"))
    assert items[b"c"] == bytes(blob) + text
    assert safetensors.numpy.load(bytes(blob))["boxes"].dtype == np.float32


def test_two_stores_of_one_file_in_one_process(dataset: Path) -> None:
    first = open_store(dataset)
    with open_store(dataset) as second:
        assert second.sample(0).key == first.sample(0).key
    assert first.sample(1).key == "a"
    first.close()
    with open_store(dataset) as again:
        assert again.sample(2).key == "c"


def test_a_pickled_store_opens_its_file_again(dataset: Path) -> None:
    with open_store(dataset) as store, pickle.loads(pickle.dumps(store)) as copy:
        assert copy.sample(2).key == "c"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_store_opened_before_a_fork_reads_on_both_sides(dataset: Path) -> None:
    with open_store(dataset) as store:
        store.sample(0)
        child = os.fork()
        if not child:
            try:
                with open_store(dataset) as another:
                    os._exit(0 if store.sample(1).key == another.sample(1).key == "a" else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert store.sample(2).key == "c"


def test_readahead_is_on(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}
    real = lmdb.open

    def spy(path: str, **options: object) -> object:
        given.update(options)
        return real(path, **options)

    monkeypatch.setattr(lmdb_store.lmdb, "open", spy)
    with open_store(dataset):
        assert given["readahead"] is True
        assert given["readonly"] is True
        assert given["lock"] is False


def test_the_map_grows_with_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "FIRST_MAP_BYTES", 1 << 16)
    items = [(b"%d" % number, bytes([number]) * 50_000) for number in range(9)]
    environment = open_environment(tmp_path / "grown", readonly=False)
    put_all(environment, items[:4])
    put_all(environment, items[4:])
    environment.close()
    environment = open_environment(tmp_path / "grown")
    with environment.begin() as transaction:
        assert list(transaction.cursor()) == items
    environment.close()


def test_a_file_that_is_no_lmdb_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no lmdb" * 1000)
    with pytest.raises(InputError, match="cannot be opened as an LMDB"):
        open_environment(tmp_path / "file")


def test_a_flipped_bit_names_file_and_key(dataset: Path) -> None:
    path = dataset / "regions.lmdb"
    data = bytearray(path.read_bytes())
    features = sample_of("c").regions.features.tobytes()
    assert data.count(features) == 1
    data[data.index(features)] ^= 1
    path.write_bytes(data)
    with open_store(dataset) as store:
        assert store.sample(1).key == "a"
        with pytest.raises(InputError, match=r"regions\.lmdb, sample c: .*checksum"):
            store.sample(2)


def test_a_file_cut_short_or_missing_is_refused_at_open(dataset: Path) -> None:
    path = dataset / "regions.lmdb"
    os.truncate(path, path.stat().st_size - 4096)
    with pytest.raises(InputError, match=r"regions\.lmdb must have \d+ bytes"):
        open_store(dataset)
    path.unlink()
    with pytest.raises(InputError, match=r"regions\.lmdb is missing"):
        open_store(dataset)


def test_a_value_without_regions_is_an_input_error() -> None:
    with pytest.raises(InputError, match="does not start with regions"):
        split_value(b'{"key": "a"}')
