"""JSON and TOML of files that anyone may have written: whatever is wrong with them is one error.

Python's readers raise three kinds of it: what they call damage, what a number of thousands of
digits is to them, and what a value is to them that is nested deeper than their stack. Callers
catch the first, with the file's name.
"""

import json
import re
import tomllib
from collections.abc import Callable
from typing import Any

MOST_PARTS = 50
"""Of a dotted name in TOML; its reader takes the square of their number in time."""
_DECODER = json.JSONDecoder()
_LONG_NAME = re.compile(rf"(?:[\w-]+[ \t]*\.[ \t]*){{{MOST_PARTS}}}")


def from_json(text: str | bytes, **options: Callable[..., Any]) -> Any:
    """Return the value of a JSON text; the options are those of `json.loads`.

    Raises:
        UnicodeDecodeError: bytes that are not UTF-8.
        JSONDecodeError: a ValueError too; anything else that is wrong with it.
    """
    try:
        return json.loads(text, **options)  # type: ignore[arg-type]
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except (RecursionError, ValueError) as error:
        raise _damage(error) from error


def value_at(text: str, at: int) -> tuple[Any, int]:
    """Return the JSON value that begins at a character of a text, and where it ends.

    Raises:
        JSONDecodeError: it is damaged, or more than a reader takes: then without the text, `doc`.
    """
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        raise _damage(error) from error


def _damage(error: Exception) -> json.JSONDecodeError:
    deep = isinstance(error, RecursionError)
    return json.JSONDecodeError("values are nested too deeply" if deep else str(error), "", 0)


def from_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text.

    Raises:
        TOMLDecodeError: a ValueError too; anything that is wrong with it.
    """
    if _LONG_NAME.search(text):
        raise tomllib.TOMLDecodeError(f"a name has more than {MOST_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        reason = "values are nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise tomllib.TOMLDecodeError(reason)
