"""The reading process gives what the stream gives, and its end or the trainer's is noticed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from semvlp.errors import ConfigError, InputError, SemVLPError
from semvlp.shards.batch import Visit
from semvlp.shards.open import open_store
from semvlp.shards.record import Regions
from semvlp.shards.stores.store import Store
from semvlp.shards.stores.tar_file import scan
from semvlp.shards.stream.reader import Reader
from semvlp.shards.stream.stream import Stream
from tests.shards.datasets import plan_of, write_dataset

SETTINGS = {"seed": 3, "batch_size": 4}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Store]]:
    folder = tmp_path_factory.mktemp("reader")
    write_dataset(folder / "a", plan_of(7), refused=["img-2"])
    others = tuple(f"other-{number}" for number in range(4))
    write_dataset(folder / "b", plan_of(image_ids=others), format="lmdb")
    with open_store(folder / "a") as tars, open_store(folder / "b") as database:
        yield [tars, database]


def assert_same(actual: Sequence[Visit], expected: Sequence[Visit]) -> None:
    assert len(actual) == len(expected) > 0
    for one, two in zip(actual, expected, strict=True):
        assert (one.position, one.epoch, one.text) == (two.position, two.epoch, two.text)
        assert (one.sample.key, one.sample.texts) == (two.sample.key, two.sample.texts)
        assert one.negative == two.negative
        for field in fields(Regions):
            np.testing.assert_array_equal(
                getattr(one.sample.regions, field.name), getattr(two.sample.regions, field.name)
            )


def reader_pid(reader: Reader) -> int:
    assert reader._worker is not None
    pid = reader._worker._process.pid
    assert pid is not None
    return pid


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("slots", [2, 5])
def test_batches_are_those_of_the_stream(stores: list[Store], slots: int) -> None:
    settings: dict[str, Any] = {**SETTINGS, "weights": [2, 1], "order": "block"}
    before = set(os.listdir("/dev/shm"))
    with Reader(Stream(stores, **settings), slots=slots) as reader:
        for batch, expected in islice(zip(reader, Stream(stores, **settings), strict=True), 12):
            visits = batch.visits()
            assert_same(visits, expected)
            rows = np.concatenate([visit.sample.regions.features for visit in visits])
            np.testing.assert_array_equal(batch.columns["features"], rows)
            lengths = [len(visit.sample.regions) for visit in visits]
            assert np.diff(batch.starts).tolist() == batch.lengths == lengths
        pid = reader_pid(reader)
        assert set(os.listdir("/dev/shm")) == before
    assert not is_alive(pid)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_state_is_what_was_taken_and_not_what_was_read_ahead(
    stores: list[Store], world_size: int
) -> None:
    whole = [visit for batch in islice(Stream(stores, **SETTINGS), 8) for visit in batch]
    with Reader(Stream(stores, **SETTINGS)) as reader:
        for _ in range(3):
            next(reader)
        state = reader.state_dict()
    assert state["position"] == 12
    taken: list[Visit] = []
    streams = [
        Stream(stores, **SETTINGS, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    readers = [Reader(stream) for stream in streams]
    for reader in readers:
        next(reader)
        reader.load_state_dict(state)
    for _ in range(5):
        for reader in readers:
            # A batch lasts until the next one is taken; the comparison comes first.
            visits = next(reader).visits()
            assert_same(visits, whole[12 + len(taken) :][: len(visits)])
            taken += visits
    for reader in readers:
        reader.close()
    assert len(taken) == 20


def test_a_damaged_sample_is_an_error_with_file_and_key(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    path = tmp_path / "shard-000001.tar"
    location = next(scan(path)).location
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(location.regions_offset + location.regions_bytes - 1)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with (
        open_store(tmp_path) as store,
        Reader(Stream([store], seed=0, batch_size=2, order="sequential")) as reader,
    ):
        assert [visit.sample.key for visit in next(reader).visits()] == ["img-0", "img-1"]
        for _ in range(2):
            with pytest.raises(InputError, match=r"shard-000001\.tar.*img-2.*checksum"):
                next(reader)
        assert reader.state_dict()["position"] == 2


def test_the_end_of_the_reader_is_an_error(stores: list[Store]) -> None:
    with Reader(Stream(stores, **SETTINGS)) as reader:
        next(reader)
        os.kill(reader_pid(reader), signal.SIGKILL)
        with pytest.raises(SemVLPError, match=r"process \d+ that reads the shards ended by signal"):
            # Some batches were ready before.
            list(islice(reader, 10))
        # What was not taken is read again by another process.
        assert len(next(reader)) == 4


PARENT = """
import os, signal, sys
from pathlib import Path
from semvlp.shards.stream.reader import Reader
from semvlp.shards.open import open_store
from semvlp.shards.stream.stream import Stream
if __name__ == "__main__":
    stores = [open_store(Path(path)) for path in sys.argv[1:]]
    reader = Reader(Stream(stores, seed=3, batch_size=4))
    next(reader)
    print(reader._worker._process.pid, flush=True)
    ENDING
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL), ("raise SystemExit(3)", 3)],
)
def test_the_reader_ends_with_the_process_it_reads_for(
    stores: list[Store], tmp_path: Path, ending: str, code: int
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.replace("ENDING", ending))
    command = [sys.executable, str(script), *(str(store.path) for store in stores)]
    before = set(os.listdir("/dev/shm"))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == code
    deadline = time.monotonic() + 60
    while is_alive(int(done.stdout)):
        assert time.monotonic() < deadline, "the reader is an orphan"
        time.sleep(0.05)
    assert set(os.listdir("/dev/shm")) == before


def test_signals_to_the_group_do_not_end_the_reader(stores: list[Store]) -> None:
    with Reader(Stream(stores, **SETTINGS)) as reader:
        next(reader)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(reader_pid(reader), number)
        for _ in range(4):
            assert len(next(reader)) == 4


def test_a_ring_does_without_memory_files(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with Reader(Stream(stores, **SETTINGS)) as reader:
        assert_same(next(reader).visits(), next(Stream(stores, **SETTINGS)))


def test_the_ring_is_pinned_as_long_as_it_is_used(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Runtime:
        pinned: ClassVar[dict[int, int]] = {}

        def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
            self.pinned[address] = size
            return 0

        def cudaHostUnregister(self, address: int) -> int:
            del self.pinned[address]
            return 0

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "cudart", Runtime)
    with Reader(Stream(stores, **SETTINGS)) as reader:
        for _ in range(3):
            columns = next(reader).columns
            [(address, size)] = Runtime.pinned.items()
            for column in columns.values():
                assert address <= column.ctypes.data
                assert column.ctypes.data + column.nbytes <= address + size
    assert Runtime.pinned == {}


def test_memory_that_cannot_be_pinned_is_used_as_it_is(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Runtime:
        def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
            return 2

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "cudart", Runtime)
    with Reader(Stream(stores, **SETTINGS)) as reader:
        assert_same(next(reader).visits(), next(Stream(stores, **SETTINGS)))
    assert "cannot be pinned: CUDA error 2" in caplog.text


@pytest.mark.gpu
def test_a_gpu_copies_straight_from_the_ring(stores: list[Store]) -> None:
    torch.cuda.init()
    with Reader(Stream(stores, **SETTINGS)) as reader:
        features = torch.from_numpy(next(reader).columns["features"])
        assert features.is_pinned()
        assert torch.equal(features.to("cuda", non_blocking=True).cpu(), features)


def test_one_slot_is_too_few(stores: list[Store]) -> None:
    with pytest.raises(ConfigError, match="slots must be 2 or more"):
        Reader(Stream(stores, **SETTINGS), slots=1)
