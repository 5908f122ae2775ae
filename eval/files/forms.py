"""The file formats of leaderboards: JSON array, JSON or comma lines, choices, ranks, boxes."""

import csv
import io
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from semvlp.documents import from_json
from semvlp.errors import InputError, shown
from semvlp.eval.task import Answer, Box, Choice, ExampleId, Rank, Referent

Pairs = Iterator[tuple[str, ExampleId, Answer]]


class Form(Protocol):
    """How answers become the text of a file, and back."""

    @property
    def extension(self) -> str:
        """The end of the file name, with the dot."""

    def render(self, answers: Mapping[ExampleId, Answer]) -> str:
        """Return the whole text, LF line ends and one final newline."""

    def parse(self, text: str) -> Pairs:
        """Yield the place in the file, the id and the answer of every entry.

        Raises:
            InputError: anything the leaderboard would refuse or silently count as wrong.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonArray:
    """`[{"question_id": 1, "answer": "yes"}, ...]`."""

    id_field: str
    answer_field: str
    id_type: type[int] | type[str]

    extension = ".json"

    def render(self, answers: Mapping[ExampleId, Answer]) -> str:
        entries = [{self.id_field: key, self.answer_field: text} for key, text in answers.items()]
        return _json(entries)

    def parse(self, text: str) -> Pairs:
        document = _load(text, f'one JSON array of {{"{self.id_field}", "{self.answer_field}"}}')
        if not isinstance(document, list):
            raise InputError(f"must be one JSON array, got {type(document).__name__}")
        for number, entry in enumerate(document, start=1):
            where = f"entry {number}"
            key = _field(entry, self.id_field, self.id_type, where)
            yield where, key, _field(entry, self.answer_field, str, f"{where} (id {key!r})")


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLines:
    """`{"pairID": "4564320256.jpg#0r1e", "label": "entailment"}`, one object a line."""

    id_field: str
    answer_field: str
    labels: Collection[str]

    extension = ".jsonl"

    def render(self, answers: Mapping[ExampleId, Answer]) -> str:
        lines = (
            _json({self.id_field: key, self.answer_field: text}) for key, text in answers.items()
        )
        return "".join(lines)

    def parse(self, text: str) -> Pairs:
        for number, line in _lines(text):
            where = f"line {number}"
            entry = _load(line, f"a JSON object on each line, {where}")
            key = _field(entry, self.id_field, str, where)
            answer = _field(entry, self.answer_field, str, f"{where} (id {key!r})")
            yield where, key, _label(answer, self.labels, where)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommaLines:
    """`dev-850-0-0,True`, without header; the official scripts compare labels in lower case."""

    labels: Collection[str]

    extension = ".csv"

    def render(self, answers: Mapping[ExampleId, Answer]) -> str:
        return "".join(f"{key},{text}\n" for key, text in answers.items())

    def parse(self, text: str) -> Pairs:
        spelling = {label.lower(): label for label in self.labels}
        for number, line in _lines(text):
            where = f"line {number}"
            fields = line.removesuffix("\r").split(",")
            if len(fields) != 2 or any(f != f.strip() or not f or '"' in f for f in fields):
                raise InputError(f"{where}: must be `id,label` without blanks, got {shown(line)}")
            key, answer = fields
            if number == 1 and answer.lower() not in spelling:
                raise InputError(f"{where}: must be `id,label` and no header, got {shown(line)}")
            yield where, key, _label(spelling.get(answer.lower(), answer), self.labels, where)


class ChoiceFile:
    """`id,prediction,probability` with this header; whoever predicts may leave out the last."""

    extension = ".csv"
    columns = ("id", "prediction", "probability")

    def render(self, answers: Mapping[ExampleId, Answer]) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        for key, answer in answers.items():
            assert isinstance(answer, Choice)
            writer.writerow((key, *answer))
        return text.getvalue()

    def parse(self, text: str) -> Pairs:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            header = next(reader, [])
            if {*header} != {*self.columns} and {*header} != {*self.columns[:2]}:
                wanted = ",".join(self.columns)
                raise InputError(f"line 1: must be the header {wanted}, got {shown(header)}")
            for cells in reader:
                where = f"line {reader.line_num}"
                if len(cells) != len(header):
                    raise InputError(f"{where}: must have {len(header)} cells, got {shown(cells)}")
                row = dict(zip(header, cells, strict=True))
                chance = _chance(row.get("probability", ""), where)
                yield where, row["id"], Choice(row["prediction"], chance)
        except csv.Error as error:
            raise InputError(f"line {reader.line_num}: {error}") from error


def _chance(text: str, where: str) -> float | None:
    """Return a probability as it is written; None where nothing is."""
    if not text:
        return None
    try:
        chance = float(text)
    except ValueError:
        chance = -1.0
    if not 0 <= chance <= 1:
        raise InputError(f"{where}: the probability must be in 0..1, got {shown(text)}")
    return chance


class RankFile:
    """`{"captions": [{"caption_id", "rank", "ties"}], "images": [{"image", "rank", "ties"}]}`.

    Entries of splits that are also scored by folds have `fold_rank` and `fold_ties` too.
    """

    extension = ".json"

    def render(self, answers: Mapping[ExampleId, Answer]) -> str:
        captions, images = [], []
        for key, answer in answers.items():
            assert isinstance(answer, Rank)
            numbers = {name: n for name, n in answer._asdict().items() if n is not None}
            if isinstance(key, int):
                captions.append({"caption_id": key, **numbers})
            else:
                images.append({"image": key, **numbers})
        return _json({"captions": captions, "images": images})

    def parse(self, text: str) -> Pairs:
        document = _load(text, 'one JSON object with "captions" and "images"')
        for part, name, kind in (("captions", "caption_id", int), ("images", "image", str)):
            for number, entry in enumerate(_field(document, part, list, "the file"), start=1):
                where = f"{part}, entry {number}"
                key = _field(entry, name, kind, where)
                yield where, key, _rank(entry, f"{where} (id {key!r})")


class BoxFile:
    """`[{"ref_id": 1, "sent_id": 4, "box": [x, y, width, height]}, ...]`, in pixels."""

    extension = ".json"

    def render(self, answers: Mapping[ExampleId, Answer]) -> str:
        entries = [
            {"ref_id": answer.ref_id, "sent_id": key, "box": answer.box}
            for key, answer in answers.items()
            if isinstance(answer, Referent)
        ]
        return _json(entries)

    def parse(self, text: str) -> Pairs:
        document = _load(text, 'one JSON array of {"ref_id", "sent_id", "box"}')
        if not isinstance(document, list):
            raise InputError(f"must be one JSON array, got {type(document).__name__}")
        for number, entry in enumerate(document, start=1):
            where = f"entry {number}"
            key = _field(entry, "sent_id", int, where)
            where = f"{where} (sent_id {key})"
            ref_id = _field(entry, "ref_id", int, where)
            yield where, key, Referent(ref_id, box_of(_field(entry, "box", list, where), where))


def box_of(value: Any, where: str) -> Box:
    """Return x, y, width, height as four finite numbers that make a box.

    Raises:
        InputError: names `where` and what is there instead.
    """
    x, y, width, height = four_numbers(value, where)
    if width <= 0 or height <= 0:
        raise InputError(f"{where}: a box must have a width and a height, got {shown(value)}")
    return x, y, width, height


def four_numbers(value: Any, where: str) -> Box:
    """Return four finite numbers.

    Raises: as `box_of`.
    """
    try:
        first, second, third, fourth = (float(number) for number in _numbers(value))
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: a box must be four numbers, got {shown(value)}") from error
    return first, second, third, fourth


def _numbers(value: Any) -> Iterator[int | float]:
    for number in value if isinstance(value, list | tuple) else ():
        if type(number) not in (int, float) or not math.isfinite(number):
            raise ValueError(number)
        yield number


def _rank(entry: dict[str, Any], where: str) -> Rank:
    folds = ("fold_rank", "fold_ties") if "fold_rank" in entry or "fold_ties" in entry else ()
    numbers = {name: _field(entry, name, int, where) for name in ("rank", "ties", *folds)}
    for name, number in numbers.items():
        if number < name.endswith("rank"):
            raise InputError(f"{where}: ranks start at 1 and ties at 0, got {name} {number}")
    return Rank(**numbers)


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False) + "\n"


def _load(text: str, wanted: str) -> Any:
    try:
        return from_json(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        lines = "; it looks like JSON lines" if error.msg == "Extra data" else ""
        raise InputError(f"must be {wanted}; {error}{lines}") from error


def _refuse_constant(name: str) -> None:
    raise InputError(f"must be strict JSON, but it holds a bare {name}")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        if not line.strip():
            raise InputError(f"line {number}: blank lines are not allowed, not even at the end")
        yield number, line


def _field(entry: Any, name: str, kind: type[Any], where: str) -> Any:
    if not isinstance(entry, dict) or name not in entry:
        raise InputError(f"{where}: must be an object with {name!r}, got {shown(entry)}")
    value = entry[name]
    # `True` and `1.0` equal 1 in Python, but no leaderboard means them as an id.
    if type(value) is not kind:
        raise InputError(f"{where}: {name!r} must be of type {kind.__name__}, got {shown(value)}")
    return value


def _label(answer: str, labels: Collection[str], where: str) -> str:
    if answer not in labels:
        raise InputError(f"{where}: the label must be one of {', '.join(labels)}, got {answer!r}")
    return answer
