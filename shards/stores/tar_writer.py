"""Writing tar shards: each is a function of its slice of the plan, and appears whole."""

import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from semvlp.atomic import (
    PART_DIR,
    make_directory,
    publish,
    publish_bytes,
    publish_pieces,
    publish_text,
)
from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.shards.dataset.hashes import file_sha256
from semvlp.shards.dataset.manifest import Manifest, ShardEntry
from semvlp.shards.dataset.plan import WHOLE, Part, Plan, Positions
from semvlp.shards.stores.tar_file import END, record_bytes, scan
from semvlp.shards.stores.tar_index import INDEX_NAME, Index, concatenate, index_of, read_index

log = logging.getLogger(__name__)

RECORDS_PER_SYNC = 64


def shard_name(shard: int) -> str:
    """Return the file name of a tar shard."""
    return f"shard-{shard:06d}.tar"


def read_back(path: Path, shard: int) -> tuple[Index, ShardEntry]:
    """Read the index of a whole shard, and what commit record and manifest say of it.

    Raises:
        InputError: it is damaged.
    """
    with ThreadPoolExecutor(1) as pool:
        # Hashing leaves the interpreter free for the scan.
        digest = pool.submit(file_sha256, path)
        index = index_of(scan(path), shard)
        return index, _entry(path, index, digest.result())


def _entry(path: Path, index: Index, sha256: str) -> ShardEntry:
    histogram = np.bincount(index.rows["regions"]) if len(index.keys) else np.empty(0, int)
    return ShardEntry(
        name=path.name,
        samples=len(index.keys),
        bytes=path.stat().st_size,
        sha256=sha256,
        captions=int(index.rows["captions"].sum()),
        questions=int(index.rows["questions"].sum()),
        regions_histogram=tuple(histogram.tolist()),
    )


def commit_text(entry: ShardEntry) -> str:
    """Return the commit record of a shard."""
    return json.dumps(entry.to_json()) + "\n"


class TarTarget:
    """Appends samples to the parts of their shards and publishes a shard when it is complete.

    A shard `shard-000000.tar` goes with its index `.idx` and its commit record `.json`, which is
    written last: a shard without it is taken back into work.
    """

    def __init__(self, out: Path, plan: Plan, refused: set[int], part: Part = WHOLE) -> None:
        self._out, self._plan = out, plan
        self._refused = set(refused)
        self._written = Positions(len(plan.image_ids))
        self._entries: dict[int, ShardEntry] = {}
        self._parts: dict[int, _Part] = {}
        self._left: dict[int, int] = {}
        make_directory(out / PART_DIR)
        for shard in plan.shards(part):
            self._resume(shard)

    def written(self) -> Positions:
        return self._written

    def write(self, position: int, text: bytes, blob: bytes | memoryview) -> None:
        shard = position // self._plan.samples_per_shard
        if shard not in self._parts:
            self._parts[shard] = _Part(self._part_path(shard), end=0, last=-1)
        key = self._plan.image_ids[position]
        self._parts[shard].append(position, record_bytes(key, text, blob))
        self._written.add(position)
        self._account(shard)

    def refuse(self, position: int) -> None:
        self._refused.add(position)
        self._account(position // self._plan.samples_per_shard)

    def finish(self, manifest: Manifest) -> tuple[ShardEntry, ...]:
        entries = tuple(self._entries[shard] for shard in range(self._plan.num_shards))
        parts = (read_index(self._idx_path(shard)) for shard in range(self._plan.num_shards))
        index = concatenate(parts, sum(entry.samples for entry in entries))
        publish_pieces(self._out / INDEX_NAME, index.pieces())
        return entries

    def published(self) -> bool:
        complete = len(self._entries) == self._plan.num_shards
        return complete and (self._out / INDEX_NAME).exists()

    def close(self) -> None:
        with ExitStack() as stack:
            for part in self._parts.values():
                stack.callback(part.close)
            self._parts.clear()

    def _tar_path(self, shard: int) -> Path:
        return self._out / shard_name(shard)

    def _part_path(self, shard: int) -> Path:
        return self._out / PART_DIR / shard_name(shard)

    def _idx_path(self, shard: int) -> Path:
        return self._tar_path(shard).with_suffix(".idx")

    def _commit_path(self, shard: int) -> Path:
        return self._tar_path(shard).with_suffix(".json")

    def _resume(self, shard: int) -> None:
        wanted = [p for p in self._plan.positions(shard) if p not in self._refused]
        entry = self._committed_entry(shard, len(wanted))
        if entry is not None:
            self._entries[shard] = entry
            self._written.update(wanted)
            return
        kept = self._salvage(shard, wanted)
        self._written.update(kept)
        self._left[shard] = len(wanted) - len(kept)
        if not self._left[shard]:
            self._publish(shard)

    def _committed_entry(self, shard: int, samples: int) -> ShardEntry | None:
        """Return the commit record of a shard whose files are what it says, else None."""
        try:
            entry = ShardEntry.from_json(from_json(self._commit_path(shard).read_bytes()))
            size = self._tar_path(shard).stat().st_size
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        whole = size == entry.bytes and self._idx_path(shard).exists()
        return entry if whole and entry.samples == samples else None

    def _salvage(self, shard: int, wanted: list[int]) -> list[int]:
        """Take an uncommitted shard back into work; returns the positions it holds already."""
        self._commit_path(shard).unlink(missing_ok=True)
        if self._tar_path(shard).exists():
            publish(self._tar_path(shard), self._part_path(shard))
        path = self._part_path(shard)
        if not path.exists():
            return []
        kept, end = _good_prefix(path, self._plan, wanted)
        log.info("%s: going on after %d finished images", shard_name(shard), len(kept))
        self._parts[shard] = _Part(path, end=end, last=kept[-1] if kept else -1)
        return kept

    def _account(self, shard: int) -> None:
        self._left[shard] -= 1
        if not self._left[shard]:
            self._publish(shard)

    def _publish(self, shard: int) -> None:
        path = self._part_path(shard)
        part = self._parts.pop(shard, None) or _Part(path, end=0, last=-1)
        part.end()
        index, entry = read_back(path, shard)
        publish_bytes(self._idx_path(shard), index.to_bytes())
        publish(path, self._tar_path(shard))
        publish_text(self._commit_path(shard), commit_text(entry))
        self._entries[shard] = entry


class _Part:
    """A shard in work: good samples up to its end, nothing behind them."""

    def __init__(self, path: Path, *, end: int, last: int) -> None:
        self._last, self._end = last, end
        self._unsynced = 0
        # Without a buffer, nothing is left to be written when a disk is full.
        self._file = path.open("ab", buffering=0)
        self._file.truncate(end)

    def append(self, position: int, record: bytes) -> None:
        if position <= self._last:
            raise ValueError(
                f"position {position} of the plan is written after {self._last}: "
                "a shard is written in plan order"
            )
        self._write(record)
        self._last = position
        self._unsynced += 1
        if self._unsynced == RECORDS_PER_SYNC:
            self._sync()

    def end(self) -> None:
        """Add the end mark and close."""
        self._write(END)
        self.close()

    def close(self) -> None:
        try:
            self._sync()
        finally:
            self._file.close()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self._end)
            raise
        self._end += len(data)

    def _sync(self) -> None:
        os.fdatasync(self._file.fileno())
        self._unsynced = 0


def _good_prefix(path: Path, plan: Plan, wanted: list[int]) -> tuple[list[int], int]:
    """Return the positions of the samples that are whole and in place, and where they end."""
    kept, end = [], 0
    expected: Iterator[int] = iter(wanted)
    try:
        for record in scan(path):
            position = next(expected, None)
            if position is None or plan.image_ids[position] != record.location.key:
                break
            kept.append(position)
            end = record.location.end
    except InputError as error:
        # The usual end of a part: it has no end mark yet, or was torn by a crash.
        log.debug("%s", error)
    return kept, end
