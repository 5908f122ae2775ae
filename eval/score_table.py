"""The content of `scores.json`: the scores of answers to a split with labels."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semvlp.errors import InputError
from semvlp.eval import metrics
from semvlp.eval.files.submission import check_ids
from semvlp.eval.task import Answer, Example, ExampleId, Task
from semvlp.names import EvalMode

log = logging.getLogger(__name__)

AnswersByMode = Mapping[EvalMode, Mapping[ExampleId, Answer]]
# In percent: nobody who answers at all has so little.
NOTHING = 0.1


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
    task: Task, examples: Sequence[Example], answers: AnswersByMode, split: str, mode: EvalMode
) -> dict[str, Any] | None:
    """Return scores and tables of `mode`, and the scores of each mode; None without labels."""
    for warning in task.warnings(examples, answers[mode]):
        log.warning("%s", warning)
    if not is_labelled(examples):
        log.info("split %s has no labels: wrote the leaderboard file without scores", split)
        return None
    modes = {one: scores_of(task, examples, given) for one, given in answers.items()}
    table: dict[str, Any] = {"task": task.name, "split": split, "mode": mode, **modes[mode]}
    table |= {"counts": counts_of(examples), "parts": _parts(task, examples, answers)}
    return {**table, "modes": modes} if len(modes) > 1 else table


def scores_of(
    task: Task, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
) -> dict[str, Any]:
    """Return the scores of a task, `NAME_interval` of the main ones, and what explains them.

    A warning is logged where they are too low to be meant.
    """
    scores = task.score(examples, answers)
    if scores[task.metric] < NOTHING:
        log.warning(
            "%s is %.2f: answers are hardly ever so wrong, so look at their spelling and order",
            task.metric,
            scores[task.metric],
        )
    intervals = task.intervals(examples, answers)
    spread = {f"{name}_interval": list(ends) for name, ends in intervals.items()}
    return {**scores, **spread, **task.details(examples, answers)}


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
    task: Task, examples: Sequence[Example], answers: AnswersByMode
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the mean score of each mode in percent, and `count`, by table and row."""
    tables: dict[str, dict[str, dict[str, float]]] = {}
    for mode, given in answers.items():
        values = [task.example_score(example, given[example.example_id]) for example in examples]
        for table, rows in metrics.by_part(examples, values).items():
            for row, (score, count) in rows.items():
                entry = tables.setdefault(table, {}).setdefault(row, {"count": count})
                entry[mode] = score
    return tables
