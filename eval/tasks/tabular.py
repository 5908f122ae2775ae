"""Tables of anybody: a text, one image or two, and what is right, in the columns of a file.

N examples, C labels.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError
from semvlp.eval import metrics
from semvlp.eval.class_scores import auroc_credits, class_table, f1_credits, precision_credits
from semvlp.eval.credits import Credits
from semvlp.eval.files.columns import Entry, entries_of, roles_of, split_rows
from semvlp.eval.files.forms import ChoiceFile
from semvlp.eval.files.sheet import Sheet, places, read_sheet
from semvlp.eval.files.submission import check_ids, unique
from semvlp.eval.task import Answer, Choice, Example, ExampleId, Head, Loss, RegionsOf, Scores, Task
from semvlp.eval.tasks.base import BaseTask
from semvlp.eval.tasks.vqa_answers import normalise, soft_target, vqa_score

log = logging.getLogger(__name__)

MAX_LABELS = 10_000
"""A head has at most so many; a column that says more things tells no classes."""
# Digits that a float32 has: files then tell probabilities near 1 apart.
DIGITS = 9
# A row of a class in a report needs a name that can be read.
CLASS_PARTS = 100


class Table(BaseTask):
    """One label to each row, or one of the answers that several people gave.

    Rows that have one answer each are classified: labels exclude each other, and a prediction is
    right where it is equal. Where some row has several answers, the task is answering: each answer
    has a probability of its own, and a prediction is scored as VQA scores it.
    """

    name = "table"
    form = ChoiceFile()

    def __init__(
        self,
        columns: Mapping[str, str] = MappingProxyType({}),
        *,
        head: Head = "pooled",
        answering: bool = False,
        labelled_as: str = "label",
        sheets: Mapping[Path, Sheet] = MappingProxyType({}),
    ) -> None:
        """Make the task of tables of one kind.

        Args:
            columns: names of columns by role, where they are not the usual ones.
            answering: whether rows have the answers of several people.
            labelled_as: the role, `label` or `answer`, of the column that says what is right.
                Labels are compared as they are written, answers in any case.
            sheets: tables that are read already; each is forgotten when `read` has asked for it.
        """
        self._sheets = dict(sheets)
        self.columns, self.head, self._labelled_as = columns, head, labelled_as
        self.answering = answering
        self.loss: Loss = "binary_cross_entropy" if answering else "cross_entropy"
        self.metric = "vqa_score" if answering else "accuracy"

    def suited_to(self, paths: Sequence[Path], columns: Mapping[str, str]) -> Task:
        """Return the task of tables such as these, and say how it takes them.

        Raises:
            InputError: as `read`; or tables with one image beside others with two.
        """
        sheets = [read_sheet(path) for path in dict.fromkeys(paths)]
        roles = [roles_of(sheet, columns) for sheet in sheets]
        entries = [e for pair in zip(sheets, roles, strict=True) for e in entries_of(*pair)]
        if len({len(entry.images) for entry in entries}) > 1:
            raise InputError(f"{_names(paths)}: must all have one image a row, or all left, right")
        people = Counter(len(entry.answers or entry.scores) for entry in entries)
        task = Table(
            columns,
            head="pair" if len(entries[0].images) == 2 else "pooled",
            answering=max(people) > 1,
            labelled_as="label" if any("label" in names for names in roles) else "answer",
            sheets={sheet.path: sheet for sheet in sheets},
        )
        taken = ", ".join(dict.fromkeys(f"{r}={c}" for names in roles for r, c in names.items()))
        log.info("%s: %d rows (%s), %s", _names(paths), len(entries), taken, task._kind(entries))
        return task

    def read(self, paths: Sequence[Path], *, split: str = "train") -> list[Example]:
        """Read tables of the columns `image` (or `left` and `right`), `text`, and what is right.

        A row without an id has its number as id, over all files from 1. Of tables with a column
        `split` only the rows of that split are read, unless they hold one split alone.

        Raises:
            InputError: a damaged table, one without the columns, rows that lack an image, an id or,
                unlike other rows, a label, or that have the id of another; names file and lines.
        """
        sheets = [self._sheets.pop(p) if p in self._sheets else read_sheet(p) for p in paths]
        entries = [e for sheet in sheets for e in entries_of(sheet, roles_of(sheet, self.columns))]
        numbered = [
            (str(entry.entry_id if entry.entry_id is not None else number), entry)
            for number, entry in zip(count(1), entries, strict=False)
        ]
        of_split = {id(entry) for entry in split_rows(entries, split, [str(p) for p in paths])}
        chosen = [(key, entry) for key, entry in numbered if id(entry) in of_split]
        _check_rows(chosen, paths)
        return unique((self._example(key, entry) for key, entry in chosen), paths)

    def labels(self, examples: Sequence[Example]) -> list[str]:
        """Return what is right in some row, as it is mostly written, in alphabetical order.

        Raises:
            InputError: a column of labels that says more than MAX_LABELS things; of answers the
                most frequent are taken.
        """
        written: dict[str, Counter[str]] = {}
        for example in examples:
            if main := example.meta.get("main"):
                written.setdefault(self.spelling(main), Counter())[main] += 1
        if len(written) > MAX_LABELS and self._labelled_as == "label":
            raise InputError(
                f"the column of labels says {len(written)} things, more than {MAX_LABELS}: is it "
                "the right one? say --columns label=NAME, or answer=NAME for the most frequent"
            )
        often = sorted(written, key=lambda key: (-written[key].total(), key))
        self._tell_rare(written, often[MAX_LABELS:])
        return sorted(written[key].most_common(1)[0][0] for key in often[:MAX_LABELS])

    def spelling(self, answer: str) -> str:
        """Return a label as it is, an answer in small letters, one of several as VQA compares."""
        if self.answering:
            return normalise(answer)
        return answer if self._labelled_as == "label" else " ".join(answer.lower().split())

    def answers(
        self,
        examples: Sequence[Example],
        labels: Sequence[str],
        scores: Scores,
        regions: RegionsOf,
    ) -> dict[ExampleId, Answer]:
        """Return the most probable label of each example with its probability."""
        best = super().answers(examples, labels, scores, regions)
        return {
            key: Choice(_label(label), float(f"{chance:.{DIGITS}g}"))
            for (key, label), chance in zip(best.items(), scores.max(1), strict=True)
        }

    def example_score(self, example: Example, answer: Answer) -> float:
        """Return VQA's score where several people answered, else 1 for what is right."""
        label = _label(answer)
        if not self.answering:
            return float(self.spelling(label) == self.spelling(example.meta["main"]))
        if example.meta["people"]:
            return vqa_score(label, example.meta["people"])
        return max(
            (v for k, v in example.target.items() if self.spelling(k) == self.spelling(label)),
            default=0.0,
        )

    def credits(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, Credits]:
        """Return those of `accuracy` and `macro_f1` of the main answers; for two classes also of
        `auroc` and `average_precision`; where several people answered, first of all `vqa_score`.

        They are clustered by `group` where the table has it, else by image.
        """
        check_ids(self.ids(examples), answers, "answers")
        values = self._values(examples, answers)
        return {name: metrics.of_examples(examples, own) for name, own in values.items()}

    def details(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, Any]:
        """Return `classes`, the table by class, and `positive`, the class of precision."""
        gold, said = self._compared(examples, answers)
        positive = {"positive": max(gold)} if len(set(gold)) == 2 else {}
        return {"classes": class_table(gold, said), **positive}

    def _values(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, NDArray[np.float64]]:
        """Return what each example adds to each score, [N] by its name."""
        gold, said = self._compared(examples, answers)
        given = [answers[e.example_id] for e in examples]
        values = {
            "accuracy": np.array([g == s for g, s in zip(gold, said, strict=True)], np.float64),
            "macro_f1": f1_credits(gold, said),
        }
        if self.answering:
            soft = [self.example_score(e, a) for e, a in zip(examples, given, strict=True)]
            values = {"vqa_score": np.array(soft), **values}
        chances = _positive_chances(gold, said, given)
        if chances is not None:
            positive = np.array(gold) == max(gold)
            values["auroc"] = auroc_credits(positive, chances)
            values["average_precision"] = precision_credits(positive, chances)
        return values

    def _compared(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> tuple[list[str], list[str]]:
        """Return the main answer of each example and what was predicted, spelled alike."""
        gold = [self.spelling(e.meta["main"]) for e in examples]
        return gold, [self.spelling(_label(answers[e.example_id])) for e in examples]

    def _example(self, key: str, entry: Entry) -> Example:
        people = entry.answers
        target = dict(entry.scores) or (
            soft_target(people) if len(people) > 1 else dict.fromkeys(people, 1.0)
        )
        main = (
            Counter(people).most_common(1)[0][0]
            if people
            else max(target, key=lambda label: target[label], default="")
        )
        return Example(
            example_id=key,
            text=entry.text,
            images=entry.images,
            target=target,
            meta={
                "main": main,
                "people": people,
                **({"cluster": entry.group} if entry.group else {}),
                "parts": {} if self.answering or not main else {"class": [main]},
            },
        )

    def _kind(self, entries: Sequence[Entry]) -> str:
        """Say whether rows are answered or classified, and why."""
        right = {self.spelling(a) for entry in entries for a in entry.answers or entry.scores}
        if not right:
            return "without labels"
        if self.answering:
            return f"several answers in a row, {len(right)} in all: answering, by VQA's soft score"
        return f"one of {len(right)} {self._labelled_as}s in each row: classifying"

    def _tell_rare(self, written: Mapping[str, Counter[str]], left_out: Sequence[str]) -> None:
        once = [key for key, spelled in written.items() if spelled.total() == 1]
        if once:
            shown = ", ".join(map(repr, once[:5])) + (", ..." if len(once) > 5 else "")
            log.warning("%d of %d labels occur once (%s)", len(once), len(written), shown)
        if left_out:
            lost = sum(written[key].total() for key in left_out)
            log.warning(
                "%d labels, the rarest, are none of the head's %d: they are those of %d rows",
                *(len(left_out), MAX_LABELS, lost),
            )


def _label(answer: Answer) -> str:
    """Return the label of an answer; baselines give it without a probability."""
    if isinstance(answer, Choice):
        return answer.label
    assert isinstance(answer, str)
    return answer


def _positive_chances(
    gold: Sequence[str], said: Sequence[str], given: Sequence[Answer]
) -> NDArray[np.float64] | None:
    """Return how probable the second of two classes is said to be [N]; None where that is unknown.

    It is not known of more classes than two, nor where a prediction has no probability.
    """
    names = sorted(set(gold))
    chances = [answer.probability for answer in given if isinstance(answer, Choice)]
    known = [chance for chance in chances if chance is not None]
    if len(names) != 2 or not {*said} <= {*names} or len(known) < len(given):
        return None
    return np.where(np.array(said) == names[1], known, 1 - np.array(known))


def _check_rows(rows: Sequence[tuple[str, Entry]], paths: Sequence[Path]) -> None:
    """Check that ids differ and that all rows have a label or none has.

    Raises:
        InputError: names the lines.
    """
    first: dict[str, str] = {}
    again = [f"{e.where} as {first[k]}" for k, e in rows if first.setdefault(k, e.where) != e.where]
    if again:
        raise InputError(
            f"{_names(paths)}: every id must be unique, but {len(again)} rows have that of "
            f"another ({places(again)}); mend them, or name another column by --columns id=NAME"
        )
    bare = [entry.where for _, entry in rows if not entry.answers and not entry.scores]
    if 0 < len(bare) < len(rows):
        raise InputError(
            f"{_names(paths)}: either all rows or none must have a label, but {len(bare)} of "
            f"{len(rows)} have none ({places(bare)}); fill them in, or take these rows out"
        )


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))
