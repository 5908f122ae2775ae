"""Ten million names in the memory of a few arrays: an ordered list that is also looked up.

A Python string of an image's name takes 80 bytes, and as much again in a dictionary. Here a name is
its UTF-8 bytes in one array, which may be a mapped file that processes share, and the place where
they begin; the first look-up adds a sorted array of hashes, 16 bytes a name.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]

CHUNK = 1 << 12
"""Names that are Python strings at once."""
NEWLINE = 10


class Keys(Sequence[str]):
    """An immutable list of names; equal to any other sequence of the same strings."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        collected = KeyCollector()
        for name in names:
            collected.add(name)
        self._joined, self._ends = collected.arrays()

    @classmethod
    def of(cls, names: Iterable[str]) -> "Keys":
        """Return the names as they are if they are `Keys` already."""
        return names if isinstance(names, Keys) else Keys(names)

    @classmethod
    def split(cls, joined: Bytes) -> "Keys":
        """Return the names in UTF-8 text, one a line but for the last newline; none is copied.

        Raises:
            UnicodeDecodeError: other bytes, wherever they are.
        """
        keys = cls.__new__(cls)
        keys._joined = joined
        keys._ends = _line_ends(joined)
        for start in range(0, len(keys), CHUNK):
            keys._text(start, min(start + CHUNK, len(keys)))
        return keys

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Keys": ...
    def __getitem__(self, index: int | slice) -> "str | Keys":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        row = range(len(self))[index]
        start = int(self._ends[row - 1]) if row else 0
        return _decode(self._joined[start : int(self._ends[row]) - 1].tobytes())

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), CHUNK):
            last = min(first + CHUNK, len(self))
            names = self._text(first, last).split("\n")
            # A name with a newline in it is rare, and found by its place alone.
            whole = len(names) == last - first
            yield from names if whole else (self[row] for row in range(first, last))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Keys):
            return np.array_equal(self._ends, other._ends) and np.array_equal(
                self._bytes(), other._bytes()
            )
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Keys({list(self[:3])}{' ...' if len(self) > 3 else ''}, {len(self)} in all)"

    def __getstate__(self) -> dict[str, Any]:
        return {"_joined": np.array(self._joined), "_ends": self._ends}

    def find(self, name: str) -> int | None:
        """Return where a name stands first, None where it does not."""
        hashes, rows = self._table
        wanted = hash(name)
        at = int(np.searchsorted(hashes, wanted))
        while at < len(hashes) and hashes[at] == wanted:
            row = int(rows[at])
            if self[row] == name:
                return row
            at += 1
        return None

    def rows_of(self, names: "Keys") -> Numbers:
        """Return where each of other names stands first, -1 where it does not."""
        found = (self.find(name) for name in names)
        return np.fromiter((-1 if row is None else row for row in found), np.int64, len(names))

    def first_repeated(self) -> str | None:
        """Return the first name that stands somewhere before already."""
        hashes, rows = self._table
        again = np.flatnonzero(hashes[1:] == hashes[:-1]) + 1
        candidates: list[int] = np.sort(rows[again]).tolist()
        for row in candidates:
            if self.find(self[row]) != row:
                return str(self[row])
        return None

    def take(self, rows: Numbers) -> "Keys":
        """Return the names at some places, in their order."""
        return Keys(self[row] for row in rows.tolist())

    def joined(self, first: int = 0, last: int | None = None) -> Bytes:
        """Return the bytes of the names from `first` to before `last`, newlines between them."""
        last = len(self) if last is None else last
        if first >= last:
            return self._joined[:0]
        start = int(self._ends[first - 1]) if first else 0
        return self._joined[start : int(self._ends[last - 1]) - 1]

    @cached_property
    def sha256(self) -> str:
        """Hash of the names, one a line: `list_sha256` of them."""
        digest = hashlib.sha256(self._bytes().data)
        digest.update(b"\n" if len(self) else b"")
        return digest.hexdigest()

    def _bytes(self) -> Bytes:
        return self.joined()

    def _text(self, first: int, last: int) -> str:
        return _decode(self.joined(first, last).tobytes())

    @cached_property
    def _table(self) -> tuple[Numbers, NDArray[np.integer[Any]]]:
        """Return the hashes in rising order and the row of each, equal ones in theirs."""
        hashes = np.fromiter(map(hash, self), np.int64, len(self))
        rows = np.argsort(hashes, kind="stable")
        return hashes[rows], rows


class KeyCollector:
    """Names that come one by one, for `Keys`."""

    def __init__(self) -> None:
        self._joined = bytearray()
        self._ends = array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, name: str) -> None:
        """Put a name behind the others."""
        self._joined += _encode(name)
        self._joined.append(NEWLINE)
        self._ends.append(len(self._joined))

    def keys(self) -> Keys:
        """Return the names so far."""
        keys = Keys()
        keys._joined, keys._ends = self.arrays()
        return keys

    def arrays(self) -> tuple[Bytes, Numbers]:
        """Return the bytes of all names, a newline behind each, and where each ends with it."""
        joined = np.frombuffer(self._joined, np.uint8)
        return joined, np.frombuffer(self._ends, np.int64)


def _line_ends(joined: Bytes) -> Numbers:
    """Return where each line ends, behind its newline; the last one has none."""
    if not len(joined):
        return np.empty(0, np.int64)
    blocks = range(0, len(joined), 1 << 24)
    ends = [np.flatnonzero(joined[at : at + (1 << 24)] == NEWLINE) + at + 1 for at in blocks]
    return np.concatenate([*ends, np.array([len(joined) + 1], np.int64)])


def _encode(name: str) -> bytes:
    # A byte of a file's name that is no UTF-8 is a surrogate in Python.
    return name.encode(errors="surrogatepass")


def _decode(name: bytes) -> str:
    return name.decode(errors="surrogatepass")
