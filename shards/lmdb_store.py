"""The samples of a data set in one LMDB file: what tasks look up and what is handed to others.

Key: the key of the sample in ASCII. Value: its safetensors blob, then its JSON, which starts where
the safetensors ends. `!keys` holds all keys in the order of the plan, `!meta` the manifest.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb
import numpy as np

from semvlp.errors import InputError
from semvlp.shards.manifest import Manifest, read_manifest
from semvlp.shards.record import Sample, Texts, decode, decode_entry, texts_of
from semvlp.shards.tar_store import check_size

LMDB_NAME = "regions.lmdb"
META_KEY = b"!meta"
KEYS_KEY = b"!keys"
FIRST_MAP_BYTES = 64 << 20


class LmdbStore:
    """Samples of `regions.lmdb` by position in the plan. Safe after a fork and in a pickle.

    Raises:
        InputError: the file is missing or has another size or number of samples than the manifest
            says.
    """

    def __init__(self, path: Path, manifest: Manifest | None = None) -> None:
        self.path = path
        self.manifest = manifest if manifest is not None else read_manifest(path)
        for shard in self.manifest.shards:
            check_size(path / shard.name, shard.bytes)
        keys = self._get(KEYS_KEY, "the list of keys").decode("ascii")
        self._keys = tuple(keys.split("\n")) if keys else ()
        if len(self) != self.manifest.counts["samples"]:
            raise InputError(
                f"{path / LMDB_NAME} must hold {self.manifest.counts['samples']} samples "
                f"as the manifest says, but lists {len(self)}"
            )
        self._checked = np.zeros(len(self), bool)

    @property
    def image_ids(self) -> Sequence[str]:
        return self._keys

    def __len__(self) -> int:
        return len(self._keys)

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
        text, _ = self._members(index)
        try:
            return texts_of(decode_entry(text))
        except InputError as error:
            raise InputError(self._damage(index, str(error))) from error

    def members(self, index: int) -> tuple[bytes, bytes | memoryview]:
        text, blob = self._members(index)
        self._decoded(index, text, blob)
        return text, blob

    def close(self) -> None:
        _environments.release(self.path / LMDB_NAME, self)

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
        return LmdbStore, (self.path,)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {key: position for position, key in enumerate(self._keys)}

    def _members(self, index: int) -> tuple[bytes, memoryview]:
        key = self._keys[index]
        try:
            return split_value(self._get(key.encode("ascii"), f"the sample {key}"))
        except InputError as error:
            raise InputError(self._damage(index, str(error))) from error

    def _decoded(self, index: int, text: bytes, blob: memoryview) -> Sample:
        try:
            sample = decode(text, blob, check=not self._checked[index])
        except InputError as error:
            raise InputError(self._damage(index, str(error))) from error
        if sample.key != self._keys[index]:
            raise InputError(self._damage(index, f"it holds the sample {sample.key!r}"))
        self._checked[index] = True
        return sample

    def _get(self, key: bytes, what: str) -> bytes:
        try:
            with _environments.acquire(self.path / LMDB_NAME, self).begin() as transaction:
                value = transaction.get(key)
        except lmdb.Error as error:
            raise InputError(f"{self.path / LMDB_NAME} is damaged: {error}") from error
        if value is None:
            raise InputError(f"{self.path / LMDB_NAME} lacks {what}")
        return bytes(value)

    def _damage(self, index: int, problem: str) -> str:
        return (
            f"{self.path / LMDB_NAME}, sample {self._keys[index]}: {problem}; "
            f"`semvlp shards verify {self.path}` lists all damage"
        )


def open_environment(path: Path, *, readonly: bool = True) -> Any:
    """An LMDB environment: `path` is a file, or a directory that holds `data.mdb`.

    Nothing guards against a second writer. The map grows as `put_all` needs it. Readahead stays
    on: values are far larger than a page, and reading them page by page is 20 times slower.

    Raises:
        InputError: it cannot be opened.
    """
    # New files keep the data format that every LMDB since 0.9 reads; old ones tell theirs.
    version: dict[str, Any] = {} if readonly else {"lib_version": 0}
    try:
        return lmdb.open(
            str(path),
            subdir=path.is_dir(),
            readonly=readonly,
            create=not readonly,
            lock=False,
            readahead=True,
            max_spare_txns=0,
            map_size=FIRST_MAP_BYTES,
            **version,
        )
    except lmdb.Error as error:
        raise InputError(f"{path} cannot be opened as an LMDB: {error}") from error


def put_all(environment: Any, items: Iterable[tuple[bytes, bytes]]) -> None:
    """Write all items in one transaction, doubling the map as often as it is full."""
    items = list(items)
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in items:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


def value_of(environment: Any, key: bytes) -> bytes | None:
    """The value of a key, or None.

    Raises:
        InputError: LMDB notices damage.
    """
    try:
        with environment.begin() as transaction:
            value: bytes | None = transaction.get(key)
    except lmdb.Error as error:
        raise InputError(f"the database is damaged: {error}") from error
    return value


def keys_of(environment: Any) -> Iterator[bytes]:
    """Every key, in the order of the bytes.

    Raises:
        InputError: LMDB notices damage.
    """
    try:
        with environment.begin() as transaction:
            yield from transaction.cursor().iternext(values=False)
    except lmdb.Error as error:
        raise InputError(f"the database is damaged: {error}") from error


def read_all(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every key and value of a file in the order of the keys; ours that start with `!` too.

    Raises:
        InputError: LMDB notices damage.
    """
    reader = object()
    try:
        with _environments.acquire(path, reader).begin() as transaction:
            for key, value in transaction.cursor():
                yield key.decode("ascii", "backslashreplace"), value
    except lmdb.Error as error:
        raise InputError(f"{path} is damaged: {error}") from error
    finally:
        _environments.release(path, reader)


def split_value(value: bytes | memoryview) -> tuple[bytes, memoryview]:
    """JSON and blob of a value.

    Raises:
        InputError: it does not start with a safetensors header.
    """
    view = memoryview(value)
    try:
        size = int.from_bytes(view[:8], "little")
        tensors = json.loads(bytes(view[8 : 8 + size]))
        end = 8 + size + max(tensor["data_offsets"][1] for tensor in tensors.values())
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"the value does not start with regions: {error}") from error
    return bytes(view[end:]), view[:end]


class _Environments:
    """The environments this process reads; LMDB allows one per file, so stores share them.

    None is carried over a fork: the child opens its own when it first reads.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], Any] = {}
        self._users: dict[tuple[int, int], set[int]] = {}
        os.register_at_fork(after_in_child=self._forget)

    def acquire(self, path: Path, user: object) -> Any:
        file = _identity(path)
        if file not in self._open:
            self._open[file] = open_environment(path)
            self._users[file] = set()
        self._users[file].add(id(user))
        return self._open[file]

    def release(self, path: Path, user: object) -> None:
        file = _identity(path)
        users = self._users.get(file, set())
        users.discard(id(user))
        if file in self._open and not users:
            del self._users[file]
            self._open.pop(file).close()

    def _forget(self) -> None:
        for environment in self._open.values():
            environment.close()
        self._open.clear()
        self._users.clear()


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


_environments = _Environments()
