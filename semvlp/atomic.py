"""Files and folders that exist whole or not at all: made aside, synced, renamed.

Those of a data set are made in `.part/` and moved beside the others. Others are made in a folder
`.NAME.XXXXXXXX.part` beside their place, which is locked as long as its process lives: what dead
processes have left is known by that and goes when the same name is written again. A folder that
holds source code is never written into.
"""

import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from semvlp.errors import ConfigError

log = logging.getLogger(__name__)

MOST_NAME_BYTES = 200
"""Of a file that others are written beside, with longer names."""
PART_DIR = ".part"
"""Work in progress, on the same file system; readers never look here."""
LEFT_OVER_SECONDS = 86_400
"""What no lock tells to be in work is left over when nothing in it has changed for so long."""
MANY_FILES = 1000
"""More than these are synced with all else that the machine has to write."""


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Let a file, a link or a folder be made at another place, which then becomes `path`.

    It is synced before it gets its name, and takes the place of a file or link that had it. After
    an error nothing is left of it.
    """
    with scratch(path) as folder:
        made = folder / path.name
        yield made
        sync(made)
        made.replace(path)
        sync_directory(path.parent)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Make a folder beside `path` for work on it, and remove it at the end; dead ones go first."""
    _clear_left_over(path)
    folder = Path(mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _clear_left_over(path: Path) -> None:
    """Remove what processes that have died left of their work on `path`.

    Their folders, and the files and links `.NAME.PID.part` of version 0.1.
    """
    named = re.compile(rf"\.{re.escape(path.name)}\.(\w{{8}}|\d+)\.part")
    for other in [Path(entry) for entry in os.scandir(path.parent) if named.fullmatch(entry.name)]:
        is_folder = other.is_dir() and not other.is_symlink()
        # Another process may be clearing as well, and what another user left may stay.
        with suppress(OSError):
            if _is_left_over(other, is_folder):
                log.info("removing %s, which a process that has died left", other)
                shutil.rmtree(other) if is_folder else other.unlink()


def _is_left_over(part: Path, is_folder: bool) -> bool:
    """Tell whether nobody works on it any more, by its lock; where there is none, by its age.

    A process locks its folder before it puts anything there, so an empty one says nothing. A
    process number says nothing either: the one that wrote may live on another machine.
    """
    inside = list(part.rglob("*")) if is_folder else []
    if inside:
        descriptor = os.open(part, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            log.debug("%s cannot be locked: %s", part, error)
        finally:
            os.close(descriptor)
    changed = max(each.lstat().st_mtime for each in (part, *inside))
    return time.time() - changed > LEFT_OVER_SECONDS


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`; a crash leaves the old file or the new one, never a part."""
    with aside(path) as made:
        made.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write as `write_bytes` does, in UTF-8 with the line ends as given."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Write as `write_bytes` does; NaN and infinity, which strict readers refuse, are errors."""
    write_text(path, json_text(value, indent))


def publish_pieces(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a file through the `.part/` beside it; a crash leaves nothing in the open."""
    part_dir = path.parent / PART_DIR
    make_directory(part_dir)
    with aside(part_dir / path.name) as made, made.open("wb") as file:
        file.writelines(pieces)
    publish(part_dir / path.name, path)


def publish_bytes(path: Path, data: bytes) -> None:
    """Publish as `publish_pieces` does."""
    publish_pieces(path, (data,))


def publish_text(path: Path, text: str) -> None:
    """Publish as `publish_bytes` does, in UTF-8."""
    publish_bytes(path, text.encode())


def publish_json(path: Path, value: Any) -> None:
    """Publish as `publish_bytes` does; NaN and infinity are errors."""
    publish_text(path, json_text(value, 1))


def publish(part: Path, path: Path) -> None:
    """Move a finished, synced file out of `.part/` so that it survives a power cut."""
    part.replace(path)
    sync_directory(path.parent)


def make_directory(folder: Path) -> None:
    """Make a folder, and those above it, so that they survive a power cut."""
    if not folder.is_dir():
        make_directory(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_directory(folder.parent)


def sync(path: Path) -> None:
    """Make a file, or a folder with all that is in it, survive a power cut; links do by theirs."""
    if path.is_symlink():
        return
    every = [path, *path.rglob("*")]
    if len(every) > MANY_FILES:
        # One by one, the files of a hundred thousand images take minutes.
        os.sync()
        return
    for each in every:
        if each.is_dir():
            sync_directory(each)
        else:
            with each.open("rb") as file:
                os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make a rename inside `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Make a folder and hold it for this process, however that ends.

    The folder itself is locked, so that nothing is left in it; one that was made here and is empty
    at the end goes again.

    Args:
        wait: whether to wait for another process that holds it.

    Raises:
        ConfigError: another process holds it, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} must be a folder, but it is a file; name another --out")
    is_new = not folder.exists()
    make_directory(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        hold(descriptor, folder, wait=wait)
        try:
            yield
        finally:
            # Only while it is held: whoever is kept out may have met it new and empty as well.
            if is_new and not any(folder.iterdir()):
                folder.rmdir()
    finally:
        os.close(descriptor)


def hold(descriptor: int, folder: Path, *, wait: bool = False) -> None:
    """Lock an open file or folder for this process, so that `folder` is its own until it ends.

    A file system that cannot lock (some that are mounted from elsewhere) keeps nobody out.

    Args:
        wait: whether to wait for another process that holds it.

    Raises:
        ConfigError: another process holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise ConfigError(
                f"{folder} is in use by another process; wait for it, or name another --out"
            ) from None
        log.info("waiting for another process, which works in %s", folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        log.debug("%s cannot be locked: %s", folder, error)


def refuse_inputs(out: Path, *inputs: Path | str | None) -> None:
    """Refuse an output that is, or holds, something that is read: --overwrite would remove it.

    A pattern counts as the folder it is in; addresses such as `s3://` and None are passed over.

    Raises:
        ConfigError: names both.
    """
    for given in inputs:
        if given is None or "://" in str(given):
            continue
        if Path(given).resolve().is_relative_to(out.resolve()):
            raise ConfigError(
                f"{out} must not be or hold what is read, but {given} lies there; "
                "name another output"
            )


def is_plain_name(name: str) -> bool:
    """Tell whether a name is that of a file in its folder, and not of one elsewhere."""
    return (
        name not in ("", ".", "..")
        and not {"/", "\0"} & set(name)
        and len(os.fsencode(name)) <= MOST_NAME_BYTES
    )


def refuse_source_code(out: Path) -> None:
    """Refuse a folder of this program with the name of what it writes, as `shards/` is.

    Raises:
        ConfigError: `out` holds Python source.
    """
    if (out / "__init__.py").exists():
        raise ConfigError(
            f"{out} holds source code (it has an __init__.py), so nothing is written into it; "
            "name another directory with --out"
        )


def json_text(value: Any, indent: int | None = 1) -> str:
    """Return the text of a JSON file; NaN and infinity are errors."""
    return json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n"
