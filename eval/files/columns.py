"""Columns: which of a sheet's mean what, and its rows as questions with their answers."""

import ast
import json
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from semvlp.documents import from_json
from semvlp.errors import ConfigError, InputError, shown
from semvlp.eval.files.sheet import Row, Sheet, places
from semvlp.eval.task import ExampleId
from semvlp.shards.texts.annotation_files import ID, Kind, require
from semvlp.shards.texts.official_files import looks_like

log = logging.getLogger(__name__)

# The names of a column by its role, in the tables that are about: the first that is there counts.
ROLES: dict[str, tuple[str, ...]] = {
    "image": ("image", "img", "image_name", "img_name", "image_id", "img_id", "imageId"),
    "left": ("left",),
    "right": ("right",),
    "text": ("text", "question", "sent", "sentence"),
    "answer": ("answer", "answers"),
    "label": ("label", "gold_label"),
    "id": ("id", "question_id", "qid"),
    "split": ("split",),
    "group": ("group",),
}
# `--columns question=Q` is as good as `text=Q`.
_SAME = {name: role for role in ("text", "answer") for name in ROLES[role]}
# Ten answers may stand in ten columns.
_NUMBERED = re.compile(r"answers?[ _-]?\d+", re.IGNORECASE)
SEPARATORS = "|;"
# What pandas and JSON write where there is nothing.
_MISSING = ("", "nan", "NaN")

# In JSON, besides nothing.
_KINDS: dict[str, Kind] = {"image": ID, "left": ID, "right": ID, "id": ID, "text": str}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row: a text, what it speaks of, and what people answered."""

    where: str
    entry_id: ExampleId | None
    """As it stands in the file; None in a sheet without such a column."""
    text: str
    images: tuple[str, ...]
    answers: tuple[str, ...] = ()
    """Those of several people, or one; none where the row has no label."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Score of each right answer, in sheets that state it instead of people's answers."""
    split: str = ""
    group: str = ""
    cells: Mapping[str, Any] = field(default_factory=dict)


def parse_columns(given: Iterable[str]) -> dict[str, str]:
    """Return the names of columns by role that `question=Q` or `image=A,label=B` say.

    Raises:
        ConfigError: no such role, or one without a name.
    """
    columns: dict[str, str] = {}
    known = "|".join({*ROLES, *_SAME})
    for part in (part for text in given for part in re.split(rf",(?=(?:{known})=)", text)):
        role, _, name = part.partition("=")
        role = _SAME.get(role, role)
        if role not in ROLES or not name:
            raise ConfigError(
                f"--columns must say what a column is, such as question=Q, of {', '.join(ROLES)}; "
                f"got {part!r}"
            )
        columns[role] = name
    return columns


def roles_of(sheet: Sheet, columns: Mapping[str, str]) -> dict[str, str]:
    """Return the columns of a sheet by role.

    Args:
        columns: names that the user gave, by role; others go by their usual names, as they are
            written or in another case.

    Raises:
        InputError: a given name that the sheet lacks, or no image or text column.
    """
    lower = {name.lower(): name for name in reversed(sheet.columns)}
    roles = {}
    for role, usual in ROLES.items():
        wanted = (columns[role],) if role in columns else usual
        names = [name for name in wanted if name in sheet.columns]
        names += [lower[name.lower()] for name in wanted if name.lower() in lower]
        if names:
            roles[role] = names[0]
        elif role in columns:
            raise InputError(f"{sheet.path}: has no column {columns[role]!r}; it has {_of(sheet)}")
    pair = {"left", "right"} <= roles.keys() and "image" not in columns
    missing = [] if pair or "image" in roles else ["image"]
    missing += [] if "text" in roles else ["text"]
    if missing:
        raise InputError(
            f"{sheet.path}: must have columns image (or left and right) and text (or question); "
            f"without {' and '.join(missing)} it has {_of(sheet)}; say --columns "
            f"{missing[0]}=NAME{looks_like(sheet.path)}"
        )
    for role in ("image",) if pair else ("left", "right"):
        roles.pop(role, None)
    # A label is what tells apart; answers beside it are then some other thing, unless named.
    if {"label", "answer"} <= roles.keys():
        roles.pop("label" if "answer" in columns and "label" not in columns else "answer")
    return roles


def entries_of(sheet: Sheet, roles: Mapping[str, str]) -> list[Entry]:
    """Return all rows of a sheet, none left out; texts that are empty are counted.

    Raises:
        InputError: rows without an image or, where there is such a column, without an id.
    """
    separator = _separator(sheet, roles)
    entries = [_entry(row, roles, _answer_cells(row, roles), separator) for row in sheet.rows]
    for what, bare in (
        ("name an image", [e.where for e in entries if not all(e.images)]),
        ("have an id", [e.where for e in entries if "id" in roles and e.entry_id in _MISSING]),
    ):
        if bare:
            raise InputError(
                f"{sheet.path}: every row must {what}, but {len(bare)} do not ({places(bare)}); "
                "fill them in, or take these rows out"
            )
    empty = [entry.where for entry in entries if not entry.text]
    if empty:
        log.warning("%s: %d texts are empty (%s)", sheet.path, len(empty), places(empty))
    _tell_mixed(sheet, roles)
    return entries


def _of(sheet: Sheet) -> str:
    return shown(", ".join(sheet.columns), 200)


def _entry(
    row: Row, roles: Mapping[str, str], given: Sequence[Any], separator: str | None
) -> Entry:
    def cell(role: str) -> str:
        return _text(row.cells.get(roles[role])) if role in roles else ""

    for role, kind in _KINDS.items():
        if cell(role):
            require(row.cells, {roles[role]: kind}, row.where)
    key = row.cells.get(roles["id"]) if "id" in roles else None
    scores = given[0] if len(given) == 1 and isinstance(given[0], dict) else {}
    sides = ("image",) if "image" in roles else ("left", "right")
    return Entry(
        where=row.where,
        entry_id=key if type(key) is int else _text(key) if "id" in roles else None,
        text=cell("text"),
        images=tuple(cell(side) for side in sides),
        answers=() if _is_scores(scores) else _answers(given, separator, row.where),
        scores=scores if _is_scores(scores) else {},
        split=cell("split"),
        group=cell("group"),
        cells=row.cells,
    )


def _answer_cells(row: Row, roles: Mapping[str, str]) -> list[Any]:
    """Return the cells with answers: of one column, or of numbered ones where it is not there."""
    for role in ("label", "answer"):
        if role in roles:
            return [row.cells.get(roles[role])]
    return [value for name, value in row.cells.items() if _NUMBERED.fullmatch(name)]


def _is_scores(value: Any) -> bool:
    return bool(value) and all(isinstance(score, int | float) for score in value.values())


def _answers(given: Iterable[Any], separator: str | None, where: str) -> tuple[str, ...]:
    """Return the answers in some cells, whatever way there are several in one.

    Raises:
        InputError: one that is an object or a list itself.
    """
    answers: list[str] = []
    for value in given:
        value = _listed(value) if isinstance(value, str) else value
        if isinstance(value, list):
            parts = [part.get("answer") if isinstance(part, dict) else part for part in value]
        elif isinstance(value, str) and separator:
            parts = [*value.split(separator)]
        else:
            parts = [value]
        if any(isinstance(part, list | dict) for part in parts):
            raise InputError(f"{where}: an answer must be a text or a number, got {shown(value)}")
        answers += map(_text, parts)
    return tuple(answer for answer in answers if answer)


def _listed(text: str) -> Any:
    """Return the list that a cell holds as JSON or as Python writes it; else the text."""
    if not (text.startswith("[") and text.endswith("]")):
        return text
    for read in (from_json, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list):
            return value
    return text


def _separator(sheet: Sheet, roles: Mapping[str, str]) -> str | None:
    """Return what separates several answers in a cell; a label is always one."""
    if "label" in roles or "answer" not in roles:
        return None
    cells = [row.cells.get(roles["answer"]) for row in sheet.rows]
    texts = [cell for cell in cells if isinstance(cell, str)]
    return next((sign for sign in SEPARATORS if any(sign in text for text in texts)), None)


def _text(value: Any) -> str:
    """Return a cell as text: numbers and truth as JSON writes them, nothing for nothing."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    text = value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "" if text in _MISSING else text


def _tell_mixed(sheet: Sheet, roles: Mapping[str, str]) -> None:
    """Count the values of each type in the columns of a JSON file that hold several."""
    for role, name in roles.items():
        values = (row.cells.get(name) for row in sheet.rows)
        kinds = Counter(type(value).__name__ for value in values if _text(value))
        if len(kinds) > 1:
            counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            log.warning(
                "%s: the column %r (%s) holds values of several types, all read as text: %s",
                *(sheet.path, name, role, counts),
            )


def split_rows(entries: Sequence[Entry], split: str, known: Collection[str]) -> list[Entry]:
    """Return the entries of one split; all of them where the sheet holds no more than one.

    Args:
        known: the sheets they are of, for messages.

    Raises:
        InputError: no entry is of that split; names those that there are.
    """
    counts = Counter(entry.split for entry in entries if entry.split)
    if len(counts) < 2:
        return list(entries)
    names = next((same for same in _SYNONYMS if split.lower() in same), (split.lower(),))
    chosen = [entry for entry in entries if entry.split.lower() in names]
    if not chosen:
        there = ", ".join(f"{name!r} ({count} rows)" for name, count in counts.items())
        raise InputError(
            f"{', '.join(known)}: no row is of split {split!r}; the splits there are {there}; "
            "fine-tuning takes 'train' and 'val', eval and score what --split says"
        )
    unnamed = len(entries) - sum(counts.values())
    log.info(
        "%s: %d of %d rows are of split %r, %d of others, %d of none",
        *(", ".join(known), len(chosen), len(entries), split),
        *(len(entries) - len(chosen) - unnamed, unnamed),
    )
    return chosen


_SYNONYMS = (("train", "training"), ("val", "valid", "validation", "dev"), ("test", "testing"))
