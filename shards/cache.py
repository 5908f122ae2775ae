"""Keeping the cache of remote data sets within a bound: the one used longest ago goes first."""

import fcntl
import logging
import os
import shutil
from pathlib import Path
from typing import IO

from semvlp.errors import ConfigError

log = logging.getLogger(__name__)

BOUND_VARIABLE = "SEMVLP_CACHE_GB"
LOCK_NAME = ".lock"
USED_NAME = ".used"

# Open as long as this process runs: what it has opened is not removed by another one.
_held: dict[Path, IO[str]] = {}


def hold(folder: Path) -> None:
    """Mark a data set of the cache as used now, and as in use until this process ends."""
    if folder not in _held:
        _held[folder] = (folder / USED_NAME).open("a")
        fcntl.flock(_held[folder], fcntl.LOCK_SH)
    os.utime(folder / USED_NAME)


def make_room(cache: Path, target: Path, size: int) -> None:
    """Remove data sets that nobody uses until `target` can grow to `size` bytes.

    Raises:
        ConfigError: it does not fit even so, or the bound is no number.
    """
    bound = _bound()
    if bound is None:
        return
    others = [folder for folder in cache.iterdir() if folder.is_dir() and folder != target]
    others = [folder for folder in others if (folder / USED_NAME).exists()]
    sizes = {folder: _size(folder) for folder in others}
    for folder in sorted(others, key=lambda folder: (folder / USED_NAME).stat().st_mtime):
        if size + sum(sizes.values()) <= bound:
            return
        if _remove(folder):
            del sizes[folder]
    if size + sum(sizes.values()) > bound:
        raise ConfigError(
            f"the cache {cache} may hold {bound / 1e9:g} GB and {sum(sizes.values()) / 1e9:g} GB "
            f"of it are in use, but {size / 1e9:g} GB are needed: raise {BOUND_VARIABLE}"
        )


def _bound() -> float | None:
    """Bytes that the cache may hold."""
    text = os.environ.get(BOUND_VARIABLE)
    try:
        return float(text) * 1e9 if text else None
    except ValueError:
        raise ConfigError(f"{BOUND_VARIABLE} must be a number of GB, got {text!r}") from None


def _remove(folder: Path) -> bool:
    """Remove a data set unless a process has opened it."""
    if folder in _held:
        return False
    with (folder / USED_NAME).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        log.info("removing %s from the cache", folder)
        shutil.rmtree(folder)
    return True


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
