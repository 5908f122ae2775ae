"""Captions and questions by image, gathered from any mixture of official files."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, starmap
from pathlib import Path
from typing import Any

from semvlp.errors import InputError, shown
from semvlp.shards.record import Question, Texts
from semvlp.shards.texts import official_files
from semvlp.shards.texts.annotation_files import (
    DamagedLine,
    Line,
    Lines,
    head_of,
    read_any,
    require,
)
from semvlp.shards.texts.entries import (
    Answered,
    Asked,
    Captioned,
    Entry,
    is_empty,
    is_whole,
)
from semvlp.shards.texts.gathered import Gathered, MatchedTexts
from semvlp.shards.texts.image_ids import ImageIds
from semvlp.shards.texts.image_tars import captions_in_tar
from semvlp.shards.texts.official_files import (
    LAYOUTS,
    OPTIONAL_ID,
    TAB_LINES,
    Reader,
    Record,
    layout_of,
)

log = logging.getLogger(__name__)


def read_texts(paths: Sequence[Path]) -> dict[str, Texts]:
    """Return the texts of every image, by its name as the files spell it.

    The kind of a file is told by its structure: COCO captions, Karpathy split, VQA v2 questions and
    annotations, GQA, Visual Genome questions, `id<TAB>text` lines, JSON lines of
    `{"image_id", "captions", "questions": [{"question", "answers": {answer: score}}]}`; each may be
    gzipped. A `.tar` of images gives the captions in its JSON and text members. VQA v2 files may
    come in any order; questions without annotations have no answers.

    Raises:
        InputError: a file of unknown structure, or annotations none of whose questions was given.
    """
    with gather(paths) as gathered:
        names = list(gathered.names())
        gathered.sort({name: row for row, name in enumerate(names)}.get)
        return {name: gathered.texts(row) for row, name in enumerate(names)}


def read_matched(
    paths: Sequence[Path], image_ids: Sequence[str]
) -> tuple[MatchedTexts, Sequence[str]]:
    """Return the texts of the images of a data set, and the names that no image of it has.

    Names that mean the same image (`COCO_val2014_000000000139.jpg` and 139) are merged. Files are
    read an entry at a time, gzipped ones too; the names of images alone are kept.

    Raises:
        InputError: as `read_texts`; a name that fits several images, or none that fits one.
    """
    ids = ImageIds(image_ids)
    gathered = gather(paths)
    try:
        unmatched = gathered.sort(ids.row)
        matched = MatchedTexts(gathered, ids.ids)
        if not matched:
            raise InputError(
                f"{', '.join(map(str, paths))}: none of the {len(unmatched)} image names fits an "
                f"image; the texts name {next(iter(unmatched), 'none')!r}, the images "
                f"{next(iter(image_ids), 'none')!r}"
            )
    except BaseException:
        gathered.close()
        raise
    return matched, unmatched


def gather(paths: Sequence[Path]) -> Gathered:
    """Read the entries of files; raises as `read_texts` does."""
    gathered = Gathered(chain.from_iterable(map(_entries, paths)))
    try:
        _check_answers(gathered, paths)
    except BaseException:
        gathered.close()
        raise
    return gathered


def soft_answers(answers: Iterable[str]) -> dict[str, float]:
    """Score 0.3, 0.6, 0.9, 1 for an answer that 1, 2, 3, more of the ten people gave.

    Source: the averaged accuracy of the VQA challenge (Goyal et al. 2017), as in
    hengyuan-hu/bottom-up-attention-vqa tools/compute_softscore.py.
    """
    return {answer: min(3 * count, 10) / 10 for answer, count in Counter(answers).items()}


def _check_answers(gathered: Gathered, paths: Sequence[Path]) -> None:
    answered, alone = gathered.count_answers()
    if answered and alone == answered:
        names = ", ".join(map(str, paths))
        raise InputError(
            f"{names}: the annotations answer questions that no file asks; give the questions file "
            "of the same split too"
        )
    if alone:
        log.warning("%d of %d annotated answers belong to no given question", alone, answered)


def _entries(path: Path) -> Iterator[Entry]:
    """Read the entries of a file that say something and can be written.

    Empty texts, and those of JSON with half a character, are counted and left out.
    """
    if path.suffix.lower() == ".tar":
        entries: Iterator[Entry] = starmap(Captioned, captions_in_tar(path))
    else:
        entries = _read_official(path)
    empty, halves, first = 0, 0, ""
    for entry in entries:
        if is_empty(entry):
            empty += 1
        elif not is_whole(entry):
            first = first or shown(entry)
            halves += 1
        else:
            yield entry
    if empty:
        log.warning("%s: left out %d empty texts", path, empty)
    if halves:
        log.warning(
            "%s: left out %d texts with half a character (a surrogate without the other), first %s",
            *(path, halves, first),
        )


def _read_official(path: Path) -> Iterator[Entry]:
    document = read_any(path)
    layout = layout_of(document)
    if layout is None or layout.read is None or layout.read not in _BUILDERS:
        known = [layout.name for layout in (*LAYOUTS, TAB_LINES) if layout.read in _BUILDERS]
        given = layout.name if layout else _describe(document)
        raise InputError(f"{path}: must be one of: {', '.join(known)}; it is {given}")
    build = _BUILDERS[layout.read]
    try:
        for record in layout.read(document, path):
            yield from build(record)
    except DamagedLine:
        raise
    except InputError as error:
        raise InputError(f"{error}; the file was read as {layout.name}") from error


def _describe(document: Any) -> str:
    document = head_of(document)
    if isinstance(document, Mapping):
        return f"a JSON object with the keys {', '.join(map(str, list(document)[:5])) or '(none)'}"
    if not document:
        return "empty"
    first = document.first if isinstance(document, Lines) else document[0]
    if isinstance(first, Line):
        if isinstance(first.value, str):
            return f"text whose first line has no tab: {first.value[:60]!r}"
        first = first.value
    return f"a list whose first entry is {json.dumps(first, ensure_ascii=False)[:80]}"


def _caption(record: Record) -> Iterator[Entry]:
    yield Captioned(record.image, record.fields["caption"].strip())


def _sentences(record: Record) -> Iterator[Entry]:
    for sentence in record.fields["sentences"]:
        yield Captioned(record.image, sentence["raw"].strip())


def _vqa_question(record: Record) -> Iterator[Entry]:
    entry = record.fields
    question = Question(question=entry["question"].strip(), question_id=entry["question_id"])
    yield Asked(record.image, question)


def _vqa_annotation(record: Record) -> Iterator[Entry]:
    given = (answer["answer"] for answer in record.fields["answers"])
    yield Answered(record.fields["question_id"], soft_answers(given))


def _gqa_question(record: Record) -> Iterator[Entry]:
    entry = record.fields
    answers = {entry["answer"]: 1.0} if "answer" in entry else {}
    question = Question(question=entry["question"].strip(), answers=answers, question_id=record.key)
    yield Asked(record.image, question)


def _visual_genome_question(record: Record) -> Iterator[Entry]:
    entry = record.fields
    # "Green." and "green" must be one answer, as VQA and GQA spell it.
    answer = entry["answer"].strip().removesuffix(".").lower()
    question = Question(
        question=entry["question"].strip(),
        answers={answer: 1.0},
        question_id=entry.get("qa_id"),
    )
    yield Asked(record.image, question)


def _semvlp_texts(record: Record) -> Iterator[Entry]:
    for caption in record.fields.get("captions", ()):
        require({"captions": caption}, {"captions": str}, record.where)
        yield Captioned(record.image, caption.strip())
    for asked in record.fields.get("questions", ()):
        require(asked, {"question": str}, f"{record.where}: questions")
        require({"question_id": None, **asked}, {"question_id": OPTIONAL_ID}, record.where)
        answers = asked.get("answers", {})
        require({"answers": answers}, {"answers": dict}, record.where)
        question = Question(
            question=asked["question"].strip(),
            answers={answer: _score(value, record.where) for answer, value in answers.items()},
            question_id=asked.get("question_id"),
        )
        yield Asked(record.image, question)


def _score(value: Any, where: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = -1.0
    if not 0 <= score <= 1:
        raise InputError(f"{where}: the scores of answers must be in 0..1, got {shown(value, 40)}")
    return score


_BUILDERS: dict[Reader, Callable[[Record], Iterator[Entry]]] = {
    official_files.coco_captions: _caption,
    official_files.karpathy_images: _sentences,
    official_files.vqa_questions: _vqa_question,
    official_files.vqa_annotations: _vqa_annotation,
    official_files.gqa_questions: _gqa_question,
    official_files.visual_genome_questions: _visual_genome_question,
    official_files.semvlp_texts: _semvlp_texts,
    official_files.tab_lines: _caption,
}
