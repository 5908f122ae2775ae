"""Captions and questions by image, gathered from any mixture of official files."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from semvlp.errors import InputError
from semvlp.shards.record import Question, Texts
from semvlp.shards.texts.image_ids import ImageIds
from semvlp.shards.texts.official_files import Answered, Asked, Captioned, Entry, read_entries

log = logging.getLogger(__name__)


def read_texts(paths: Sequence[Path]) -> dict[str, Texts]:
    """The texts of every image, by its name as the files spell it.

    The kind of a file is told by its structure: COCO captions, Karpathy split, VQA v2 questions and
    annotations, GQA, Visual Genome questions, `id<TAB>text` lines, JSON lines of
    `{"image_id", "captions", "questions": [{"question", "answers": {answer: score}}]}`; each may be
    gzipped. A `.tar` of images gives the captions in its JSON and text members. VQA v2 files may
    come in any order; questions without annotations have no answers.

    Raises:
        InputError: a file of unknown structure, or annotations none of whose questions was given.
    """
    captions: dict[str, list[str]] = {}
    questions: dict[str, list[Question]] = {}
    answers: dict[str | int, dict[str, float]] = {}
    for entry in chain.from_iterable(_entries(path) for path in paths):
        match entry:
            case Captioned(image, caption):
                captions.setdefault(image, []).append(caption)
            case Asked(image, question):
                questions.setdefault(image, []).append(question)
            case Answered(question_id, given):
                answers[question_id] = given
    _check_answers(answers, questions.values(), paths)
    return {
        image: Texts(
            captions=tuple(captions.get(image, ())),
            questions=tuple(_answered(question, answers) for question in questions.get(image, ())),
        )
        for image in {**captions, **questions}
    }


def match_texts(
    texts: Mapping[str, Texts], image_ids: Iterable[str]
) -> tuple[dict[str, Texts], list[str]]:
    """The texts by the ids of a data set, and the names that no image of it has.

    Names that mean the same image (`COCO_val2014_000000000139.jpg` and 139) are merged.

    Raises:
        InputError: a name that fits several images.
    """
    ids = ImageIds(image_ids)
    matched: dict[str, Texts] = {}
    unmatched = []
    for name, found in texts.items():
        image_id = ids.find(name)
        if image_id is None:
            unmatched.append(name)
        else:
            matched[image_id] = merge(matched.get(image_id, Texts()), found)
    return matched, unmatched


def merge(first: Texts, second: Texts) -> Texts:
    """Both texts, the first before the second."""
    return Texts(
        captions=first.captions + second.captions, questions=first.questions + second.questions
    )


def _entries(path: Path) -> list[Entry]:
    """The entries of a file that say something; empty texts are counted and left out."""
    entries = read_entries(path)
    kept = [entry for entry in entries if not _is_empty(entry)]
    if len(kept) < len(entries):
        log.warning("%s: left out %d empty texts", path, len(entries) - len(kept))
    return kept


def _is_empty(entry: Entry) -> bool:
    match entry:
        case Captioned(_, caption):
            return not caption
        case Asked(_, question):
            return not question.question
    return False


def _answered(question: Question, answers: Mapping[str | int, dict[str, float]]) -> Question:
    found = None if question.question_id is None else answers.get(question.question_id)
    return question if found is None else replace(question, answers=found)


def _check_answers(
    answers: Mapping[str | int, object],
    questions: Iterable[Sequence[Question]],
    paths: Sequence[Path],
) -> None:
    asked = {question.question_id for group in questions for question in group}
    alone = sum(question_id not in asked for question_id in answers)
    if answers and alone == len(answers):
        names = ", ".join(map(str, paths))
        raise InputError(
            f"{names}: the annotations answer questions that no file asks; give the questions file "
            "of the same split too"
        )
    if alone:
        log.warning("%d of %d annotated answers belong to no given question", alone, len(answers))
