"""LMDB databases of other systems: opened, read by image, written in small transactions."""

import os
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from semvlp.errors import InputError
from semvlp.shards.dataset.refusals import CUT, UNLISTED
from semvlp.shards.formats.community import Unreadable
from semvlp.shards.stores.lmdb_format import data_file
from semvlp.shards.stores.lmdb_salvage import salvage
from semvlp.shards.stores.lmdb_store import keys_of, open_environment, put_all, value_of
from semvlp.shards.texts.image_ids import stem

DATA_FILE = "data.mdb"
ITEMS_PER_TRANSACTION = 64


class ForeignLmdb:
    """A database of one value an image; of a damaged one what can be read.

    Raises:
        InputError: there is no database at `path`, or nothing of it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = _locate(path)
        self._salvage, self._damage = None, ""
        try:
            self._environment = open_environment(self.path, order=True)
        except InputError as error:
            self._damage = str(error).partition(";")[0]
            try:
                self._salvage = salvage(self.path)
            except InputError:
                raise error from None
            self._file = data_file(self.path).open("rb")

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None.

        Raises:
            InputError: it cannot be read, or it is not known whether there is one.
        """
        if self._salvage is None:
            return value_of(self._environment, key)
        if key in self._salvage.values:
            start, size = self._salvage.values[key]
            return os.pread(self._file.fileno(), size, start)
        if self._salvage.whole and key not in self._salvage.lost:
            return None
        raise InputError(f"it is in a part of the database that cannot be read: {self._damage}")

    def value(self, key: bytes) -> bytes:
        """Return the value of a key.

        Raises:
            InputError: there is none.
        """
        value = self.get(key)
        if value is None:
            raise InputError(f"the database lists the key {key!r} but does not hold it")
        return value

    def listed(
        self, list_key: bytes, decode: Callable[[bytes], list[bytes]]
    ) -> tuple[list[bytes], dict[str, Unreadable]]:
        """Return the keys of images, and what stands for those that nobody can name.

        They are the listed ones. Without a list, or with a damaged one, they are all others, in the
        order of the bytes.

        Args:
            decode: the value of `list_key` -> the keys; raises InputError.
        """
        unnamed = {}
        try:
            listed = self.get(list_key)
            if listed is not None:
                return decode(listed), {}
        except InputError as error:
            reason = f"the list of keys is damaged: {error}{UNLISTED}"
            unnamed["list of keys"] = Unreadable(str(self.path), reason)
        if self._salvage is None:
            keys: Iterable[bytes] = keys_of(self._environment)
        else:
            keys = sorted([*self._salvage.values, *self._salvage.lost])
            if not self._salvage.whole:
                # There may have been a list; there was more than can be read.
                unnamed = {"other pages": Unreadable(str(self.path), f"{self._damage}{CUT}")}
        return [key for key in keys if key != list_key], unnamed

    def close(self) -> None:
        if self._salvage is None:
            self._environment.close()
        else:
            self._file.close()


def write_database(path: Path, items: Iterable[tuple[bytes, bytes]]) -> None:
    """Make a database directory of the items.

    Raises:
        InputError: a key comes twice.
    """
    path.mkdir(parents=True)
    environment = open_environment(path, readonly=False)
    seen: set[bytes] = set()
    remaining = iter(items)
    try:
        while batch := list(islice(remaining, ITEMS_PER_TRANSACTION)):
            for key, _ in batch:
                if key in seen:
                    raise InputError(f"two images would have the key {key.decode()!r}")
                seen.add(key)
            put_all(environment, batch)
    finally:
        environment.close()


def by_key(
    keys: Iterable[bytes], path: Path, image_id_of: Callable[[str], str] = stem
) -> dict[str, bytes]:
    """Return the keys by image id: the key without directory and image extension.

    Bytes that are not UTF-8 are kept as Python keeps those of a file name.

    Raises:
        InputError: two keys are of one image.
    """
    by_id: dict[str, bytes] = {}
    for key in keys:
        image_id = image_id_of(key.decode(errors="surrogateescape"))
        if image_id in by_id:
            raise InputError(f"{path}: the keys {by_id[image_id]!r} and {key!r} are one image")
        by_id[image_id] = key
    return by_id


def _locate(path: Path) -> Path:
    """Return the database at `path`, or the only one in a directory right below it."""
    if path.is_file() or (path / DATA_FILE).is_file():
        return path
    found = sorted(file.parent for file in path.glob(f"*/{DATA_FILE}"))
    if len(found) != 1:
        names = ", ".join(folder.name for folder in found) or "none"
        raise InputError(
            f"{path}: a directory with {DATA_FILE} was expected, found {names} below it; "
            "name one database"
        )
    return found[0]


def community_key(image_id: str) -> str:
    """Return the key by which ViLBERT, VOLTA and Oscar find an image: a COCO image's number."""
    name, _, number = image_id.rpartition("_")
    is_coco = name.startswith("COCO_") or not name
    return str(int(number)) if is_coco and number.isascii() and number.isdigit() else image_id
