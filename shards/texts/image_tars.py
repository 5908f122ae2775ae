"""Captions in tars of images as WebDataset has them: KEY.jpg, KEY.json, KEY.txt."""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from semvlp.archives import open_tar
from semvlp.documents import from_json
from semvlp.errors import InputError

MOST_BYTES = 2**24
"""Of what is said of one image."""


def captions_in_tar(path: Path) -> Iterator[tuple[str, str]]:
    """Read image names and captions: `caption` or `captions` of the JSON, the text; each once.

    Raises:
        InputError: not a readable tar, or a member that is damaged.
    """
    seen: set[tuple[str, str]] = set()
    with open_tar(path) as tar:
        for member in tar:
            for pair in _captions(tar, member, path):
                if pair not in seen:
                    seen.add(pair)
                    yield pair


def _captions(
    tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path
) -> Iterator[tuple[str, str]]:
    name = PurePosixPath(member.name)
    if name.suffix not in (".json", ".txt") or member.isdir():
        return
    where = f"{path}, member {member.name}"
    if not member.isreg() or member.issparse():
        raise InputError(f"{where}: must be a plain file, not a link, with holes or a device")
    file = tar.extractfile(member) if member.size <= MOST_BYTES else None
    if file is None:
        raise InputError(f"{where}: must have at most {MOST_BYTES} bytes, has {member.size}")
    try:
        text = file.read().decode()
        captions = [text] if name.suffix == ".txt" else _of_json(from_json(text))
    except ValueError as error:
        raise InputError(f"{where} is damaged: {error}") from error
    for caption in captions:
        yield name.stem, caption.strip()


def _of_json(entry: Any) -> list[str]:
    """Return the captions; an entry of a photograph that could not be fetched has none."""
    if not isinstance(entry, dict):
        raise ValueError("it must be an object")
    several = entry.get("captions") or ()
    captions = [entry.get("caption"), *([several] if isinstance(several, str) else several)]
    return [caption for caption in captions if isinstance(caption, str)]
