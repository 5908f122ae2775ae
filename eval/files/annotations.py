"""Annotation files: JSON or JSON lines, gzipped or not, and which task a file looks like."""

import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from semvlp.errors import InputError
from semvlp.eval.task import Example

GZIP_MAGIC = b"\x1f\x8b"
Kind = type | tuple[type, ...]


def read_text(path: Path) -> str:
    """The text of a file, gzipped or not, without a byte order mark.

    Raises:
        InputError: no such file, or not UTF-8.
    """
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a UTF-8 text file: {error}") from error


def read_document(path: Path) -> Any:
    """The one JSON value of a file.

    Raises:
        InputError: no such file, not UTF-8, not JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: must be one JSON value; {error}{_hint(path)}") from error


def read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The JSON object of every line that is not blank, with its line number from 1.

    Raises:
        InputError: no such file, not UTF-8, a line that is no JSON object.
    """
    records = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            records.append((number, _object(path, number, line)))
    if not records:
        raise InputError(f"{path}: must hold JSON lines, but it is empty")
    return records


def require(record: Any, fields: Mapping[str, Kind], where: str) -> None:
    """Check that `record` is an object with these fields of these types.

    Raises:
        InputError: names `where`, the field and what was found.
    """
    if not isinstance(record, Mapping):
        raise InputError(f"{where}: must be an object with {', '.join(fields)}, got {record!r:.80}")
    for name, kind in fields.items():
        value = record.get(name)
        # True is an int to Python, never to an annotation file.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            found = repr(value)[:80] if name in record else "nothing"
            raise InputError(f"{where}: {name!r} must be {_type_name(kind)}, got {found}")


def first_has(entries: Any, *fields: str) -> bool:
    """Whether `entries` is a list whose first entry is an object with these fields."""
    first = entries[0] if isinstance(entries, list) and entries else None
    return isinstance(first, dict) and all(name in first for name in fields)


def wrong_file(path: Path, expected: str) -> InputError:
    """The error for a file that is not what a task reads; says what it looks like instead."""
    return InputError(f"{path}: must be {expected}{_hint(path) or '; it has another layout'}")


def unique(examples: Iterable[Example], paths: Sequence[Path]) -> list[Example]:
    """The examples as a list, their ids compared.

    Raises:
        InputError: no examples, or an id that occurs twice, which no leaderboard file could answer.
    """
    listed = list(examples)
    names = ", ".join(str(path) for path in paths)
    if not listed:
        raise InputError(f"{names}: must hold at least one example, but holds none")
    seen = set()
    for example in listed:
        if example.example_id in seen:
            raise InputError(f"{names}: every id must be unique, {example.example_id!r} is not")
        seen.add(example.example_id)
    return listed


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        what = f"{path}:{number}: must be a JSON object on one line; {error}"
        raise InputError(what + (_hint(path) if number == 1 else "")) from error
    if not isinstance(record, dict):
        hint = _hint(path) if number == 1 else ""
        raise InputError(f"{path}:{number}: must be a JSON object on one line{hint}")
    return record


def _type_name(kind: Kind) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = {
        str: "a string",
        int: "an integer",
        list: "a list",
        dict: "an object",
        NoneType: "null",
    }
    return " or ".join(names.get(one, one.__name__) for one in kinds)


def _hint(path: Path) -> str:
    looks = recognise(path)
    return f"; it looks like {looks}" if looks else ""


def recognise(path: Path) -> str | None:
    """What an annotation file looks like, for messages: `NLVR2 JSON lines (task nlvr2)`."""
    text = read_text(path).strip()
    try:
        first = json.loads(text)
    except json.JSONDecodeError:
        try:
            first = json.loads(text.partition("\n")[0])
        except json.JSONDecodeError:
            return None
    if not isinstance(first, dict):
        return None
    return next((name for name, fits in _LOOKS.items() if fits(first)), None)


def _first_value_has(document: dict[str, Any], *fields: str) -> bool:
    return first_has(list(document.values())[:1], *fields)


_LOOKS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "a VQA v2 questions file (task vqa)": lambda d: first_has(
        d.get("questions"), "question_id", "image_id"
    ),
    "a VQA v2 annotations file (task vqa)": lambda d: first_has(
        d.get("annotations"), "question_id", "answers"
    ),
    "a COCO captions file (task retrieval)": lambda d: first_has(d.get("annotations"), "caption"),
    "a Karpathy split file (task retrieval)": lambda d: first_has(d.get("images"), "sentences"),
    "a GQA questions file (task gqa)": lambda d: _first_value_has(d, "question", "imageId"),
    "a GQA choices file (task gqa)": lambda d: _first_value_has(d, "valid", "plausible"),
    "NLVR2 JSON lines (task nlvr2)": lambda d: str(d.get("identifier", "")).count("-") == 3,
    "NLVR JSON lines (task nlvr)": lambda d: str(d.get("identifier", "")).count("-") == 1,
    "SNLI-VE JSON lines (task snli-ve)": lambda d: "pairID" in d,
}
