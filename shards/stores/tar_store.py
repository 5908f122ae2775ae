"""Reading tar shards: random access by index, every record compared when it is first read."""

import mmap
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError
from semvlp.shards.batch import Damage, StoredSample
from semvlp.shards.dataset.manifest import Manifest, read_manifest
from semvlp.shards.stores.store import Members, Store
from semvlp.shards.stores.tar_file import BLOCK, JSON_SUFFIX, REGIONS_SUFFIX, Location, header
from semvlp.shards.stores.tar_index import INDEX_NAME, REMEDY, ROW, Index, read_index

OPEN_FILES = 128
"""Shards held open at once; the least recently used one is closed."""
ADVICE_BYTES = 128 << 10


class TarStore(Store):
    """Samples of tar shards by position in the plan. Safe with threads.

    Raises:
        InputError: a shard or the index is missing or has another size than the manifest says.
    """

    def __init__(self, path: Path, manifest: Manifest | None = None, pattern: str = "") -> None:
        """Open the shards, only those whose names fit `pattern`, as `shard-00000*.tar`."""
        manifest = manifest if manifest is not None else read_manifest(path)
        index = read_index(path / INDEX_NAME)
        _check_rows(index, manifest, path / INDEX_NAME)
        if pattern:
            manifest, index = _selected(manifest, index, pattern, path)
        for shard in manifest.shards:
            check_size(path / shard.name, shard.bytes)
        super().__init__(path, manifest, index.keys)
        self._index, self._pattern = index, pattern
        self._open = lru_cache(maxsize=OPEN_FILES)(lambda name: _OpenFile(path / name))

    def __reduce__(self) -> tuple[Any, ...]:
        return TarStore, (self.path, None, self._pattern)

    @property
    def source(self) -> Path:
        return self.path / self._pattern

    @property
    def shard_sizes(self) -> Sequence[int]:
        return [shard.samples for shard in self.manifest.shards]

    def entry(self, index: int) -> bytes:
        location = self._index.location(index)
        text = self._pread(index, location.json_offset, location.json_bytes)
        self._check_json(index, text)
        return text

    def indexed_text_counts(self) -> NDArray[np.integer[Any]]:
        counts: NDArray[np.integer[Any]] = (
            self._index.rows["captions"] + self._index.rows["questions"]
        )
        return counts

    @contextmanager
    def view(self, indices: Sequence[int]) -> Iterator[Iterator[StoredSample | Damage]]:
        yield (
            self._stored(index, self._view)
            if (layout := self._layouts[index]) is None
            else (bytes(mapped[text]), mapped[regions], layout)
            for index, mapped, text, regions in self._slices(indices)
        )

    def entries(self, indices: Sequence[int]) -> list[bytes | Damage]:
        return [
            self._checked_entry(index, self.entry)
            if self._layouts[index] is None
            else bytes(mapped[text])
            for index, mapped, text, _ in self._slices(indices)
        ]

    def prefetch(self, samples: Sequence[int], entries: Sequence[int]) -> None:
        for index in samples:
            location = self._index.location(index)
            # The system reads no more than its readahead at one advice.
            for offset in range(location.start, location.end, ADVICE_BYTES):
                self._advise(index, offset, min(ADVICE_BYTES, location.end - offset))
        for index in entries:
            location = self._index.location(index)
            self._advise(index, location.json_offset, location.json_bytes)

    def close(self) -> None:
        self._open.cache_clear()

    def _shard_name(self, index: int) -> str:
        return self.manifest.shards[int(self._index.rows["shard"][index])].name

    def _read(self, index: int) -> Members:
        location = self._index.location(index)
        size = location.end - location.start
        return self._members(index, memoryview(self._pread(index, location.start, size)))

    def _view(self, index: int) -> Members:
        location = self._index.location(index)
        mapped = self._open(self._shard_name(index)).mapped
        return self._members(index, mapped[location.start : location.end])

    def _slices(self, indices: Sequence[int]) -> Iterator[tuple[int, memoryview, slice, slice]]:
        """Return the mapped shard of each sample, and where its JSON and its regions lie in it."""
        wanted = np.array(indices, np.int64)
        rows = {name: column[wanted] for name, column in self._index.rows.items()}
        texts, regions = rows["json_offset"], rows["regions_offset"]
        text_ends, regions_ends = texts + rows["json_bytes"], regions + rows["regions_bytes"]
        shards = rows["shard"].tolist()
        mapped = {
            shard: self._open(self.manifest.shards[shard].name).mapped for shard in set(shards)
        }
        columns = (texts, text_ends, regions, regions_ends)
        for index, shard, a, b, c, d in zip(
            indices, shards, *(column.tolist() for column in columns), strict=True
        ):
            yield index, mapped[shard], slice(a, b), slice(c, d)

    def _members(self, index: int, data: memoryview) -> Members:
        """Cut the bytes of a sample into its two members."""
        location = self._index.location(index)
        text_start = location.json_offset - location.start
        blob_start = location.regions_offset - location.start
        text = bytes(data[text_start : text_start + location.json_bytes])
        if self._layouts[index] is None:
            self._check_headers(index, location, data)
            self._check_json(index, text)
        return text, data[blob_start : blob_start + location.regions_bytes]

    def _pread(self, index: int, offset: int, size: int) -> bytes:
        name = self._shard_name(index)
        data = os.pread(self._open(name).descriptor, size, offset)
        if len(data) < size:
            raise InputError(f"{self.path / name}, offset {offset}: the file is cut short")
        return data

    def _advise(self, index: int, offset: int, size: int) -> None:
        if hasattr(os, "posix_fadvise"):
            descriptor = self._open(self._shard_name(index)).descriptor
            os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)

    def _check_headers(self, index: int, location: Location, data: memoryview) -> None:
        regions = location.regions_offset - BLOCK - location.start
        text_header = header(location.key + JSON_SUFFIX, location.json_bytes)
        blob_header = header(location.key + REGIONS_SUFFIX, location.regions_bytes)
        if data[:BLOCK] != text_header or data[regions : regions + BLOCK] != blob_header:
            raise InputError(self._damage(index, "its headers are damaged"))

    def _check_json(self, index: int, text: bytes) -> None:
        if zlib.crc32(text) != self._index.rows["json_crc32"][index]:
            raise InputError(self._damage(index, "the checksum of its JSON does not match"))

    def _damage(self, index: int, problem: str) -> str:
        location = self._index.location(index)
        return (
            f"{self.path / self._shard_name(index)}, offset {location.start}, "
            f"sample {location.key}: {problem}; `semvlp shards verify {self.path}` lists all damage"
        )


def _check_rows(index: Index, manifest: Manifest, path: Path) -> None:
    """Check that each shard has the rows the manifest says, and that none points outside of it."""
    rows, shards = index.rows, manifest.shards
    samples = [shard.samples for shard in shards]
    if len(index.keys) != sum(samples) or not np.array_equal(
        rows["shard"], np.repeat(np.arange(len(shards), dtype=ROW["shard"]), samples)
    ):
        raise InputError(f"{path} does not hold the {sum(samples)} samples of the manifest")
    sizes = np.array([shard.bytes for shard in shards], np.int64)[rows["shard"]]
    # Each by itself first: sums of 64 bits go round.
    places = ("json_offset", "json_bytes", "regions_offset", "regions_bytes")
    inside = all(((rows[name] >= 0) & (rows[name] <= sizes)).all() for name in places)
    ends = rows["regions_offset"] + rows["regions_bytes"]
    text_ends = rows["json_offset"] + rows["json_bytes"]
    apart = (rows["json_offset"] >= BLOCK) & (text_ends <= rows["regions_offset"])
    if not (inside and (apart & (ends <= sizes)).all()):
        raise InputError(f"{path} is damaged: a sample lies outside of its shard")
    captions, questions = (_sums(rows[name], samples) for name in ("captions", "questions"))
    if captions != [s.captions for s in shards] or questions != [s.questions for s in shards]:
        raise InputError(f"{path} is damaged: it counts other texts than the manifest")


def _sums(counts: NDArray[Any], samples: Sequence[int]) -> list[int]:
    """Return the sum of the counts of each shard; -1 where one of them is none."""
    ends = np.cumsum(samples)
    parts = np.split(counts.astype(np.int64), ends[:-1]) if len(ends) else []
    return [int(part.sum()) if (part >= 0).all() else -1 for part in parts]


def _selected(manifest: Manifest, index: Index, pattern: str, path: Path) -> tuple[Manifest, Index]:
    """Return manifest and index of some shards alone."""
    chosen = [n for n, shard in enumerate(manifest.shards) if fnmatch(shard.name, pattern)]
    if not chosen:
        raise InputError(f"no shard of {path} fits {pattern}; it has {len(manifest.shards)}")
    own = index.select(np.flatnonzero(np.isin(index.rows["shard"], chosen)))
    numbers = np.searchsorted(chosen, own.rows["shard"]).astype(ROW["shard"])
    shards = tuple(manifest.shards[number] for number in chosen)
    return (
        replace(manifest, shards=shards, refused=()),
        Index(own.keys, {**own.rows, "shard": numbers}),
    )


def check_size(path: Path, size: int) -> None:
    """Compare a file with what the manifest says of it.

    Raises:
        InputError: it is missing or has another size.
    """
    if not path.exists():
        raise InputError(f"{path} is missing; {REMEDY}")
    actual = path.stat().st_size
    if actual != size:
        raise InputError(f"{path} must have {size} bytes, but has {actual}; {REMEDY}")


def webdataset(path: Path) -> Any:
    """Open the same shards with stock `webdataset.WebDataset`, in the order of the plan.

    For programs that are built on it. It does not notice damage: run `verify` first.

    Raises:
        InputError: the data set has no tar shards.
    """
    manifest = read_manifest(path)
    if manifest.store != "tar":
        remedy = f"`semvlp shards convert {path} DST --to tar` writes them"
        raise InputError(f"{path} has no tar shards, which webdataset reads; {remedy}")
    import webdataset as wds

    names = [str(Path(path) / shard.name) for shard in manifest.shards]
    return wds.WebDataset(names, shardshuffle=False)


class _OpenFile:
    """A descriptor and a map that are closed when nobody uses them any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    @cached_property
    def mapped(self) -> memoryview:
        """The whole file; only what `prefetch` names is read ahead."""
        memory = mmap.mmap(self.descriptor, 0, prot=mmap.PROT_READ)
        memory.madvise(mmap.MADV_RANDOM)
        return memoryview(memory)

    def __del__(self) -> None:
        os.close(self.descriptor)
