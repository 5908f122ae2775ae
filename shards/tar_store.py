"""Reading tar shards: random access by index, every record compared when it is first read."""

import os
import zlib
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from semvlp.errors import InputError
from semvlp.shards.index import INDEX_NAME, read_index
from semvlp.shards.manifest import Manifest, read_manifest
from semvlp.shards.record import Sample, Texts, decode, decode_entry, texts_of
from semvlp.shards.tar_file import BLOCK, JSON_SUFFIX, REGIONS_SUFFIX, Location, header

OPEN_FILES = 128
"""Shards held open at once; the least recently used one is closed."""


class TarStore:
    """Samples of tar shards by position in the plan. Safe with threads, after a fork, in a pickle.

    Raises:
        InputError: a shard or the index is missing or has another size than the manifest says.
    """

    def __init__(self, path: Path, manifest: Manifest | None = None) -> None:
        self.path = path
        self.manifest = manifest if manifest is not None else read_manifest(path)
        for shard in self.manifest.shards:
            check_size(path / shard.name, shard.bytes)
        self._index = read_index(path / INDEX_NAME)
        self._check_index()
        self._checked = np.zeros(len(self), bool)
        self._open = lru_cache(maxsize=OPEN_FILES)(self._open_shard)

    @property
    def image_ids(self) -> Sequence[str]:
        return self._index.keys

    def __len__(self) -> int:
        return len(self._index.keys)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._positions

    def index_of(self, image_id: str) -> int:
        try:
            return self._positions[image_id]
        except KeyError:
            raise InputError(f"{self.path} has no image {image_id!r}") from None

    def sample(self, index: int) -> Sample:
        return self._decoded(index, *self._members(index))

    def texts(self, index: int) -> Texts:
        location = self._index.location(index)
        text = self._read(index, location.json_offset, location.json_bytes)
        self._check_json(index, text)
        return texts_of(decode_entry(text))

    def members(self, index: int) -> tuple[bytes, bytes | memoryview]:
        text, blob = self._members(index)
        self._decoded(index, text, blob)
        return text, blob

    def close(self) -> None:
        self._open.cache_clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return TarStore, (self.path,)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {key: position for position, key in enumerate(self._index.keys)}

    def _check_index(self) -> None:
        """Every shard has as many rows as the manifest says, and no row points outside of it."""
        path = self.path / INDEX_NAME
        rows, shards = self._index.rows, self.manifest.shards
        expected = np.repeat(np.arange(len(shards)), [shard.samples for shard in shards])
        if not np.array_equal(rows["shard"], expected):
            raise InputError(f"{path} does not hold the {len(expected)} samples of the manifest")
        sizes = np.array([shard.bytes for shard in shards], np.int64)[rows["shard"]]
        ends = rows["regions_offset"] + rows["regions_bytes"]
        text_ends = rows["json_offset"] + rows["json_bytes"]
        starts_well = (rows["json_offset"] >= BLOCK) & (rows["json_bytes"] >= 0)
        if not (starts_well & (text_ends <= rows["regions_offset"]) & (ends <= sizes)).all():
            raise InputError(f"{path} is damaged: a sample lies outside of its shard")

    def _shard_name(self, index: int) -> str:
        return self.manifest.shards[int(self._index.rows["shard"][index])].name

    def _members(self, index: int) -> tuple[bytes, bytes | memoryview]:
        location = self._index.location(index)
        data = memoryview(self._read(index, location.start, location.end - location.start))
        self._check_headers(index, location, data)
        text_start = location.json_offset - location.start
        blob_start = location.regions_offset - location.start
        text = bytes(data[text_start : text_start + location.json_bytes])
        self._check_json(index, text)
        return text, data[blob_start : blob_start + location.regions_bytes]

    def _read(self, index: int, offset: int, size: int) -> bytes:
        name = self._shard_name(index)
        data = os.pread(self._open(name).descriptor, size, offset)
        if len(data) < size:
            raise InputError(f"{self.path / name}, offset {offset}: the file is cut short")
        return data

    def _open_shard(self, name: str) -> "_OpenFile":
        return _OpenFile(self.path / name)

    def _check_headers(self, index: int, location: Location, data: memoryview) -> None:
        regions = location.regions_offset - BLOCK - location.start
        text_header = header(location.key + JSON_SUFFIX, location.json_bytes)
        blob_header = header(location.key + REGIONS_SUFFIX, location.regions_bytes)
        if data[:BLOCK] != text_header or data[regions : regions + BLOCK] != blob_header:
            raise InputError(self._damage(index, "its headers are damaged"))

    def _check_json(self, index: int, text: bytes) -> None:
        if zlib.crc32(text) != self._index.rows["json_crc32"][index]:
            raise InputError(self._damage(index, "the checksum of its JSON does not match"))

    def _decoded(self, index: int, text: bytes, blob: bytes | memoryview) -> Sample:
        try:
            sample = decode(text, blob, check=not self._checked[index])
        except InputError as error:
            raise InputError(self._damage(index, str(error))) from error
        self._checked[index] = True
        return sample

    def _damage(self, index: int, problem: str) -> str:
        location = self._index.location(index)
        return (
            f"{self.path / self._shard_name(index)}, offset {location.start}, "
            f"sample {location.key}: {problem}; `semvlp shards verify {self.path}` lists all damage"
        )


def check_size(path: Path, size: int) -> None:
    """Compare a file with what the manifest says of it.

    Raises:
        InputError: it is missing or has another size.
    """
    if not path.exists():
        raise InputError(f"{path} is missing; {_REMEDY}")
    found = path.stat().st_size
    if found != size:
        raise InputError(f"{path} must have {size} bytes, but has {found}; {_REMEDY}")


def webdataset(path: Path) -> Any:
    """The same shards through stock `webdataset.WebDataset`, in the order of the plan.

    For programs that are built on it. It does not notice damage: run `verify` first.
    """
    import webdataset as wds

    names = [str(Path(path) / shard.name) for shard in read_manifest(path).shards]
    return wds.WebDataset(names, shardshuffle=False)


class _OpenFile:
    """A descriptor that is closed when nobody uses it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.descriptor)


_REMEDY = "copy it again, or run the command that made the data set once more"
