"""Annotation files as they lie on the disk: JSON, JSON lines or lines of text, gzipped or not.

Every reader of captions, questions and statements goes through here; `official_files.py` knows what
stands in the files.
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import IO, Any, NamedTuple

from semvlp.archives import Gunzipped, gunzip
from semvlp.documents import from_json
from semvlp.errors import InputError, shown
from semvlp.shards.texts.json_stream import JsonDamage, JsonText, Survey, entries, members, survey
from semvlp.shards.texts.parquet_rows import MAGIC, parquet_rows

GZIP_MAGIC = b"\x1f\x8b"
Kind = type | tuple[type, ...]
ID = (int, str)
"""Ids are numbers in one file and strings in another."""
TYPE_NAMES: dict[type, str] = {
    str: "a string",
    int: "an integer",
    list: "a list",
    dict: "an object",
    NoneType: "null",
}


class Line(NamedTuple):
    """One line of a file that is not one JSON value."""

    number: int
    """From 1."""
    value: Any
    """The decoded JSON, or the text."""


class DamagedLine(InputError):
    """A line that could not be read when its turn came."""


class Lines:
    """The lines of a file that is not one JSON value, read anew whenever they are gone through.

    Raises:
        DamagedLine: a line that is no JSON object where the first one is, or no UTF-8.
    """

    def __init__(self, path: Path, first: Line) -> None:
        self._path, self.first = path, first

    def __iter__(self) -> Iterator[Line]:
        is_json = not isinstance(self.first.value, str)
        for number, line in _lines(self._path):
            yield Line(number, _object(line, number, self._path) if is_json else line.rstrip("\r"))


class Document:
    """A file of one JSON object or list, none of whose lists is ever whole in memory.

    Raises:
        InputError: it is damaged, which is known before anything is taken of it.
    """

    def __init__(self, path: Path, known: Survey) -> None:
        self._path, self._places = path, known.places
        self.head = known.head
        """Its value, with the first entry alone of each list that it is or holds."""

    def entries(self, name: str | None = None) -> Iterator[Any]:
        """Give the entries of a list: of the member of that name, or of the document itself."""
        with _named(self._path), _opened(self._path) as file:
            yield from entries(JsonText(file, self._places[name]))

    def items(self) -> Iterator[tuple[str, Any]]:
        """Give the name and the value of each member, whole; of a name twice both."""
        with _named(self._path), _opened(self._path) as file:
            text = JsonText(file)
            text.skip()
            for name in members(text):
                yield name, text.value()


def head_of(document: Any) -> Any:
    """Return a document that was read whole, or what is known of one that was not."""
    return document.head if isinstance(document, Document) else document


def entries_of(document: Any, name: str) -> Iterable[Any]:
    """Return the entries of a list in a document, whole or not; none where it is missing."""
    if not head_of(document).get(name):
        return ()
    return document.entries(name) if isinstance(document, Document) else list(document[name])


def listed(document: Any, name: str, path: Path) -> Iterator[tuple[str, Any]]:
    """Give the entries of a list in a document, each behind the words that name it."""
    for number, entry in enumerate(entries_of(document, name), start=1):
        yield f"{path}: {name.removesuffix('s')} {number}", entry


def read_any(path: Path) -> Document | Lines | None:
    """Return the one JSON value of a file, or its lines; None where it has none.

    Raises:
        InputError: no such file, not UTF-8, damaged JSON.
    """
    with _named(path), _opened(path) as file:
        text = JsonText(file)
        is_json = text.skip() in ("{", "[")
        known = survey(text) if is_json else None
        if known is not None and not text.skip():
            return Document(path, known)
    for number, line in _lines(path):
        value = _object(line, number, path) if is_json else line.rstrip("\r")
        return Lines(path, Line(number, value))
    return None


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to be read, unpacked where it is gzipped."""
    with path.open("rb") as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        raw = Gunzipped(file, path.stat().st_size) if packed else file
        yield io.BufferedReader(raw) if packed else file


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in the errors of reading it."""
    try:
        yield
    except JsonDamage as error:
        raise InputError(f"{path}: the JSON is damaged: {error}") from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Give the lines that are not blank, each with its number from 1."""
    try:
        with _opened(path) as data, io.TextIOWrapper(data, "utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.removesuffix("\n")
    except (OSError, ValueError) as error:
        raise DamagedLine(str(_unreadable(path, error))) from error


def read_text(path: Path) -> str:
    """Return the text of a file, gzipped or not, without a byte order mark; of parquet JSON lines.

    Raises:
        InputError: no such file, or not UTF-8.
        ConfigError: it is parquet, and pyarrow is not installed.
    """
    try:
        data = path.read_bytes()
        if data.startswith(MAGIC):
            return "".join(f"{json.dumps(row)}\n" for row in parquet_rows(path))
        return (gunzip(data) if data.startswith(GZIP_MAGIC) else data).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def parse(text: str, path: Path) -> Any:
    """Return the one JSON value in the text, or the `Line`s of JSON, or those of plain text.

    Raises:
        InputError: damaged JSON.
    """
    if text.lstrip()[:1] not in ("{", "["):
        lines = enumerate(text.split("\n"), start=1)
        return [Line(number, line.rstrip("\r")) for number, line in lines if line.strip()]
    try:
        return from_json(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise InputError(f"{path}: the JSON is damaged: {error}") from error
    return parse_lines(text, path)


def parse_lines(text: str, path: Path, hint: Callable[[Path], str] = lambda path: "") -> list[Line]:
    """Return the JSON object of every line that is not blank.

    Raises:
        InputError: a line that is no JSON object; of the first one `hint` says more.
    """
    lines = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            lines.append(Line(number, _object(line, number, path, hint)))
    return lines


def _object(
    line: str, number: int, path: Path, hint: Callable[[Path], str] = lambda path: ""
) -> dict[str, Any]:
    message = f"{path}:{number}: must be a JSON object on one line"
    try:
        value = from_json(line)
    except json.JSONDecodeError as error:
        more = hint(path) if number == 1 else ""
        raise DamagedLine(f"{message}; {error}{more}") from error
    if not isinstance(value, dict):
        raise DamagedLine(message + (hint(path) if number == 1 else ""))
    return value


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read as a UTF-8 text file: {error}")


def require(record: Any, fields: Mapping[str, Kind], where: str) -> None:
    """Check that `record` is an object with these fields of these types.

    Raises:
        InputError: names `where`, the field and what it holds.
    """
    if not isinstance(record, Mapping):
        raise InputError(
            f"{where}: must be an object with {', '.join(fields)}, got {shown(record)}"
        )
    for name, kind in fields.items():
        value = record.get(name)
        # True is an int to Python, never to an annotation file.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            wanted = " or ".join(TYPE_NAMES.get(one, one.__name__) for one in kinds)
            given = shown(value) if name in record else "nothing"
            raise InputError(f"{where}: {name!r} must be {wanted}, got {given}")


def require_text(records: Iterable[Any], field: str, where: str) -> None:
    """Check that each of the records is an object with a string in `field`.

    Raises:
        InputError: names `where`, the field and what it holds.
    """
    for record in records:
        # Files have millions of them, nearly all of them good.
        if not isinstance(record, dict) or not isinstance(record.get(field), str):
            require(record, {field: str}, where)


def first_has(entries: Any, *fields: str) -> bool:
    """Tell whether `entries` is a list whose first entry is an object with these fields."""
    first = entries[0] if isinstance(entries, list) and entries else None
    return isinstance(first, dict) and all(name in first for name in fields)
