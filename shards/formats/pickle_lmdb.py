"""Databases of one pickled dict an image and a pickled list of keys: ViLBERT's and VOLTA's."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from semvlp.errors import InputError
from semvlp.shards.formats.foreign_lmdb import ForeignLmdb, by_key, community_key, write_database
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.formats.restricted import dumps, loads
from semvlp.shards.formats.source import CommunityFormat, Source
from semvlp.shards.record import Regions

KEYS = b"keys"

Entry = Mapping[str, Any]


def pickle_format(
    what: str, decode: Callable[[Entry], RawRegions], encode: Callable[[Regions, str], Entry]
) -> CommunityFormat:
    """The format whose entries `decode` reads and `encode` makes, of an image and its key."""

    def write(regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]) -> int:
        return _write(regions, path, encode)

    return CommunityFormat(what=what, open=lambda path: _open(path, decode), write=write)


def _open(path: Path, decode: Callable[[Entry], RawRegions]) -> Source:
    database = ForeignLmdb(path)
    keys = by_key(_keys(database), database.path)

    def read(image_id: str) -> RawRegions:
        entry = loads(database.value(keys[image_id]), "the entry")
        if not isinstance(entry, Mapping):
            raise InputError(f"the entry must be a dict, got {type(entry).__name__}")
        try:
            return decode(entry)
        except KeyError as error:
            raise InputError(f"the entry lacks {error}") from error

    return Source(
        image_ids=tuple(keys),
        read=read,
        file_of=lambda image_id: str(database.path),
        close=database.close,
    )


def _write(regions: Iterable[Regions], path: Path, encode: Callable[[Regions, str], Entry]) -> int:
    keys: list[bytes] = []

    def items() -> Iterator[tuple[bytes, bytes]]:
        for image in regions:
            key = community_key(image.image_id)
            keys.append(key.encode())
            yield keys[-1], dumps(encode(image, key))
        yield KEYS, dumps(keys)

    write_database(path, items())
    return len(keys)


def _keys(database: ForeignLmdb) -> list[bytes]:
    """The listed keys, as bytes or text; every other key where the list is missing."""
    listed = database.get(KEYS)
    if listed is None:
        return list(database.keys_but(KEYS))
    keys = loads(listed, f"the list of keys of {database.path}")
    if not isinstance(keys, list) or not all(isinstance(key, bytes | str) for key in keys):
        raise InputError(f"{database.path}: `keys` must be a list of byte strings")
    return [key.encode() if isinstance(key, str) else key for key in keys]
