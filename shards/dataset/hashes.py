"""Hashes that identify an extractor, a list of images, or files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semvlp.errors import ConfigError


def profile_hash(extractor: Mapping[str, Any]) -> str:
    """16 hex digits that change with anything in `extractor`, but not with the order of its keys.

    Raises:
        ConfigError: a value JSON cannot hold.
    """
    text = json.dumps(plain(extractor), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def list_sha256(names: Sequence[str]) -> str:
    """Hash of an ordered list of names, one a line."""
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()


def files_sha256(paths: Sequence[Path], *, after: str = "") -> str:
    """Hash of the bytes of files in order; `after` chains it to an earlier hash."""
    digest = hashlib.sha256(after.encode())
    for path in paths:
        digest.update(file_sha256(path).encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Hash of the bytes of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(values: Mapping[str, Any]) -> Any:
    """`values` through JSON and back, so that a tuple equals the list it is read back as.

    Raises:
        ConfigError: a value JSON cannot hold.
    """
    try:
        return json.loads(json.dumps(dict(values), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the extractor must consist of plain JSON values: {error}") from error
