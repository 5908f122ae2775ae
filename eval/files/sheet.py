"""Sheets: CSV and TSV as spreadsheets write them, JSON lines and JSON lists, as rows by column."""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from semvlp.errors import InputError, shown
from semvlp.shards.texts.annotation_files import parse, read_text
from semvlp.shards.texts.official_files import objects

log = logging.getLogger(__name__)

DELIMITERS = ",\t;|"
SHOWN = 5


class Row(NamedTuple):
    """One row of a sheet."""

    where: str
    """File and line or entry, for messages."""
    cells: Mapping[str, Any]
    """What it holds by the name of the column; text in CSV and TSV, any JSON value elsewhere."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A file of rows."""

    path: Path
    columns: tuple[str, ...]
    rows: Sequence[Row]


def read_sheet(path: Path) -> Sheet:
    """Read a table, gzipped or not; JSON is told by its first character, else the header tells
    the delimiter: a comma, a tab, a semicolon or a bar.

    Cells are stripped of blanks around them. Rows without any content, which spreadsheets leave at
    the end, are counted and left out.

    Raises:
        InputError: no UTF-8 text, damaged JSON or quoting, no rows, two columns of one name, or
            rows that have more or fewer cells than the header; names the first of them.
    """
    text = read_text(path)
    is_json = text.lstrip()[:1] in ("{", "[")
    sheet = _of_json(text, path) if is_json else _of_lines(text, path)
    if not sheet.rows:
        raise InputError(f"{path}: must hold a header and rows below it, or JSON objects; no rows")
    return sheet


def places(rows: Sequence[str]) -> str:
    """Return the first of some places and how many more there are: `t.csv:3, t.csv:9, ...`."""
    return ", ".join(rows[:SHOWN]) + (", ..." if len(rows) > SHOWN else "")


def _of_json(text: str, path: Path) -> Sheet:
    rows = [Row(record.where, record.fields) for record in objects(parse(text, path), path)]
    columns = dict.fromkeys(str(name) for row in rows for name in row.cells)
    return Sheet(path, tuple(columns), rows)


def _of_lines(text: str, path: Path) -> Sheet:
    # Leading empty lines are no header.
    text = text.lstrip("\r\n")
    lines = _split(text, _delimiter(text), path)
    if not lines:
        return Sheet(path, (), ())
    columns = tuple(lines[0][1])
    _check_header(columns, path)
    filled = [(where, cells) for where, cells in lines[1:] if any(cells)]
    ragged = [where for where, cells in filled if len(cells) != len(columns)]
    if ragged:
        raise InputError(
            f"{path}: every row must have {len(columns)} cells as the header has, but "
            f"{len(ragged)} have more or fewer ({places(ragged)}); quote cells that hold the "
            "delimiter"
        )
    if len(filled) < len(lines) - 1:
        log.warning("%s: left out %d empty rows", path, len(lines) - 1 - len(filled))
    rows = [Row(where, dict(zip(columns, cells, strict=True))) for where, cells in filled]
    return Sheet(path, columns, rows)


def _delimiter(text: str) -> str:
    """Return the delimiter that cuts the header into most names, of equals the first."""
    header = next(iter(text.splitlines()), "")

    def count(delimiter: str) -> int:
        return len(next(csv.reader([header], delimiter=delimiter), []))

    return max(DELIMITERS, key=count)


def _split(text: str, delimiter: str, path: Path) -> list[tuple[str, list[str]]]:
    """Return the place and the cells of every line, the header too; blank lines have no cells."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: list[tuple[str, list[str]]] = []
    line, long = 1, 0
    try:
        for cells in reader:
            long += reader.line_num > line
            lines.append((f"{path}:{line}", [cell.strip() for cell in cells]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{path}:{line}: {error}; a cell that begins with a quote must end with one, and "
            "quotes inside it must be doubled"
        ) from error
    if long:
        log.warning("%s: %d rows have cells of several lines", path, long)
    return lines


def _check_header(columns: Sequence[str], path: Path) -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if "" in columns or twice:
        what = f"{twice[0]!r} is twice" if twice and twice[0] else "one is empty"
        header = shown(list(islice(columns, SHOWN)))
        raise InputError(
            f"{path}: its first line must name every column once, but {what}: {header}"
        )
