"""How an LMDB lies in its file: heads, pages, and the nodes that are in pages.

P pages, N nodes of all of them, S bytes of a page. Layout: mdb.c of LMDB 0.9 (data version 1) and
1.0 (data version 3) `MDB_page`, `MDB_node`, `MDB_meta`.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = 0xBEEFC0DE
META, BRANCH, LEAF = 8, 1, 2
INTEGER_KEYS, ALONE = 8, 0x4000
"""Of the tree of free pages; and of a file that has no directory to itself."""
BIG, KNOWN_FLAGS = 1, 3
"""Of a node: its value lies on pages of its own; that, or the head of a database of its own."""
NODE = 8
"""Bytes of a node before its key."""
NO_ROOT = 2**64 - 1
DEEPEST = 32
SIZES = tuple(2**power for power in range(9, 17))

Pages = NDArray[np.uint8]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """What differs between the versions of the data format."""

    header: int
    """Bytes of the head of a page."""
    base: int
    """What offsets in a page are counted from."""
    aligned: bool
    """Whether a value starts at an even byte."""


LAYOUTS = {1: Layout(16, 0, False), 3: Layout(24, 24, True)}


@dataclass(frozen=True, slots=True)
class Tree:
    flags: int
    depth: int
    root: int


@dataclass(frozen=True, slots=True)
class Meta:
    layout: Layout
    page_size: int
    trees: tuple[Tree, Tree]
    """Of free pages, and of keys and values."""
    pages: int
    """Pages that the file has by its own account."""
    transaction: int


class PageDamage(Exception):
    """What is wrong with which page."""


def data_file(path: Path) -> Path:
    """Return the file of an environment, which is one or a directory."""
    return path / "data.mdb" if path.is_dir() else path


def newest_meta(descriptor: int) -> Meta:
    """Return what LMDB reads a file by: the newer one of the two that it has."""
    first = _meta(os.pread(descriptor, 4096, 0), 0)
    second = _meta(os.pread(descriptor, 4096, first.page_size), 1)
    if (second.layout, second.page_size) != (first.layout, first.page_size):
        raise PageDamage("its two heads differ in their kind")
    # Each transaction takes the head of its parity, so one of them is of the one before; by a
    # changed number LMDB would take that, and what was written last would be missing.
    both = first.transaction, second.transaction
    begun = any(meta.trees[1].root != NO_ROOT for meta in (first, second))
    parities = both[0] % 2, both[1] % 2, abs(both[0] - both[1])
    if parities != (0, 1, 1) and (begun or both != (0, 0)):
        raise PageDamage(f"its two heads are of the transactions {both[0]} and {both[1]}")
    return second if both[0] < both[1] else first


def _meta(data: bytes, number: int) -> Meta:
    if len(data) < 4096:
        raise PageDamage("its head is cut short")
    for layout in LAYOUTS.values():
        (kind,) = struct.unpack_from("<H", data, layout.header - 6)
        magic, version = struct.unpack_from("<II", data, layout.header)
        if magic == MAGIC and LAYOUTS.get(version) == layout and kind == META:
            break
    else:
        raise PageDamage(f"head {number} has no mark of a known version")
    page_size, *_ = struct.unpack_from("<I", data, layout.header + 24)
    places = (layout.header + 28 + 48 * index for index in range(2))
    trees = [Tree(*struct.unpack_from("<HH32xQ", data, place)) for place in places]
    last, transaction = struct.unpack_from("<QQ", data, layout.header + 120)
    if page_size not in SIZES:
        raise PageDamage(f"pages of {page_size} bytes")
    # Integer keys are those of free pages; anything else would be several values of a key.
    if trees[0].flags & ~ALONE != INTEGER_KEYS or trees[1].flags:
        raise PageDamage("its keys are of a kind that is not read")
    return Meta(layout, page_size, (trees[0], trees[1]), last + 1, transaction)


def read_pages(descriptor: int, numbers: Integers, page_size: int) -> Pages:
    """Return pages as [P, S]; they are in the file."""
    pages = np.empty((len(numbers), page_size), np.uint8)
    for row, number in zip(pages, numbers.tolist(), strict=True):
        if os.preadv(descriptor, [row.data], number * page_size) < page_size:
            raise PageDamage(f"page {number} is cut short")
    return pages


class Nodes:
    """The nodes of pages, which lie in their pages with their keys."""

    def __init__(self, pages: Pages, numbers: Integers, layout: Layout, count: int) -> None:
        self._pages, self._numbers, self._layout, self._count = pages, numbers, layout, count
        self._size = pages.shape[1]
        words, half = pages.view("<u2"), layout.header // 2
        self._kinds = words[:, half - 3]
        lower, upper = (words[:, half - column].astype(np.int64) for column in (2, 1))
        first = layout.header - layout.base
        self._check(pages.view("<u8")[:, 0].astype(np.int64) == numbers)
        self._check((lower % 2 == 0) & (lower > first) & (lower <= upper))
        self._check(upper <= self._size - layout.base)
        self.lengths: Integers = (lower - first) // 2
        most = int(self.lengths.max())
        self._check(layout.header + 2 * self.lengths <= self._size)
        table = words[:, half : half + most].astype(np.int64)
        self._rows, columns = np.nonzero(np.arange(table.shape[1]) < self.lengths[:, None])
        offsets = table[self._rows, columns]
        self._check_nodes((offsets % 2 == 0) & (offsets >= upper[self._rows]))
        self._starts = offsets + layout.base
        self._check_nodes(self._starts + NODE <= self._size)
        place = self._starts // 2
        self._words = [words[self._rows, place + word].astype(np.int64) for word in range(4)]
        end = self._starts + NODE + self._words[3]
        self._values = end + end % 2 if layout.aligned else end
        self._check_nodes(self._values <= self._size)

    def keys(self) -> list[bytes]:
        """Return the keys in the order of the nodes."""
        first = self._starts + NODE
        places = zip(self._rows.tolist(), first.tolist(), self._words[3].tolist(), strict=True)
        return [self._pages[row, at : at + length].tobytes() for row, at, length in places]

    def values(self) -> Iterator[tuple[int, int, bool]]:
        """Give byte of its page and size of each value of leaves; True: there is its page's number.

        Raises:
            PageDamage: they are no leaves.
        """
        self._check(self._kinds == LEAF)
        low, high, flags, _ = self._words
        self._check_nodes(flags & ~BIG == 0)
        sizes = (low | high << 16).tolist()
        yield from zip(self._values.tolist(), sizes, (flags == BIG).tolist(), strict=True)

    def children(self, least: int) -> Integers:
        """Return the pages that branches lead to."""
        self._check((self._kinds == BRANCH) & (self.lengths >= least))
        low, middle, high, _ = self._words
        return low | middle << 16 | high << 32

    def check_leaves(self) -> Integers:
        """Check that the values of leaves lie in their pages, or on others of the file.

        Returns those as [N, 2], the first page and the number of pages.
        """
        self._check(self._kinds == LEAF)
        low, high, flags, _ = self._words
        sizes = low | high << 16
        self._check_nodes(flags & ~KNOWN_FLAGS == 0)
        big = flags & BIG == BIG
        self._check_nodes(self._values + np.where(big, 8, sizes) <= self._size)
        starts = self._values[big][:, None] + np.arange(8)
        numbers = self._pages[self._rows[big][:, None], starts].view("<u8")[:, 0]
        needed = -(-(self._layout.header + sizes[big]) // self._size)
        # Without a sum that a number of 64 bits would go round.
        fits = (numbers >= 2) & (numbers < self._count)
        fits &= np.minimum(numbers, self._count).astype(np.int64) + needed <= self._count
        self._check_nodes(fits, self._rows[big])
        return np.stack([numbers.astype(np.int64), needed], axis=1)

    def check_order(self, before: bytes) -> bytes:
        """Check that keys ascend, the first from `before` on; returns the last."""
        lengths, starts = self._words[3], self._starts + NODE
        places = np.arange(int(lengths.max()))
        inside = places < lengths[:, None]
        bytes_at = np.minimum(starts[:, None] + places, self._size - 1)
        # One more than the byte, so that the end of a key comes before any.
        keys = np.where(inside, self._pages[self._rows[:, None], bytes_at].astype(np.int16) + 1, 0)
        differs = keys[1:] != keys[:-1]
        column = differs.argmax(axis=1)[:, None] if len(keys) > 1 else np.empty((0, 1), np.int64)
        ascends = np.take_along_axis(keys[1:], column, 1) > np.take_along_axis(keys[:-1], column, 1)
        self._check_nodes(ascends[:, 0], self._rows[1:])
        first, last = (bytes((keys[row][inside[row]] - 1).astype(np.uint8)) for row in (0, -1))
        if first <= before:
            raise PageDamage(f"the keys of page {self._numbers[0]} are not behind those before it")
        return last

    def _check(self, good: NDArray[np.bool_]) -> None:
        if not good.all():
            raise PageDamage(
                f"page {self._numbers[int(np.argmin(good))]} is not what its tree says"
            )

    def _check_nodes(self, good: NDArray[np.bool_], rows: NDArray[Any] | None = None) -> None:
        if not good.all():
            row = (self._rows if rows is None else rows)[int(np.argmin(good))]
            raise PageDamage(f"page {self._numbers[row]} leads out of itself or of the file")
