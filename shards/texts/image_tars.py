"""Captions in tars of images as WebDataset has them: KEY.jpg, KEY.json, KEY.txt."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from semvlp.errors import InputError


def captions_in_tar(path: Path) -> Iterator[tuple[str, str]]:
    """Read image names and captions: `caption` or `captions` of the JSON, the text; each once.

    Raises:
        InputError: not a readable tar, or a member that is damaged.
    """
    seen: set[tuple[str, str]] = set()
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                for pair in _captions(tar, member, path):
                    if pair not in seen:
                        seen.add(pair)
                        yield pair
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{path}: not a readable, uncompressed tar: {error}") from error


def _captions(
    tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path
) -> Iterator[tuple[str, str]]:
    name = PurePosixPath(member.name)
    file = tar.extractfile(member) if name.suffix in (".json", ".txt") else None
    if file is None:
        return
    try:
        text = file.read().decode()
        captions = [text] if name.suffix == ".txt" else _of_json(json.loads(text))
    except ValueError as error:
        raise InputError(f"{path}, member {member.name} is damaged: {error}") from error
    for caption in captions:
        yield name.stem, caption.strip()


def _of_json(entry: Any) -> list[str]:
    """Return the captions; an entry of a photograph that could not be fetched has none."""
    if not isinstance(entry, dict):
        raise ValueError("it must be an object")
    captions = [entry.get("caption"), *(entry.get("captions") or ())]
    return [caption for caption in captions if isinstance(caption, str)]
