"""Files of a data set appear whole: made in `.part/`, synced, moved beside the others."""

from pathlib import Path

from semvlp import atomic

PART_DIR = ".part"
"""Work in progress, on the same file system; readers never look here."""


def publish(part: Path, path: Path) -> None:
    """Move a finished, synced file out of `.part/` so that it survives a power cut."""
    part.replace(path)
    atomic.sync_directory(path.parent)


def publish_bytes(path: Path, data: bytes) -> None:
    """Write a small file through the `.part/` beside it; a crash leaves nothing in the open."""
    part_dir = path.parent / PART_DIR
    part_dir.mkdir(exist_ok=True)
    atomic.write_bytes(part_dir / path.name, data)
    publish(part_dir / path.name, path)


def publish_text(path: Path, text: str) -> None:
    """Like `publish_bytes`, in UTF-8."""
    publish_bytes(path, text.encode())
