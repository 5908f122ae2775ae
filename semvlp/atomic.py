"""Files that exist whole or not at all: written aside, synced, renamed.

Those of a data set are made in `.part/` and moved beside the others. A folder that holds source
code is never written into.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semvlp.errors import ConfigError

log = logging.getLogger(__name__)

MOST_NAME_BYTES = 200
"""Of a file that others are written beside, with longer names."""
PART_DIR = ".part"
"""Work in progress, on the same file system; readers never look here."""


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`; a crash leaves the old file or the new one, never a part."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write as `write_bytes` does, in UTF-8 with the line ends as given."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Write as `write_bytes` does; NaN and infinity, which strict readers refuse, are errors."""
    write_text(path, _json_text(value, indent))


def publish_bytes(path: Path, data: bytes) -> None:
    """Write a small file through the `.part/` beside it; a crash leaves nothing in the open."""
    part_dir = path.parent / PART_DIR
    part_dir.mkdir(exist_ok=True)
    write_bytes(part_dir / path.name, data)
    publish(part_dir / path.name, path)


def publish_text(path: Path, text: str) -> None:
    """Publish as `publish_bytes` does, in UTF-8."""
    publish_bytes(path, text.encode())


def publish_json(path: Path, value: Any) -> None:
    """Publish as `publish_bytes` does; NaN and infinity are errors."""
    publish_text(path, _json_text(value, 1))


def publish(part: Path, path: Path) -> None:
    """Move a finished, synced file out of `.part/` so that it survives a power cut."""
    part.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make a rename inside `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder and hold it for this process, however that ends.

    The folder itself is locked, so that nothing is left in it; one that was made here and is empty
    at the end goes again. A file system that cannot lock (some that are mounted from elsewhere)
    keeps nobody out.

    Raises:
        ConfigError: another process holds it.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder} is in use by another process; wait for it, or name another --out"
            ) from None
        except OSError as error:
            log.debug("%s cannot be locked: %s", folder, error)
        try:
            yield
        finally:
            # Only while it is held: whoever is kept out may have met it new and empty as well.
            if is_new and not any(folder.iterdir()):
                folder.rmdir()
    finally:
        os.close(descriptor)


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


def _json_text(value: Any, indent: int | None) -> str:
    return json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n"
