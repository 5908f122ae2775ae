"""Leaderboard files: written whole, read back, and refused where a leaderboard would refuse."""

import csv
import hashlib
import io
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from semvlp import atomic
from semvlp.errors import InputError
from semvlp.eval.files.forms import Form
from semvlp.eval.task import Answer, Choice, Example, ExampleId, Rank, Referent, Submission
from semvlp.shards.texts.parquet_rows import MAGIC, parquet_rows

log = logging.getLogger(__name__)

A = TypeVar("A", str, Rank, Choice, Referent)
SHOWN = 10


def write(form: Form, answers: Mapping[ExampleId, Answer], path: Path) -> Submission:
    """Write `answers` in the order given, then read the file back and compare.

    Raises:
        InputError: answers that this form of file cannot say, such as an id with a comma.
    """
    if not answers:
        raise InputError(f"{path}: a leaderboard file must hold answers, but there are none")
    # Checked before the file exists: what a leaderboard would refuse is never written.
    text = form.render(answers)
    _compare(_parse(form, text, path), answers, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, text)
    _compare(read(form, path), answers, path)
    data = text.encode()
    digest = hashlib.sha256(data).hexdigest()
    log.info("%s: %d answers, %d bytes, sha256 %s", path, len(answers), len(data), digest)
    return Submission(path=path, count=len(answers), size=len(data), sha256=digest)


def read(form: Form, path: Path) -> dict[ExampleId, Answer]:
    """Return the answers of a leaderboard file, or of the same rows in parquet.

    Raises:
        InputError: no such file, a byte order mark, an id that occurs twice, or any entry that
            `form` refuses; names the file and the entry.
    """
    try:
        data = path.read_bytes()
        text = _text(parquet_rows(path), form) if data.startswith(MAGIC) else data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a UTF-8 text file: {error}") from error
    return _parse(form, text, path)


def unique(examples: Iterable[Example], paths: Sequence[Path]) -> list[Example]:
    """Return the examples of these annotation files as a list, their ids compared.

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


def check_ids(expected: Sequence[ExampleId], given: Iterable[ExampleId], where: object) -> None:
    """Check that `given` are exactly the `expected` ids, in their own types.

    Raises:
        InputError: counts and first ids of what is missing and of what is too much.
    """
    wanted, present = dict.fromkeys(expected), dict.fromkeys(given)
    missing = [key for key in wanted if key not in present]
    extra = [key for key in present if key not in wanted]
    if not missing and not extra:
        return
    parts = [
        f"{len(keys)} {what} ({_shown(keys)})"
        for what, keys in (("missing", missing), ("not in the annotations", extra))
        if keys
    ]
    raise InputError(
        f"{where}: must answer each of the {len(wanted)} ids of the annotations once; "
        f"{' and '.join(parts)}{_cast_hint(missing, extra)}"
    )


def checked(
    ids: Sequence[ExampleId], answers: Mapping[ExampleId, Answer], kind: type[A]
) -> list[A]:
    """Return the answers to `ids` in their order, each of the type `kind`.

    Raises:
        InputError: missing or extra ids, or an answer of another type.
    """
    check_ids(ids, answers, "answers")
    typed: list[A] = []
    for key in ids:
        answer = answers[key]
        if not isinstance(answer, kind):
            raise InputError(f"answer to {key!r} must be {kind.__name__}, got {answer!r}")
        typed.append(answer)
    return typed


def _parse(form: Form, text: str, path: Path) -> dict[ExampleId, Answer]:
    if text.startswith("\ufeff"):
        raise InputError(f"{path}: must start without a byte order mark; save it as plain UTF-8")
    answers: dict[ExampleId, Answer] = {}
    again: dict[ExampleId, str] = {}
    try:
        for where, key, answer in form.parse(text):
            if key in answers:
                again.setdefault(key, where)
            answers[key] = answer
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if again:
        places = _shown([f"{key} in {where}" for key, where in again.items()])
        raise InputError(f"{path}: every id must occur once; {len(again)} do again ({places})")
    return answers


def _text(rows: Sequence[Mapping[str, Any]], form: Form) -> str:
    """Return rows as the file of a form has them."""
    if form.extension == ".json":
        return json.dumps(rows)
    if form.extension == ".jsonl":
        return "".join(f"{json.dumps(row)}\n" for row in rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _compare(
    read_back: Mapping[ExampleId, Answer], meant: Mapping[ExampleId, Answer], path: Path
) -> None:
    if list(read_back.items()) != list(meant.items()):
        raise InputError(f"{path}: read back, it does not hold the answers that were meant")


def _shown(keys: Sequence[ExampleId]) -> str:
    return ", ".join(repr(key) for key in keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")


def _cast_hint(missing: Sequence[ExampleId], extra: Sequence[ExampleId]) -> str:
    """Return a hint on ids that only a cast to a number or to text made different."""
    stripped = {str(key).lstrip("0") for key in missing}
    cast = [key for key in extra if str(key).lstrip("0") in stripped]
    return f"; {len(cast)} ids were cast to another type or lost zeros" if cast else ""
