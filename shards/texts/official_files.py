"""The official files that captions and questions come in, told apart by their structure."""

import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semvlp.errors import InputError
from semvlp.shards.record import Question
from semvlp.shards.texts.image_tars import captions_in_tar

GZIP_MAGIC = b"\x1f\x8b"
# Flickr30k numbers the captions of an image: `1000092795.jpg#0`.
_CAPTION_NUMBER = re.compile(r"#[0-9]+$")


@dataclass(frozen=True, slots=True)
class Captioned:
    """One caption of an image."""

    image: str
    caption: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One question about an image."""

    image: str
    question: Question


@dataclass(frozen=True, slots=True)
class Answered:
    """The soft answers of a question that stands in another file."""

    question_id: str | int
    answers: dict[str, float]


Entry = Captioned | Asked | Answered


@dataclass(frozen=True, slots=True)
class TextFormat:
    """One kind of file: what tells it apart, and how its entries are read."""

    name: str
    fits: Callable[[Any], bool]
    entries: Callable[[Any], Iterator[Entry]]


def read_entries(path: Path) -> list[Entry]:
    """Every caption, question and answer of one file, in file order.

    Raises:
        InputError: the file cannot be read, has no known structure, or an entry lacks a field.
    """
    if path.suffix.lower() == ".tar":
        return [Captioned(image, caption) for image, caption in captions_in_tar(path)]
    document = _parse(path)
    for text_format in TEXT_FORMATS:
        if text_format.fits(document):
            return _read_as(text_format, document, path)
    known = ", ".join(text_format.name for text_format in TEXT_FORMATS)
    raise InputError(f"{path}: expected one of: {known}; found {_describe(document)}")


def _read_as(text_format: TextFormat, document: Any, path: Path) -> list[Entry]:
    entries: list[Entry] = []
    try:
        for entry in text_format.entries(document):
            entries.append(entry)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{path}: entry {len(entries)} (from 0) of this {text_format.name} file is damaged: "
            f"{type(error).__name__}: {error}"
        ) from error
    return entries


def soft_answers(answers: Sequence[str]) -> dict[str, float]:
    """Scores 0.3, 0.6, 0.9, 1 for an answer that 1, 2, 3, more of the ten people gave.

    Source: the averaged accuracy of the VQA challenge (Goyal et al. 2017), as in
    hengyuan-hu/bottom-up-attention-vqa tools/compute_softscore.py.
    """
    return {answer: min(3 * count, 10) / 10 for answer, count in Counter(answers).items()}


def _parse(path: Path) -> Any:
    """The JSON value, the list of JSON lines, or the list of (name, text) pairs in the file."""
    text = _read(path)
    if text.lstrip()[:1] not in ("{", "["):
        return _parse_lines(text)
    try:
        return json.loads(text)
    except json.JSONDecodeError as whole:
        if whole.msg != "Extra data":
            raise InputError(f"{path}: the JSON is damaged: {whole}") from whole
    return [_parse_json_line(path, *line) for line in enumerate(text.split("\n"), 1) if line[1]]


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: a text file in UTF-8 was expected: {error}") from error


def _parse_json_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {number}: not a JSON object: {error}") from error


def _parse_lines(text: str) -> list[tuple[str, ...]]:
    lines = (line.rstrip("\r") for line in text.split("\n"))
    return [tuple(line.split("\t", 1)) for line in lines if line.strip()]


def _describe(document: Any) -> str:
    if isinstance(document, Mapping):
        return f"a JSON object with the keys {', '.join(map(str, list(document)[:5])) or '(none)'}"
    if not document:
        return "nothing"
    first = document[0]
    if isinstance(first, tuple):
        return f"lines of text, one of them without a tab: {min(document, key=len)[0][:60]!r}"
    return f"a list whose first entry is {json.dumps(first, ensure_ascii=False)[:80]}"


def _holds(document: Any, member: str, *fields: str) -> bool:
    """Whether `document[member]` is a list of objects with these fields, by its first entry."""
    return isinstance(document, Mapping) and _first_has(document.get(member), *fields)


def _first_has(entries: Any, *fields: str) -> bool:
    return (
        isinstance(entries, list)
        and bool(entries)
        and isinstance(entries[0], Mapping)
        and set(fields) <= set(entries[0])
    )


def _is_gqa(document: Any) -> bool:
    return isinstance(document, Mapping) and _first_has(
        list(document.values())[:1], "imageId", "question"
    )


def _is_ours(document: Any) -> bool:
    entries = document if isinstance(document, list) else [document]
    return _first_has(entries, "image_id") and bool({"captions", "questions"} & set(entries[0]))


def _is_lines(document: Any) -> bool:
    return (
        isinstance(document, list)
        and bool(document)
        and all(isinstance(line, tuple) and len(line) == 2 for line in document)
    )


def _coco_captions(document: Any) -> Iterator[Entry]:
    names = {image["id"]: image["file_name"] for image in document.get("images", ())}
    for entry in document["annotations"]:
        image = entry["image_id"]
        yield Captioned(str(names.get(image, image)), entry["caption"].strip())


def _karpathy(document: Any) -> Iterator[Entry]:
    for image in document["images"]:
        for sentence in image["sentences"]:
            yield Captioned(image["filename"], sentence["raw"].strip())


def _vqa_questions(document: Any) -> Iterator[Entry]:
    for entry in document["questions"]:
        question = Question(question=entry["question"].strip(), question_id=entry["question_id"])
        yield Asked(str(entry["image_id"]), question)


def _vqa_annotations(document: Any) -> Iterator[Entry]:
    for entry in document["annotations"]:
        given = [answer["answer"] for answer in entry["answers"]]
        yield Answered(entry["question_id"], soft_answers(given))


def _gqa(document: Any) -> Iterator[Entry]:
    for question_id, entry in document.items():
        answers = {entry["answer"]: 1.0} if "answer" in entry else {}
        question = Question(
            question=entry["question"].strip(), answers=answers, question_id=question_id
        )
        yield Asked(str(entry["imageId"]), question)


def _visual_genome(document: Any) -> Iterator[Entry]:
    for image in document:
        for entry in image["qas"]:
            # "Green." and "green" must be one answer, as VQA and GQA spell it.
            answer = entry["answer"].strip().removesuffix(".").lower()
            question = Question(
                question=entry["question"].strip(),
                answers={answer: 1.0},
                question_id=entry.get("qa_id"),
            )
            yield Asked(str(entry.get("image_id", image["id"])), question)


def _ours(document: Any) -> Iterator[Entry]:
    for entry in document if isinstance(document, list) else [document]:
        image = str(entry["image_id"])
        for caption in entry.get("captions", ()):
            yield Captioned(image, caption.strip())
        for asked in entry.get("questions", ()):
            question = Question(
                question=asked["question"].strip(),
                answers=_scores(asked.get("answers", {})),
                question_id=asked.get("question_id"),
            )
            yield Asked(image, question)


def _lines(document: Any) -> Iterator[Entry]:
    for name, text in document:
        yield Captioned(_CAPTION_NUMBER.sub("", name.strip()), text.strip())


def _scores(answers: Mapping[str, float]) -> dict[str, float]:
    scores = {str(answer): float(score) for answer, score in answers.items()}
    if not all(math.isfinite(score) and 0 <= score <= 1 for score in scores.values()):
        raise ValueError(f"the scores of answers must be in 0..1, got {scores}")
    return scores


TEXT_FORMATS = (
    TextFormat(
        "COCO captions",
        lambda document: _holds(document, "annotations", "image_id", "caption"),
        _coco_captions,
    ),
    TextFormat(
        "Karpathy split",
        lambda document: _holds(document, "images", "filename", "sentences"),
        _karpathy,
    ),
    TextFormat(
        "VQA v2 questions",
        lambda document: _holds(document, "questions", "question_id", "image_id", "question"),
        _vqa_questions,
    ),
    TextFormat(
        "VQA v2 annotations",
        lambda document: _holds(document, "annotations", "question_id", "answers"),
        _vqa_annotations,
    ),
    TextFormat("GQA questions", _is_gqa, _gqa),
    TextFormat(
        "Visual Genome questions",
        lambda document: _first_has(document, "id", "qas") or _first_has(document, "qas"),
        _visual_genome,
    ),
    TextFormat('JSON lines {"image_id", "captions", "questions"}', _is_ours, _ours),
    TextFormat("id<TAB>text lines", _is_lines, _lines),
)
