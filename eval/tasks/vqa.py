"""VQA v2: open questions about a photograph, ten human answers to each."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semvlp.errors import InputError
from semvlp.eval.files.forms import JsonArray
from semvlp.eval.files.question_lists import as_official, main_answer
from semvlp.eval.files.submission import check_ids, unique
from semvlp.eval.task import Answer, Example, ExampleId, Head, Loss, Task
from semvlp.eval.tasks.base import BaseTask
from semvlp.eval.tasks.vqa_answers import (
    PEOPLE,
    answer_credits,
    compared_spelling,
    is_plain,
    normalise,
    soft_target,
    trim,
)
from semvlp.shards.texts.annotation_files import first_has, require
from semvlp.shards.texts.official_files import (
    read_document,
    vqa_annotations,
    vqa_questions,
    wrong_file,
)

log = logging.getLogger(__name__)

TEST2015 = 447_793  # questions
# A single answer hardly ever has a larger share of at least so many questions.
MOST, FEW = 0.6, 100


class Vqa(BaseTask):
    """Scored by the official evaluator's rule of March 2021 (GT-Vision-Lab/VQA vqaEval.py)."""

    name = "vqa"
    head: Head = "pooled"
    loss: Loss = "binary_cross_entropy"
    metric = "accuracy"

    def __init__(self, min_occurrences: int = 9, id_type: type[int] | type[str] = int) -> None:
        """Take as labels the main answers of at least `min_occurrences` training questions.

        Nine are usual (hengyuan-hu/bottom-up-attention-vqa tools/compute_softscore.py). Ids of
        VQA v2 are numbers; other sets have text.
        """
        self.min_occurrences = min_occurrences
        self.form = JsonArray(id_field="question_id", answer_field="answer", id_type=id_type)

    def suited_to(self, paths: Sequence[Path], columns: Mapping[str, str]) -> Task:
        """Return the task with a leaderboard file of the questions' own kind of ids."""
        super().suited_to(paths, columns)
        for path in paths:
            document = as_official(read_document(path), path)
            if first_has(document.get("questions"), "question_id"):
                key = document["questions"][0]["question_id"]
                return Vqa(self.min_occurrences, str if isinstance(key, str) else int)
        return self

    def read(self, paths: Sequence[Path], *, split: str = "train") -> list[Example]:
        """Read questions files, and for splits with labels the annotations files beside them.

        Lists of questions as other sets write them are read too, with any number of answers each;
        see `question_lists`.
        """
        questions: list[Mapping[str, Any]] = []
        annotations: dict[ExampleId, Mapping[str, Any]] = {}
        for path in paths:
            document = as_official(read_document(path), path)
            if not _is_vqa(document):
                raise wrong_file(path, "a VQA v2 questions or annotations file")
            _warn_of_server(document, path)
            if "questions" in document:
                questions += _questions(document, path)
            if "annotations" in document:
                entries = _annotations(document, path)
                annotations |= {entry["question_id"]: entry for entry in entries}
        _check_pairing(questions, annotations, paths)
        return unique((_example(q, annotations.get(q["question_id"])) for q in questions), paths)

    def labels(self, examples: Sequence[Example]) -> list[str]:
        """Return the normalised main answers of enough questions, in alphabetical order.

        Of the training and validation questions that is the usual list of 3,129, the empty string
        ("the", "a") among them. A set too small for any answer to be frequent gets all of its
        answers. An answer without punctuation that is mostly given by all people alike is a label
        as they write it (`Yes`, `the left`): there the official score compares letter by letter.
        """
        labelled = [example for example in examples if example.target]
        counts = Counter(normalise(e.meta["main"]) for e in labelled)
        frequent = [answer for answer, n in counts.items() if n >= self.min_occurrences]
        alike = Counter(e.meta["answers"][0] for e in labelled if len({*e.meta["answers"]}) == 1)
        written = {
            normalise(answer): trim(answer)
            for answer, n in alike.items()
            if n > counts[normalise(answer)] / 2 and is_plain(trim(answer))
        }
        return sorted(written.get(answer, answer) for answer in frequent or counts)

    def spelling(self, answer: str) -> str:
        """Return the answer as the evaluator normalises it."""
        return normalise(answer)

    def example_score(self, example: Example, answer: Answer) -> float:
        """Return the official score of one answer, which `read` has computed or was told."""
        spelled = example.meta["spelling"](str(answer))
        return float(example.meta["credits"].get(spelled, 0.0))

    def warnings(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> list[str]:
        """Count answers that can hardly be right: not normalised, empty, nearly all the same."""
        given = [str(answer) for answer in answers.values()]
        odd = [answer for answer in given if normalise(answer) != answer]
        common, count = Counter(given).most_common(1)[0]
        share = count / len(given)
        warnings = {
            f"{len(odd)} answers are not in the evaluator's normal form, first {odd[:1]}; "
            "where all people agree they count as wrong": bool(odd),
            f"{given.count('')} answers are empty": "" in given,
            f"{share:.0%} of the answers are {common!r}": share > MOST and len(given) >= FEW,
        }
        return [warning for warning, holds in warnings.items() if holds]

    def details(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, Any]:
        """Say by what rule questions with fewer than ten answers are scored."""
        counts = sorted(
            {len(e.meta["answers"]) for e in examples if len(e.meta["answers"]) < PEOPLE}
        )
        return {"rule": "; ".join(_rule(count) for count in counts)} if counts else {}

    def score(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, float]:
        """Return `accuracy` over all questions and by answer type, rounded as officially."""
        scores = super().score(examples, answers)
        return {name: round(value, 2) for name, value in scores.items()}


def _is_vqa(document: Any) -> bool:
    if not isinstance(document, dict) or not document.keys() & {"questions", "annotations"}:
        return False
    # Other files have annotations too.
    return not document.get("annotations") or first_has(document["annotations"], "question_id")


def _warn_of_server(document: Mapping[str, Any], path: Path) -> None:
    """Say where a test file is not the one that the server asks for."""
    asked = document.get("questions", ())
    parts = document.get("data_subtype") == "test2015" and 0 < len(asked) != TEST2015
    if document.get("data_subtype") == "test-dev2015" or parts:
        log.warning(
            "%s: the server takes answers to all questions of test2015, which are %d",
            path,
            TEST2015,
        )


def _questions(document: dict[str, Any], path: Path) -> Iterator[Mapping[str, Any]]:
    yield from (record.fields for record in vqa_questions(document, path))


def _rule(people: int) -> str:
    """Say how an answer is scored where so many people answered."""
    match people:
        case 0:
            return "the annotation states the score of each answer"
        case 1:
            return "of 1 answer: right is what equals it"
    return f"of {people} answers: VQA's score as if each stood for {PEOPLE / people:.3g} people"


def _annotations(document: dict[str, Any], path: Path) -> Iterator[Mapping[str, Any]]:
    for record in vqa_annotations(document, path):
        fields = [
            name for name in ("multiple_choice_answer", "answer_type") if name in record.fields
        ]
        require(record.fields, dict.fromkeys(fields, str), record.where)
        if not record.fields["answers"] and not record.fields.get("scores"):
            raise InputError(f"{record.where}: must hold at least one answer, got none")
        yield record.fields


def _check_pairing(
    questions: Sequence[Mapping[str, Any]],
    annotations: Mapping[ExampleId, Any],
    paths: Sequence[Path],
) -> None:
    names = ", ".join(str(path) for path in paths)
    if not questions:
        raise InputError(f"{names}: annotations need the questions file of their split beside them")
    if annotations:
        asked = [question["question_id"] for question in questions]
        check_ids(asked, annotations, f"{names}: the annotations")


def _example(question: Mapping[str, Any], annotation: Mapping[str, Any] | None) -> Example:
    target: dict[str, float] = {}
    meta: dict[str, Any] = {}
    if annotation is not None:
        people = tuple(answer["answer"] for answer in annotation["answers"])
        stated = {normalise(text): float(v) for text, v in annotation.get("scores", {}).items()}
        target = stated or soft_target(people)
        kind = annotation.get("question_type")
        meta = {
            "answers": people,
            "spelling": compared_spelling(people),
            "credits": answer_credits(people) if people else stated,
            "main": annotation.get("multiple_choice_answer") or main_answer(Counter(people)),
            "subset": annotation.get("answer_type"),
            "parts": {"question type": [kind]} if kind else {},
        }
    return Example(
        example_id=question["question_id"],
        text=question["question"],
        images=(str(question["image_id"]),),
        target=target,
        meta=meta,
    )
