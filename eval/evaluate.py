"""One evaluation: a checkpoint's answers written as a leaderboard file, scored where possible."""

import logging
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

import semvlp
from semvlp import atomic
from semvlp.errors import InputError
from semvlp.eval.network import WEIGHTS_NAME, Network, open_network
from semvlp.eval.predict import EvalMode, answers_by_mode
from semvlp.eval.submission import check_ids
from semvlp.eval.task import Answer, Example, ExampleId, Submission, Task
from semvlp.progress import duration
from semvlp.shards.hashes import file_sha256
from semvlp.shards.store import Store, open_store

log = logging.getLogger(__name__)

SCORES_NAME = "scores.json"
PROVENANCE_NAME = "provenance.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalReport:
    """What an evaluation wrote and found."""

    out: Path
    submission: Submission
    scores: dict[str, Any] | None
    """What `scores.json` holds; None where the split has no labels."""
    examples: int
    seconds: float

    def values(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "out": str(self.out),
            "file": str(self.submission.path),
            "examples": self.examples,
            "scores": self.scores,
            "seconds": round(self.seconds, 3),
        }

    def sentence(self) -> str:
        """What was written, how many, how long, where; with labels, the scores by mode."""
        wrote = (
            f"Wrote {self.submission.count} answers to {self.submission.path} "
            f"in {duration(self.seconds)}."
        )
        if self.scores is None:
            return wrote + " The split has no labels, so there are no scores."
        modes = self.scores.get("modes", {self.scores["mode"]: self.scores})
        return "\n".join([*_table(modes), wrote])


def _table(modes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Scores as lines of text: one column for each mode."""
    names = [name for name, value in next(iter(modes.values())).items() if isinstance(value, float)]
    header = " " * 24 + "".join(f"{mode:>10}" for mode in modes)
    rows = [
        f"{name:<24}" + "".join(f"{found[name]:>10.2f}" for found in modes.values())
        for name in names
    ]
    return [header, *rows]


def evaluate(
    task: Task,
    checkpoint: Path,
    annotations: Sequence[Path],
    shards: Path | str,
    out: Path,
    *,
    split: str,
    mode: EvalMode = "single",
    batch_size: int = 64,
    device: str = "auto",
) -> EvalReport:
    """Answer every example of `annotations` and write the leaderboard file of `task` into `out`.

    Beside it go `scores.json` where the annotations have labels (`accuracy`, ... of `mode`; for
    `both` also those of each pass under `modes`) and `provenance.json`. Files of an earlier
    evaluation in `out` are replaced.

    Raises:
        InputError: annotations of another task, a checkpoint of another task or of other region
            features than the shards', images that the shards lack.
    """
    start = time.monotonic()
    examples = task.read(annotations, split=split)
    network = open_network(checkpoint, device=device, batch_size=batch_size)
    with open_store(shards) as store:
        _check_network(network, task, examples, store, checkpoint)
        answers = answers_by_mode(network, task, examples, store, mode)
        provenance = _provenance(network, task, store, checkpoint, annotations, split, mode)
    check_ids(task.ids(examples), answers[mode], "predictions")
    submission = _write(task, answers[mode], out, split)
    scores = _scores(task, examples, answers, split, mode)
    _write_side_files(out, scores, {**provenance, "submission": _described(submission)})
    return EvalReport(
        out=out,
        submission=submission,
        scores=scores,
        examples=len(examples),
        seconds=time.monotonic() - start,
    )


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
    if not _labelled(examples):
        names = ", ".join(map(str, annotations))
        raise InputError(f"{names}: must hold labels to score against, but has none")
    answers = task.read_answers(predictions)
    check_ids(task.ids(examples), answers, predictions)
    return {"task": task.name, **task.score(examples, answers), "counts": _counts(examples)}


def _labelled(examples: Sequence[Example]) -> bool:
    """Whether there are labels; all or none, as a mean over a part is no official score."""
    with_labels = sum(bool(example.target) for example in examples)
    if 0 < with_labels < len(examples):
        raise InputError(
            f"either all examples or none must have labels, but {with_labels} of {len(examples)} "
            "have; give the splits one by one"
        )
    return with_labels > 0


def _check_network(
    network: Network, task: Task, examples: Sequence[Example], store: Store, checkpoint: Path
) -> None:
    config, labels = network.model.config, set(network.labels)
    if config.task_head != task.head:
        raise InputError(
            f"task {task.name} needs the {task.head} head, but {checkpoint} has the "
            f"{config.task_head} head; give a checkpoint fine-tuned on {task.name}"
        )
    if config.region_feature_size != store.manifest.feature_size:
        raise InputError(
            f"{checkpoint} was trained on region features of size {config.region_feature_size}, "
            f"but those of {store.path} have {store.manifest.feature_size}; give the shards of "
            "the detector it was trained with"
        )
    known = {label for example in examples for label in example.target}
    if known and not known & labels:
        raise InputError(
            f"{checkpoint} answers {_few(labels)}, but the right answers of task {task.name} are "
            f"{_few(known)}; give a checkpoint fine-tuned on {task.name}"
        )


def _few(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")


def _write(task: Task, answers: Mapping[ExampleId, Answer], out: Path, split: str) -> Submission:
    out.mkdir(parents=True, exist_ok=True)
    # A crash must not leave the scores of an earlier evaluation beside a newer leaderboard file.
    for name in (SCORES_NAME, PROVENANCE_NAME):
        (out / name).unlink(missing_ok=True)
    return task.write(answers, out / task.file_name(split))


def _write_side_files(out: Path, scores: dict[str, Any] | None, provenance: dict[str, Any]) -> None:
    if scores is not None:
        atomic.write_json(out / SCORES_NAME, scores)
    atomic.write_json(out / PROVENANCE_NAME, provenance)


def _scores(
    task: Task,
    examples: Sequence[Example],
    answers: Mapping[EvalMode, Mapping[ExampleId, Answer]],
    split: str,
    mode: EvalMode,
) -> dict[str, Any] | None:
    if not _labelled(examples):
        log.info("split %s has no labels: wrote the leaderboard file without scores", split)
        return None
    modes = {one: task.score(examples, given) for one, given in answers.items()}
    found: dict[str, Any] = {"task": task.name, "split": split, "mode": mode, **modes[mode]}
    found["counts"] = _counts(examples)
    return {**found, "modes": modes} if len(modes) > 1 else found


def _counts(examples: Sequence[Example]) -> dict[str, int]:
    subsets = Counter(str(e.meta["subset"]) for e in examples if e.meta.get("subset") is not None)
    images = {name for example in examples for name in example.images}
    return {"examples": len(examples), "images": len(images), **dict(sorted(subsets.items()))}


def _provenance(
    network: Network,
    task: Task,
    store: Store,
    checkpoint: Path,
    annotations: Sequence[Path],
    split: str,
    mode: EvalMode,
) -> dict[str, Any]:
    return {
        "task": task.name,
        "split": split,
        "mode": mode,
        "checkpoint": {
            "path": str(checkpoint),
            "sha256": file_sha256(checkpoint / WEIGHTS_NAME),
            "max_text_length": network.limits.max_text_length,
            "max_regions": network.limits.max_regions,
        },
        "annotations": [{"path": str(path), "sha256": file_sha256(path)} for path in annotations],
        "shards": {"path": str(store.path), "profile": store.manifest.profile},
        "versions": _versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    return {
        "semvlp": semvlp.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _described(submission: Submission) -> dict[str, Any]:
    return {
        "file": submission.path.name,
        "count": submission.count,
        "sha256": submission.sha256,
    }
