"""How each row of the table is timed: one epoch, or a part of one, in samples a second."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from shards_peers import Data, Item, Packing, of_lxmert

from semvlp.shards.batch import Columns
from semvlp.shards.open import open_store
from semvlp.shards.stores.store import Store
from semvlp.shards.stream.reader import SLOTS, Reader
from semvlp.shards.stream.stream import Stream

READ_BYTES = 1 << 20
EVICTIONS = 20


def packed(items: Iterator[Item], out: Columns, batch_size: int) -> int:
    """Fill batch after batch; returns the samples."""
    count = 0
    while batch := list(islice(items, batch_size)):
        start = 0
        for features, boxes, _ in batch:
            end = start + len(features)
            out["features"][start:end] = features
            out["boxes"][start:end] = boxes
            start = end
        count += len(batch)
    return count


def copy_features(store: Store, out: Columns, order: list[int], batch_size: int) -> float:
    """The limit: bytes from the memory-mapped file into the batch, everything else done before."""
    with store.view(order) as samples:
        sources = [memoryview(blob)[layout.slices[0]] for _, blob, layout in samples]
        target = memoryview(out["features"].reshape(-1)).cast("B")
        begin = time.perf_counter()
        for first in range(0, len(sources) - batch_size + 1, batch_size):
            start = 0
            for source in sources[first : first + batch_size]:
                target[start : start + len(source)] = source
                start += len(source)
        seconds = time.perf_counter() - begin
    return len(sources) // batch_size * batch_size / seconds


class Ours:
    """One of our stores, read in this process or by a process of its own."""

    def __init__(self, path: Path, out: Columns, batch_size: int) -> None:
        self.store = open_store(path)
        self.out, self.batch_size = out, batch_size
        self.batches = len(self.store) // batch_size
        self.stream, self.stream_of_reader = self.new_stream(), self.new_stream()
        self.reader = Reader(self.stream_of_reader)

    def warm(self) -> None:
        """What an epoch leaves behind: files in the cache and mapped, checksums compared."""
        for position in range(0, len(self.store), self.batch_size):
            self.stream.read(position, self.out)
            next(self.reader)

    def new_stream(self) -> Stream:
        """All images in random order, from the first on."""
        return Stream([self.store], seed=0, batch_size=self.batch_size, negatives=False)

    def limit(self) -> float:
        """Samples a second of the plain copy."""
        order = np.random.default_rng(2).permutation(len(self.store)).tolist()
        return copy_features(self.store, self.out, order, self.batch_size)

    def here(self) -> float:
        """Samples a second packed in this process."""
        begin = time.perf_counter()
        for number in range(self.batches):
            self.stream.read(number * self.batch_size, self.out)
        return self.batches * self.batch_size / (time.perf_counter() - begin)

    def here_cold(self) -> float:
        """`here`, the files out of the cache of the system before."""
        self.empty_cache()
        self.stream = self.new_stream()
        return self.here()

    def process(self) -> float:
        """Samples a second delivered by the reading process, texts decoded."""
        for _ in range(SLOTS):
            # What it has read ahead while others were measured.
            next(self.reader)
        return self.delivered(self.batches)

    def process_cold(self) -> float:
        """`process`, the files out of the cache of the system before; one epoch."""
        self.reader.close()
        self.stream_of_reader.position = 0
        self.empty_cache()
        next(self.reader)
        return self.delivered(self.batches - 1)

    def delivered(self, batches: int) -> float:
        """Samples a second of some batches of the reading process."""
        begin = time.perf_counter()
        for _ in range(batches):
            next(self.reader).visits()
        return batches * self.batch_size / (time.perf_counter() - begin)

    def empty_cache(self) -> None:
        """Files that are mapped stay in the cache: they are closed first."""
        self.reader.close()
        self.store.close()
        evict(self.store.path)


def loaded(data: Data) -> float:
    """Samples a second of webdataset through a DataLoader with one worker, start-up left out."""
    batches = iter(torch.utils.data.DataLoader(Packing(data), batch_size=None, num_workers=1))
    next(batches)
    begin, count = time.perf_counter(), 0
    for _, _, texts in batches:
        count += len(texts)
    return count / (time.perf_counter() - begin)


def evict(path: Path) -> None:
    """Drop a file, or the files of a folder, from the cache of the system.

    Raises:
        RuntimeError: one is still there, as where another process has mapped it.
    """
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        # Pages that another core has just read are let go a moment later.
        for _ in range(EVICTIONS):
            if not _cached_after_eviction(file):
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"{file} is still in the cache")


def _cached_after_eviction(file: Path) -> bool:
    """Whether the middle of a file is still in the cache after the system was asked to drop it."""
    size = file.stat().st_size
    if not size:
        return False
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            os.preadv(opened.fileno(), [bytearray(1)], size // 2, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
    return True


def read_through(files: Iterable[Path], images: int) -> float:
    """Samples a second of reading the files in order into one small buffer, as `cat` does."""
    buffer = bytearray(READ_BYTES)
    begin = time.perf_counter()
    for file in files:
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass
    return images / (time.perf_counter() - begin)


def rate(items: Callable[[], Iterator[Item]], out: Columns, batch_size: int) -> float:
    """Samples a second of a peer."""
    begin = time.perf_counter()
    return packed(items(), out, batch_size) / (time.perf_counter() - begin)


def importing(data: Data) -> float:
    """Images a second of importing the TSV into tar shards; what starting takes cancels out."""
    seconds = seconds_of_import(data, "lxmert-tsv") - seconds_of_import(data, "lxmert-half")
    return (data.images - data.images // 2) / seconds


def seconds_of_import(data: Data, name: str) -> float:
    """A whole command, from its start to the manifest."""
    shutil.rmtree(data.path("imported"), ignore_errors=True)
    command = [sys.executable, "-m", "semvlp.cli", "--quiet", "shards", "import"]
    command += [str(data.path(name)), str(data.path("imported"))]
    begin = time.perf_counter()
    subprocess.run([*command, "--from", "lxmert-tsv", "--to", "tar"], check=True)
    return time.perf_counter() - begin


def loading(data: Data) -> float:
    """Images a second of LXMERT's loader, which keeps them all in memory."""
    begin = time.perf_counter()
    kept = list(of_lxmert(data, data.images))
    return len(kept) / (time.perf_counter() - begin)
