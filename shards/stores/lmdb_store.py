"""The samples of a data set in one LMDB file: what tasks look up and what is handed to others.

Key: the key of the sample in ASCII. Value: its safetensors blob, then its JSON, which starts where
the safetensors ends. `!keys` holds all keys in the order of the plan, `!meta` the manifest.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from semvlp.errors import InputError
from semvlp.shards.batch import Damage, StoredSample
from semvlp.shards.codec import blob_layout
from semvlp.shards.dataset.manifest import Manifest, read_manifest
from semvlp.shards.keys import Keys
from semvlp.shards.stores.lmdb_pages import check_pages
from semvlp.shards.stores.store import Members, Store
from semvlp.shards.stores.tar_store import check_size

LMDB_NAME = "regions.lmdb"
TEXTS_NAME = "texts.lmdb"
"""The file of a data set that refers to another one: the values are the JSON alone."""
META_KEY = b"!meta"
KEYS_KEY = b"!keys"
FIRST_MAP_BYTES = 64 << 20
PAGES_BYTES = 1 << 20
"""More than the tree of pages grows by in one transaction."""
DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError)
Get = Callable[[bytes], memoryview]


class LmdbStore(Store):
    """Samples of `regions.lmdb` by position in the plan.

    Raises:
        InputError: the file is missing or has another size or number of samples than the manifest
            says.
    """

    file_name = LMDB_NAME

    def __init__(self, path: Path, manifest: Manifest | None = None) -> None:
        manifest = manifest if manifest is not None else read_manifest(path)
        for shard in manifest.shards:
            check_size(path / shard.name, shard.bytes)
        self._file = path / self.file_name
        with self._values() as get:
            keys = Keys.split(np.frombuffer(bytes(get(KEYS_KEY)), np.uint8))
        super().__init__(path, manifest, keys)
        if len(self) != manifest.counts["samples"]:
            raise InputError(
                f"{self._file} must hold {manifest.counts['samples']} samples "
                f"as the manifest says, but lists {len(self)}"
            )

    def entry(self, index: int) -> bytes:
        with self._values() as get:
            return self._text(get, index)

    @contextmanager
    def view(self, indices: Sequence[int]) -> Iterator[Iterator[StoredSample | Damage]]:
        with self._values() as get:
            yield (self._stored(index, partial(self._members, get)) for index in indices)

    def entries(self, indices: Sequence[int]) -> list[bytes | Damage]:
        with self._values() as get:
            read = partial(self._text, get)
            return [
                self._checked_entry(index, read) if self._layouts[index] is None else read(index)
                for index in indices
            ]

    def prefetch(self, samples: Sequence[int], entries: Sequence[int]) -> None:
        """Do nothing: only LMDB knows where in its file a sample lies."""

    def close(self) -> None:
        _environments.release(self._file, self)

    def _read(self, index: int) -> Members:
        with self._values() as get:
            text, blob = self._members(get, index)
            return text, bytes(blob)

    def _text(self, get: Get, index: int) -> bytes:
        return self._members(get, index)[0]

    def _members(self, get: Get, index: int) -> tuple[bytes, memoryview]:
        layout = self._layouts[index]
        try:
            value = get(self.image_ids[index].encode("ascii"))
            if layout is None:
                return split_value(value)
        except InputError as error:
            raise InputError(self._damage(index, str(error))) from error
        return bytes(value[layout.end :]), value[: layout.end]

    @contextmanager
    def _values(self) -> Iterator[Get]:
        """Look values up; they lie in the file and last as long as the context."""
        with _environments.acquire(self._file, self).begin(buffers=True) as transaction:

            def get(key: bytes) -> memoryview:
                try:
                    value: memoryview | None = transaction.get(key)
                except lmdb.Error as error:
                    raise InputError(f"{self._file} is damaged: {error}") from error
                if value is None:
                    raise InputError(f"{self._file} lacks the key {key.decode()}")
                return value

            yield get

    def _damage(self, index: int, problem: str) -> str:
        return (
            f"{self._file}, sample {self.image_ids[index]}: {problem}; "
            f"`semvlp shards verify {self.path}` lists all damage"
        )


def open_environment(path: Path, *, readonly: bool = True, order: bool = False) -> Any:
    """Open an LMDB environment: `path` is a file, or a directory that holds `data.mdb`.

    Nothing guards against a second writer. The map grows as `put_all` needs it. Readahead stays
    on: values are far larger than a page, and reading them page by page is 20 times slower.

    Raises:
        InputError: it cannot be opened, or its pages cannot be followed, see `check_pages`.
    """
    check_pages(path, writing=not readonly, order=order)
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
    """Write all items in one transaction, doubling the map as often as it is full.

    Raises:
        InputError: LMDB notices damage.
        OSError: the disk is full; the transaction is undone.
    """
    items = list(items)
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in items:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])
        except lmdb.Error as error:
            # LMDB calls a page that could be written in part an input/output error.
            free = shutil.disk_usage(os.path.dirname(os.path.abspath(environment.path()))).free
            if free < sum(len(value) for _, value in items) + PAGES_BYTES:
                raise OSError(errno.ENOSPC, f"No space left on device: {error}") from error
            if isinstance(error, DAMAGE):
                raise InputError(f"{environment.path()} is damaged: {error}") from error
            raise


def value_of(environment: Any, key: bytes) -> bytes | None:
    """Return the value of a key, or None.

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
    """Return every key, in the order of the bytes.

    Raises:
        InputError: LMDB notices damage.
    """
    try:
        with environment.begin() as transaction:
            yield from transaction.cursor().iternext(values=False)
    except lmdb.Error as error:
        raise InputError(f"the database is damaged: {error}") from error


def read_all(path: Path) -> Iterator[tuple[str, bytes]]:
    """Return every key and value of a file in the order of the keys, those with `!` too.

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
    """Return JSON and blob of a value.

    Raises:
        InputError: it does not start with a safetensors header.
    """
    view = memoryview(value)
    try:
        end = blob_layout(view).end
    except InputError as error:
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
