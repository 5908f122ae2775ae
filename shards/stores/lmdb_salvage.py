"""What can still be read of an LMDB that is cut short or damaged: all that its tree leads to.

LMDB is not asked: it follows what it finds. Pages that no longer belong to the tree are left alone,
for they may hold what was replaced.
"""

import os
import struct
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semvlp.errors import InputError
from semvlp.shards.stores.lmdb_format import (
    DEEPEST,
    NO_ROOT,
    Meta,
    Nodes,
    PageDamage,
    data_file,
    newest_meta,
    read_pages,
)

OVERFLOW = 4


class Salvage(NamedTuple):
    """The keys and values that can be read."""

    values: dict[bytes, tuple[int, int]]
    """Byte of the file, and size, of the value of each key."""
    lost: list[bytes]
    """Keys whose values cannot be."""
    whole: bool
    """Whether there are no other keys, in pages that cannot be read."""


class _Page(NamedTuple):
    """A page that is to be followed, and the keys that it may have: from `low` to before `high`."""

    number: int
    levels: int
    low: bytes
    high: bytes | None


def salvage(path: Path) -> Salvage:
    """Follow the tree of an LMDB as far as it can be.

    Raises:
        InputError: not one value can be read.
    """
    file = data_file(path)
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    try:
        meta = newest_meta(descriptor)
        return _Reading(descriptor, meta).all()
    except PageDamage as error:
        raise InputError(f"{file}: nothing of it can be read: {error}") from error
    finally:
        os.close(descriptor)


class _Reading:
    """One walk through a file, from its root."""

    def __init__(self, descriptor: int, meta: Meta) -> None:
        self._descriptor, self._meta = descriptor, meta
        self._size = os.fstat(descriptor).st_size
        self._count = min(self._size // meta.page_size, meta.pages)
        self._seen: set[int] = set()
        self._starts: Counter[int] = Counter()
        """How many values say that they are at a byte."""

    def all(self) -> Salvage:
        tree = self._meta.trees[1]
        if tree.root == NO_ROOT or not 0 < tree.depth <= DEEPEST:
            raise PageDamage(f"a tree of {tree.depth} levels that begins at page {tree.root}")
        found: dict[bytes, tuple[int, int] | None] = {}
        waiting, whole = [_Page(tree.root, tree.depth, b"", None)], True
        while waiting:
            page = waiting.pop()
            try:
                if page.levels > 1:
                    waiting += reversed(list(self._below(page)))
                else:
                    found.update(self._leaf(page))
            except PageDamage:
                whole = False
        values = {k: at for k, at in found.items() if at and self._starts[at[0]] == 1}
        if not values:
            raise PageDamage("no page of values is left")
        return Salvage(values, [key for key in found if key not in values], whole)

    def _nodes(self, page: _Page) -> tuple[Nodes, list[bytes]]:
        if not 2 <= page.number < self._count or page.number in self._seen:
            raise PageDamage(f"page {page.number} is not in the file, or led to twice")
        self._seen.add(page.number)
        numbers = np.array([page.number], np.int64)
        pages = read_pages(self._descriptor, numbers, self._meta.page_size)
        nodes = Nodes(pages, numbers, self._meta.layout, self._count)
        keys = nodes.keys()
        # The first key of a branch is never looked at.
        named = keys[1:] if page.levels > 1 else keys
        inside = all(page.low <= key for key in named) and all(
            page.high is None or key < page.high for key in named
        )
        if not inside or any(one >= other for one, other in pairwise(named)):
            raise PageDamage(f"the keys of page {page.number} are not those that belong there")
        return nodes, keys

    def _below(self, page: _Page) -> Iterator[_Page]:
        nodes, keys = self._nodes(page)
        numbers = nodes.children(least=2).tolist()
        bounds = pairwise([page.low, *keys[1:], page.high])
        for number, (low, high) in zip(numbers, bounds, strict=True):
            assert low is not None, "only the last bound is open"
            yield _Page(number, page.levels - 1, low, high)

    def _leaf(self, page: _Page) -> Iterator[tuple[bytes, tuple[int, int] | None]]:
        nodes, keys = self._nodes(page)
        start = page.number * self._meta.page_size
        for key, (at, size, is_big) in zip(keys, nodes.values(), strict=True):
            byte: int | None = start + at
            if is_big:
                byte = self._big(start + at, size) if at + 8 <= self._meta.page_size else None
            elif at + size > self._meta.page_size:
                byte = None
            if byte is not None:
                self._starts[byte] += size > 0
            yield key, None if byte is None else (byte, size)

    def _big(self, place: int, size: int) -> int | None:
        """Return where a value begins whose page's number stands at `place`."""
        (number,) = struct.unpack("<Q", os.pread(self._descriptor, 8, place))
        header, page_size = self._meta.layout.header, self._meta.page_size
        needed = -(-(header + size) // page_size)
        if not 2 <= number <= self._count - needed:
            return None
        head = os.pread(self._descriptor, header, number * page_size)
        told = *struct.unpack_from("<Q", head), *struct.unpack_from("<HI", head, header - 6)
        begin: int = number * page_size + header
        return begin if told == (number, OVERFLOW, needed) else None
