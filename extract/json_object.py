"""Reading a file that must hold one JSON object."""

import json
from pathlib import Path
from typing import Any

from semvlp.errors import InputError


def read_object(path: Path, what: str) -> dict[str, Any]:
    """The object in the file `path`, which describes `what`.

    Raises:
        InputError: no such file, or something else in it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; it must describe {what}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: must be JSON that describes {what}: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: must be a JSON object that describes {what}")
    return found
