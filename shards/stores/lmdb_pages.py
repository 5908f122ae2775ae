"""The pages of an LMDB, checked before LMDB follows them.

LMDB believes what a page says of the next one. A changed number takes it out of the file, and the
process ends by SIGBUS without a word. So every page of the tree is read once, by `pread`, and all
that LMDB would follow must lie where it may. Values themselves are not read.
"""

import os
from pathlib import Path

import numpy as np

from semvlp.errors import InputError
from semvlp.shards.stores.lmdb_format import (
    DEEPEST,
    NO_ROOT,
    Integers,
    Meta,
    Nodes,
    PageDamage,
    Tree,
    data_file,
    newest_meta,
    read_pages,
)

PAGES_AT_ONCE = 512


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
    file = data_file(path)
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
        meta = newest_meta(descriptor)
        if writing:
            _walk(descriptor, size, meta, meta.trees[0], least=1)
        _walk(descriptor, size, meta, meta.trees[1], order=order)
    except PageDamage as error:
        said = f"cannot be opened as an LMDB: {error}; make or copy it again"
        raise InputError(f"{file} {_cut_short(descriptor, size) or said}") from error


def _cut_short(descriptor: int, size: int) -> str:
    try:
        meta = newest_meta(descriptor)
    except PageDamage:
        return ""
    needed = meta.pages * meta.page_size
    account = f"must have {needed} bytes by its own account, but has {size}"
    # A number that was changed would ask for anything.
    return f"{account}: it was cut short; copy it again" if size < needed < 1000 * size else ""


def _walk(
    descriptor: int, size: int, meta: Meta, tree: Tree, *, least: int = 2, order: bool = False
) -> None:
    """Check a tree level by level, from its root to its leaves.

    Args:
        least: nodes of a branch.
    """
    if tree.root == NO_ROOT:
        return
    count = min(size // meta.page_size, meta.pages)
    if not 0 < tree.depth <= DEEPEST or tree.root >= count:
        raise PageDamage(f"a tree of {tree.depth} levels that begins at page {tree.root}")
    taken: list[Integers] = []
    level = np.array([tree.root], np.int64)
    for depth in range(tree.depth):
        if level.min() < 2 or level.max() >= count or len(np.unique(level)) < len(level):
            raise PageDamage(f"level {depth} of its tree leads out of the file, or twice to a page")
        below = []
        before = b""
        for start in range(0, len(level), PAGES_AT_ONCE):
            numbers = level[start : start + PAGES_AT_ONCE]
            pages = read_pages(descriptor, numbers, meta.page_size)
            nodes = Nodes(pages, numbers, meta.layout, count)
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
        raise PageDamage(f"page {taken[1:, 0][overlapping][0]} is taken twice")
