"""The content of `scores.json`: the scores of answers to a split with labels."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semvlp.errors import InputError
from semvlp.eval import metrics
from semvlp.eval.calibration import calibration, expected_error
from semvlp.eval.credits import Credits, intervals
from semvlp.eval.files.credits_file import CreditsByMode
from semvlp.eval.files.submission import check_ids
from semvlp.eval.task import Answer, Example, ExampleId, Predictions, Task
from semvlp.names import EvalMode

log = logging.getLogger(__name__)

AnswersByMode = Mapping[EvalMode, Mapping[ExampleId, Answer]]
# In percent: nobody who answers at all has so little.
NOTHING = 0.1


@dataclass(frozen=True, slots=True)
class Scored:
    """What is known of the answers of an evaluation."""

    scores: dict[str, Any]
    """What `scores.json` holds."""
    credits: CreditsByMode


def score(
    task: Task, annotations: Sequence[Path], predictions: Path, *, split: str = "test"
) -> dict[str, Any]:
    """Score a leaderboard file that anyone made.

    Args:
        split: which part of a file that holds several (Karpathy JSON).

    Raises:
        InputError: a file the leaderboard would refuse, ids that are not exactly those of the
            annotations, or annotations without labels.
    """
    examples = task.read(annotations, split=split)
    if not is_labelled(examples):
        names = ", ".join(map(str, annotations))
        raise InputError(f"{names}: must hold labels to score against, but has none")
    answers = task.read_answers(predictions)
    check_ids(task.ids(examples), answers, predictions)
    for warning in task.warnings(examples, answers):
        log.warning("%s: %s", predictions, warning)
    return {"task": task.name, **scores_of(task, examples, answers), "counts": counts_of(examples)}


def scores_by_mode(
    task: Task,
    examples: Sequence[Example],
    predictions: Mapping[EvalMode, Predictions],
    split: str,
    mode: EvalMode,
) -> Scored | None:
    """Return scores and tables of `mode`, and the scores of each mode; None without labels."""
    answers = {one: given.answers for one, given in predictions.items()}
    for warning in task.warnings(examples, answers[mode]):
        log.warning("%s", warning)
    if not is_labelled(examples):
        log.info("split %s has no labels: wrote the leaderboard file without scores", split)
        return None
    credits = {one: task.credits(examples, given) for one, given in answers.items()}
    modes = {one: _scores(task, examples, answers[one], credits[one]) for one in answers}
    values = {
        one: [task.example_score(example, given[example.example_id]) for example in examples]
        for one, given in answers.items()
    }
    calibrated = _calibration(task, examples, predictions, values)
    for one, curves in calibrated.items():
        modes[one]["ece"] = curves.pop("ece")
    table = {
        "task": task.name,
        "split": split,
        "mode": mode,
        **modes[mode],
        "counts": counts_of(examples),
        "parts": _parts(examples, values),
        "calibration": calibrated,
    }
    return Scored({**table, "modes": modes} if len(modes) > 1 else table, credits)


def scores_of(
    task: Task, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
) -> dict[str, Any]:
    """Return the scores of a task, `NAME_interval` of means, and what explains them.

    A warning is logged where they are too low to be meant.
    """
    return _scores(task, examples, answers, task.credits(examples, answers))


def _scores(
    task: Task,
    examples: Sequence[Example],
    answers: Mapping[ExampleId, Answer],
    credits: Mapping[str, Credits],
) -> dict[str, Any]:
    scores = task.score(examples, answers)
    if scores[task.metric] < NOTHING:
        log.warning(
            "%s is %.2f: answers are hardly ever so wrong, so look at their spelling and order",
            task.metric,
            scores[task.metric],
        )
    return {**scores, **intervals(credits), **task.details(examples, answers)}


def is_labelled(examples: Sequence[Example]) -> bool:
    """Tell whether there are labels; all or none, as a mean over a part is no official score."""
    with_labels = sum(bool(example.target) for example in examples)
    if 0 < with_labels < len(examples):
        raise InputError(
            f"either all examples or none must have labels, but {with_labels} of {len(examples)} "
            "have; give the splits one by one"
        )
    return with_labels > 0


def counts_of(examples: Sequence[Example]) -> dict[str, int]:
    """Count examples, images, and examples of each subset."""
    subsets = Counter(str(e.meta["subset"]) for e in examples if e.meta.get("subset") is not None)
    images = {name for example in examples for name in example.images}
    return {"examples": len(examples), "images": len(images), **dict(sorted(subsets.items()))}


def _parts(
    examples: Sequence[Example], values: Mapping[EvalMode, Sequence[float]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the mean score of each mode in percent, its interval, and `count`, by table, row."""
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for mode, own in values.items():
        for table, rows in metrics.by_part(examples, own).items():
            for row, credits in rows.items():
                count = len(credits.values)
                entry = tables.setdefault(table, {}).setdefault(row, {"count": count})
                entry |= {mode: credits.percent, **intervals({mode: credits})}
    return tables


def _calibration(
    task: Task,
    examples: Sequence[Example],
    predictions: Mapping[EvalMode, Predictions],
    values: Mapping[EvalMode, Sequence[float]],
) -> dict[EvalMode, dict[str, Any]]:
    """Return `ece` and curves of each mode; none where answers have no probability."""
    counted = {example.example_id for example in task.counted(examples)}
    rows = [row for row, example in enumerate(examples) if example.example_id in counted]
    own = [examples[row] for row in rows]
    calibrated = {}
    for mode, given in predictions.items():
        if given.confidence is not None:
            pair = given.confidence[rows].astype(np.float64), np.array(values[mode])[rows]
            calibrated[mode] = {"ece": expected_error(*pair), **calibration(own, *pair)}
    return calibrated
