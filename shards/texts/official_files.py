"""The official files of captions, questions and statements, told apart by their structure.

There is one reader for each layout. It checks what every user of the file needs and gives plain
records; who needs more fields asks for them with `require` and the `where` of the record.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from semvlp.documents import from_json
from semvlp.errors import InputError, shown
from semvlp.shards.texts.annotation_files import (
    ID,
    Document,
    Line,
    Lines,
    first_has,
    head_of,
    listed,
    parse_lines,
    read_text,
    require,
    require_text,
)
from semvlp.shards.texts.image_ids import file_names

OPTIONAL_ID = (int, str, NoneType)
# Flickr30k numbers the captions of an image: `1000092795.jpg#0`.
_CAPTION_NUMBER = re.compile(r"#[0-9]+$")


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of an official file; the fields that its reader names are there."""

    where: str
    """File and number of the line or entry, for messages."""
    fields: Mapping[str, Any]
    """The entry as it stands in the file."""
    image: str = ""
    """Its image as the file spells it; empty where the entry names none."""
    key: str = ""
    """The id an entry stands under, where it does not hold it."""


Reader = Callable[[Any, Path], Iterator[Record]]
Fits = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Layout:
    """One kind of file: what tells it apart, how it is read, and which task is scored on it."""

    name: str
    fits: Fits
    """Tells by the one JSON object of a file, by the first of several, or by the first line."""
    read: Reader | None = None
    """None where the task alone reads such a file."""
    task: str = ""
    """Empty where there is none."""
    listed: bool = False
    """Whether the file has many such objects, in a list or on lines."""


def read_document(path: Path) -> Any:
    """Return the one JSON value of a file.

    Raises:
        InputError: no such file, not UTF-8, not JSON.
    """
    try:
        return from_json(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: must be one JSON value; {error}{looks_like(path)}") from error


def read_lines(path: Path) -> list[Line]:
    """Return the JSON object of every line that is not blank.

    Raises:
        InputError: no such file, not UTF-8, no line, a line that is no JSON object.
    """
    lines = parse_lines(read_text(path), path, looks_like)
    if not lines:
        raise InputError(f"{path}: must hold JSON lines, but it is empty")
    return lines


def wrong_file(path: Path, expected: str) -> InputError:
    """Return the error for a file of another kind; it says what the file looks like instead."""
    return InputError(f"{path}: must be {expected}{looks_like(path) or '; it has another layout'}")


def layout_of(document: Any) -> Layout | None:
    """Return the layout of what `parse` gave, None where it is none of the known."""
    document = head_of(document)
    first = document[0] if isinstance(document, list) and document else document
    if isinstance(document, Lines):
        first = document.first
    if isinstance(first, Line):
        first = first.value
        if isinstance(first, str):
            return TAB_LINES if TAB_LINES.fits(first) else None
    if not isinstance(first, dict):
        return None
    alone = isinstance(document, dict)
    fitting = (layout for layout in LAYOUTS if (alone or layout.listed) and layout.fits(first))
    return next(fitting, None)


def coco_captions(document: Any, path: Path) -> Iterator[Record]:
    """Read captions: `image_id` and `caption`, the image by its file name where that is listed."""
    head = head_of(document)
    lists = {"images": head.get("images") or [], "annotations": head.get("annotations")}
    require(lists, {"images": list, "annotations": list}, str(path))
    names = file_names(document, path)
    for where, entry in listed(document, "annotations", path):
        require(entry, {"image_id": ID, "caption": str}, where)
        yield Record(where, entry, names(entry["image_id"]))


def karpathy_images(document: Any, path: Path) -> Iterator[Record]:
    """Read images: `filename` and `sentences`, each of which has its text in `raw`."""
    require(head_of(document), {"images": list}, str(path))
    for where, image in listed(document, "images", path):
        require(image, {"filename": str, "sentences": list}, where)
        require_text(image["sentences"], "raw", where)
        yield Record(where, image, image["filename"])


def vqa_questions(document: Any, path: Path) -> Iterator[Record]:
    """Read questions: `question_id`, `image_id` and `question`."""
    require(head_of(document), {"questions": list}, str(path))
    for where, entry in listed(document, "questions", path):
        require(entry, {"question_id": ID, "image_id": ID, "question": str}, where)
        yield Record(where, entry, str(entry["image_id"]))


def vqa_annotations(document: Any, path: Path) -> Iterator[Record]:
    """Read the answers of people: `question_id`, and `answers` with `answer` in each."""
    require(head_of(document), {"annotations": list}, str(path))
    for where, entry in listed(document, "annotations", path):
        require(entry, {"question_id": ID, "answers": list}, where)
        require_text(entry["answers"], "answer", f"{where}: answers")
        yield Record(where, entry)


def gqa_questions(document: Any, path: Path) -> Iterator[Record]:
    """Read questions, which stand under their ids: `imageId`, `question`, and `answer` if known."""
    for key, entry in document.items():
        where = f"{path}: question {key!r}"
        require(entry, {"question": str, "imageId": ID}, where)
        if "answer" in entry:
            require(entry, {"answer": str}, where)
        yield Record(where, entry, str(entry["imageId"]), key)


def visual_genome_questions(document: Any, path: Path) -> Iterator[Record]:
    """Read questions, which are listed by image: `question` and `answer`."""
    for group in objects(document, path):
        require(group.fields, {"qas": list}, group.where)
        for entry in group.fields["qas"]:
            require(entry, {"question": str, "answer": str}, group.where)
            named = {"image_id": entry.get("image_id", group.fields.get("id"))}
            named["qa_id"] = entry.get("qa_id")
            require(named, {"image_id": ID, "qa_id": OPTIONAL_ID}, group.where)
            yield Record(group.where, entry, str(named["image_id"]))


def semvlp_texts(document: Any, path: Path) -> Iterator[Record]:
    """Read our own objects: `image_id`, and lists of `captions` and `questions`."""
    for record in objects(document, path):
        lists = {name: list for name in ("captions", "questions") if name in record.fields}
        require(record.fields, {"image_id": ID, **lists}, record.where)
        yield Record(record.where, record.fields, str(record.fields["image_id"]))


def tab_lines(document: Any, path: Path) -> Iterator[Record]:
    """Read `id<TAB>text` lines: the text is in the field `caption`."""
    for number, line in document:
        name, tab, text = line.partition("\t")
        if not tab:
            raise InputError(f"{path}:{number}: must be an id, a tab and a text, got {shown(line)}")
        image = _CAPTION_NUMBER.sub("", name.strip())
        yield Record(f"{path}:{number}", {"caption": text}, image)


def objects(document: Any, path: Path) -> Iterator[Record]:
    """Read the objects of a list or of JSON lines, or the only one of a file."""
    if isinstance(document, Document):
        is_list = isinstance(document.head, list)
        document = document.entries() if is_list else dict(document.items())
    if isinstance(document, dict):
        yield Record(str(path), document)
        return
    for number, entry in enumerate(document, start=1):
        if isinstance(entry, Line):
            yield Record(f"{path}:{entry.number}", entry.value)
            continue
        if not isinstance(entry, dict):
            raise InputError(f"{path}: entry {number}: must be an object, got {shown(entry)}")
        yield Record(f"{path}: entry {number}", entry)


def looks_like(path: Path) -> str:
    """Say what a file looks like: `; it looks like NLVR2 JSON lines (task nlvr2)`."""
    text = read_text(path).strip()
    # Of damaged lines the first still tells.
    for part in (text, text.partition("\n")[0]):
        try:
            layout = layout_of(from_json(part))
        except json.JSONDecodeError:
            continue
        task = f" (task {layout.task})" if layout and layout.task else ""
        return f"; it looks like {layout.name}{task}" if layout else ""
    return ""


def _lists(member: str, *fields: str) -> Fits:
    """Make the test whether an object has a list `member` of objects with these fields."""
    return lambda first: first_has(first.get(member), *fields)


def _maps_to(*fields: str) -> Fits:
    """Make the test whether the values of an object are objects with these fields."""
    return lambda first: first_has([next(iter(first.values()), None)], *fields)


def _identified(dashes: int) -> Fits:
    """Make the test whether an object has an `identifier` of so many dashes."""
    return lambda first: str(first.get("identifier", "")).count("-") == dashes


def _is_ours(first: dict[str, Any]) -> bool:
    return "image_id" in first and bool({"captions", "questions"} & set(first))


def _is_row(first: dict[str, Any]) -> bool:
    images = {"image", "img", "img_id", "image_id", "image_name", "img_name", "left"}
    return bool(images & first.keys() and {"text", "question", "sent", "sentence"} & first.keys())


_VQA_QUESTIONS = _lists("questions", "question_id", "image_id")
_VQA_ANNOTATIONS = _lists("annotations", "question_id", "answers")

TAB_LINES = Layout("id<TAB>text lines", lambda first: "\t" in first, tab_lines)
LAYOUTS = (
    Layout("COCO captions", _lists("annotations", "caption"), coco_captions, "retrieval"),
    Layout("Karpathy split", _lists("images", "sentences"), karpathy_images, "retrieval"),
    Layout("VQA v2 questions", _VQA_QUESTIONS, vqa_questions, "vqa"),
    Layout("VQA v2 annotations", _VQA_ANNOTATIONS, vqa_annotations, "vqa"),
    Layout("GQA questions", _maps_to("question", "imageId"), gqa_questions, "gqa"),
    Layout("GQA choices", _maps_to("valid", "plausible"), task="gqa"),
    Layout(
        "Visual Genome questions",
        lambda first: "qas" in first,
        visual_genome_questions,
        listed=True,
    ),
    Layout('JSON lines {"image_id", "captions", "questions"}', _is_ours, semvlp_texts, listed=True),
    Layout("MDETR's referring expressions", _lists("images", "caption"), task="refcoco"),
    Layout("referring expressions of MAttNet", _lists("refs", "ref_id"), task="refcoco"),
    Layout(
        "referring expressions",
        lambda first: "bbox" in first and bool({"sent", "expression"} & set(first)),
        task="refcoco",
        listed=True,
    ),
    Layout("NLVR2 JSON lines", _identified(3), task="nlvr2", listed=True),
    Layout("NLVR JSON lines", _identified(1), task="nlvr", listed=True),
    Layout("SNLI-VE JSON lines", lambda first: "pairID" in first, task="snli-ve", listed=True),
    Layout("a table with a row in each object", _is_row, task="table", listed=True),
)
"""The first that fits is taken; lines of plain text have but one."""
