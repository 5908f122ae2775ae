"""Hashes that identify an extractor, a list of images, or files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semvlp.errors import ConfigError


def profile_hash(extractor: Mapping[str, Any]) -> str:
    """Return 16 hex digits of everything in `extractor`, whatever the order of its keys.

    Raises:
        ConfigError: a value JSON cannot hold.
    """
    text = json.dumps(plain(extractor), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def list_sha256(names: Sequence[str]) -> str:
    """Return the hash of an ordered list of names, one a line."""
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()


def files_sha256(paths: Sequence[Path], *, after: str = "") -> str:
    """Return the hash of the bytes of files in order, chained to an earlier hash `after`."""
    digest = hashlib.sha256(after.encode())
    for path in paths:
        digest.update(file_sha256(path).encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the hash of the bytes of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(values: Mapping[str, Any]) -> Any:
    """Pass `values` through JSON, so that a tuple equals the list it is read back as.

    Raises:
        ConfigError: a value JSON cannot hold.
    """
    try:
        return json.loads(json.dumps(dict(values), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the extractor must consist of plain JSON values: {error}") from error
