"""The pages of an LMDB, checked before LMDB follows them.

LMDB believes what a page says of the next one. A changed number takes it out of the file, and the
process ends by SIGBUS without a word. So every page of the tree is read once, by `pread`, and all
that LMDB would follow must lie where it may. Values themselves are not read.

P pages, N nodes of all of them, S bytes of a page. Layout: mdb.c of LMDB 0.9 (data version 1) and
1.0 (data version 3) `MDB_page`, `MDB_node`, `MDB_meta`.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError

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
PAGES_AT_ONCE = 512
SIZES = tuple(2**power for power in range(9, 17))

Pages = NDArray[np.uint8]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Layout:
    """What differs between the versions of the data format."""

    header: int
    """Bytes of the head of a page."""
    base: int
    """What offsets in a page are counted from."""
    aligned: bool
    """Whether a value starts at an even byte."""


_LAYOUTS = {1: _Layout(16, 0, False), 3: _Layout(24, 24, True)}


@dataclass(frozen=True, slots=True)
class _Tree:
    flags: int
    depth: int
    root: int


@dataclass(frozen=True, slots=True)
class _Meta:
    layout: _Layout
    page_size: int
    trees: tuple[_Tree, _Tree]
    """Of free pages, and of keys and values."""
    pages: int
    """Pages that the file has by its own account."""
    transaction: int


class _Damaged(Exception):
    """What is wrong with which page."""


def check_pages(path: Path, *, writing: bool = False, order: bool = False) -> None:
    """Check that LMDB can follow every page of a file, or of `data.mdb` in a directory.

    A file is checked once by each process, for as long as it stays as it is. A million values take
    0.7 s, with their order 1.8 s, and 40 MB for the time of it.

    Args:
        writing: check the tree of free pages too.
        order: check that keys ascend too, where values do not tell whose they are.

    Raises:
        InputError: a page is damaged, or the file is cut short or none of LMDB's.
    """
    file = path / "data.mdb" if path.is_dir() else path
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:
        return  # LMDB says what is wrong, or makes it
    try:
        status = os.fstat(descriptor)
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, writing, order)
        if not status.st_size or state in _checked:
            return
        _check(descriptor, status.st_size, file, writing, order)
        _checked.add(state)
    finally:
        os.close(descriptor)


_checked: set[tuple[object, ...]] = set()


def _check(descriptor: int, size: int, file: Path, writing: bool, order: bool) -> None:
    try:
        meta = _newest_meta(descriptor)
        if writing:
            _walk(descriptor, size, meta, meta.trees[0], least=1)
        _walk(descriptor, size, meta, meta.trees[1], order=order)
    except _Damaged as error:
        said = f"cannot be opened as an LMDB: {error}; make or copy it again"
        raise InputError(f"{file} {_cut_short(descriptor, size) or said}") from error


def _cut_short(descriptor: int, size: int) -> str:
    try:
        meta = _newest_meta(descriptor)
    except _Damaged:
        return ""
    needed = meta.pages * meta.page_size
    account = f"must have {needed} bytes by its own account, but has {size}"
    # A number that was changed would ask for anything.
    return f"{account}: it was cut short; copy it again" if size < needed < 1000 * size else ""


def _newest_meta(descriptor: int) -> _Meta:
    """Return what LMDB reads a file by: the newer one of the two that it has."""
    first = _meta(os.pread(descriptor, 4096, 0), 0)
    second = _meta(os.pread(descriptor, 4096, first.page_size), 1)
    if (second.layout, second.page_size) != (first.layout, first.page_size):
        raise _Damaged("its two heads differ in their kind")
    # Each transaction takes the head of its parity, so one of them is of the one before; by a
    # changed number LMDB would take that, and what was written last would be missing.
    both = first.transaction, second.transaction
    begun = any(meta.trees[1].root != NO_ROOT for meta in (first, second))
    parities = both[0] % 2, both[1] % 2, abs(both[0] - both[1])
    if parities != (0, 1, 1) and (begun or both != (0, 0)):
        raise _Damaged(f"its two heads are of the transactions {both[0]} and {both[1]}")
    return second if both[0] < both[1] else first


def _meta(data: bytes, number: int) -> _Meta:
    if len(data) < 4096:
        raise _Damaged("its head is cut short")
    for layout in _LAYOUTS.values():
        (kind,) = struct.unpack_from("<H", data, layout.header - 6)
        magic, version = struct.unpack_from("<II", data, layout.header)
        if magic == MAGIC and _LAYOUTS.get(version) == layout and kind == META:
            break
    else:
        raise _Damaged(f"head {number} has no mark of a known version")
    page_size, *_ = struct.unpack_from("<I", data, layout.header + 24)
    places = (layout.header + 28 + 48 * index for index in range(2))
    trees = [_Tree(*struct.unpack_from("<HH32xQ", data, place)) for place in places]
    last, transaction = struct.unpack_from("<QQ", data, layout.header + 120)
    if page_size not in SIZES:
        raise _Damaged(f"pages of {page_size} bytes")
    # Integer keys are those of free pages; anything else would be several values of a key.
    if trees[0].flags & ~ALONE != INTEGER_KEYS or trees[1].flags:
        raise _Damaged("its keys are of a kind that is not read")
    return _Meta(layout, page_size, (trees[0], trees[1]), last + 1, transaction)


def _walk(
    descriptor: int, size: int, meta: _Meta, tree: _Tree, *, least: int = 2, order: bool = False
) -> None:
    """Check a tree level by level, from its root to its leaves.

    Args:
        least: nodes of a branch.
    """
    if tree.root == NO_ROOT:
        return
    count = min(size // meta.page_size, meta.pages)
    if not 0 < tree.depth <= DEEPEST or tree.root >= count:
        raise _Damaged(f"a tree of {tree.depth} levels that begins at page {tree.root}")
    taken: list[Integers] = []
    level = np.array([tree.root], np.int64)
    for depth in range(tree.depth):
        if level.min() < 2 or level.max() >= count or len(np.unique(level)) < len(level):
            raise _Damaged(f"level {depth} of its tree leads out of the file, or twice to a page")
        below = []
        before = b""
        for start in range(0, len(level), PAGES_AT_ONCE):
            numbers = level[start : start + PAGES_AT_ONCE]
            pages = _read(descriptor, numbers, meta.page_size)
            nodes = _Nodes(pages, numbers, meta.layout, count)
            if depth == tree.depth - 1:
                taken.append(nodes.check_leaves())
                if order:
                    before = nodes.check_order(before)
            else:
                below.append(nodes.children(least))
        taken.append(np.stack([level, np.ones_like(level)], axis=1))
        level = np.concatenate(below) if below else level
    _check_apart(np.concatenate(taken))


def _check_apart(taken: Integers) -> None:
    """Check that no page is taken twice; [N, 2] are the first page and the number of pages."""
    taken = taken[np.argsort(taken[:, 0], kind="stable")]
    overlapping = taken[:-1].sum(axis=1) > taken[1:, 0]
    if overlapping.any():
        raise _Damaged(f"page {taken[1:, 0][overlapping][0]} is taken twice")


def _read(descriptor: int, numbers: Integers, page_size: int) -> Pages:
    """Return pages as [P, S]; they are in the file."""
    pages = np.empty((len(numbers), page_size), np.uint8)
    for row, number in zip(pages, numbers.tolist(), strict=True):
        if os.preadv(descriptor, [row.data], number * page_size) < page_size:
            raise _Damaged(f"page {number} is cut short")
    return pages


class _Nodes:
    """The nodes of pages, which lie in their pages with their keys."""

    def __init__(self, pages: Pages, numbers: Integers, layout: _Layout, count: int) -> None:
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
            raise _Damaged(f"the keys of page {self._numbers[0]} are not behind those before it")
        return last

    def _check(self, good: NDArray[np.bool_]) -> None:
        if not good.all():
            raise _Damaged(f"page {self._numbers[int(np.argmin(good))]} is not what its tree says")

    def _check_nodes(self, good: NDArray[np.bool_], rows: NDArray[Any] | None = None) -> None:
        if not good.all():
            row = (self._rows if rows is None else rows)[int(np.argmin(good))]
            raise _Damaged(f"page {self._numbers[row]} leads out of itself or of the file")
