"""Questions as other sets than VQA v2 write them: one list of objects, with or without answers.

VQA-CP lists VQA v2's questions and annotations, VizWiz, VQA-RAD, SLAKE, ALBEF and LXMERT one object
with everything for each question.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semvlp.eval.files.columns import Entry, entries_of, roles_of
from semvlp.eval.files.sheet import Row, Sheet
from semvlp.shards.texts.official_files import objects


def as_official(document: Any, path: Path) -> dict[str, Any]:
    """Return a list of questions or annotations as the one object that VQA v2 makes of it.

    What is no such list is returned as it is if it is an object, else as an empty one. A question
    without an id gets its number, from 1. An annotation states `scores` where the list
    has the score of each answer, as LXMERT's has, instead of what people said.

    Raises:
        InputError: an entry without image, question or, unlike others, id; names it.
    """
    if isinstance(document, dict) or not document or not isinstance(document, list):
        return document if isinstance(document, dict) else {}
    first = document[0] if isinstance(document[0], dict) else {}
    if "question_id" in first and "answers" in first and "question" not in first:
        return {"annotations": document}
    if not {"question", "sent"} & first.keys():
        return {}
    rows = [Row(record.where, record.fields) for record in objects(document, path)]
    columns = dict.fromkeys(name for row in rows for name in row.cells)
    sheet = Sheet(path, tuple(columns), rows)
    entries = list(enumerate(entries_of(sheet, roles_of(sheet, {})), start=1))
    known = [_annotation(number, e) for number, e in entries if e.answers or e.scores]
    return {
        "questions": [_question(number, entry) for number, entry in entries],
        **({"annotations": known} if known else {}),
    }


def main_answer(answers: Mapping[str, float]) -> str:
    """Return the answer with the highest score or count, of equals the first."""
    return max(answers, key=lambda answer: answers[answer], default="")


def _id(number: int, entry: Entry) -> Any:
    return number if entry.entry_id is None else entry.entry_id


def _question(number: int, entry: Entry) -> dict[str, Any]:
    return {
        "question_id": _id(number, entry),
        "image_id": entry.images[0],
        "question": entry.text,
    }


def _annotation(number: int, entry: Entry) -> dict[str, Any]:
    own = {
        name: entry.cells[name] for name in ("answer_type", "question_type") if name in entry.cells
    }
    return {
        **own,
        "question_id": _id(number, entry),
        "multiple_choice_answer": main_answer(entry.scores or Counter(entry.answers)),
        "answers": [{"answer": answer} for answer in entry.answers],
        "scores": dict(entry.scores),
    }
