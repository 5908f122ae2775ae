"""One evaluation: a checkpoint's answers written as a leaderboard file, scored where possible."""

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semvlp import atomic
from semvlp.errors import ConfigError, InputError
from semvlp.eval import scores as metrics
from semvlp.eval.baselines import baseline_scores
from semvlp.eval.explain import write_explanation
from semvlp.eval.lookup import RegionLookup
from semvlp.eval.matrix import Scratch, clear
from semvlp.eval.network import Network, Precision, open_network
from semvlp.eval.outcome import PAGE_NAME, SCORES_NAME, EvalReport
from semvlp.eval.page import write_page
from semvlp.eval.predict import EvalMode, Way, answers_by_mode
from semvlp.eval.provenance import key_of, provenance, sources
from semvlp.eval.ranks import joined_ranks
from semvlp.eval.shortlist import best_pairs, label_overlap, lost
from semvlp.eval.submission import check_ids
from semvlp.eval.task import Answer, Example, ExampleId, Task
from semvlp.shards.store import Store, open_store

log = logging.getLogger(__name__)

PROVENANCE_NAME = "provenance.json"
EXPLAIN_NAME = "explain.html"
Existing = Literal["replace", "keep"]
AnswersByMode = Mapping[EvalMode, Mapping[ExampleId, Answer]]


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
    precision: Precision = "fp32",
    shortlist: int | None = None,
    train: Sequence[Path] = (),
    images: Path | None = None,
    explain: int | None = None,
    existing: Existing = "replace",
) -> EvalReport:
    """Answer every example of `annotations` and write the leaderboard file of `task` into `out`.

    Beside it go `scores.json` where the annotations have labels (`accuracy`, ... of `mode`; for
    `both` also those of each pass under `modes`), `provenance.json` and `report.html`. Under
    torchrun every process answers its share and the first one writes; no number depends on how
    many there are.

    Args:
        shortlist: retrieval compares each caption and each image only with its so many likeliest.
        train: annotations of the training split, for baselines that do not look.
        images: the photographs (a directory, a list, a tar), for the report.
        explain: how many examples `explain.html` shows with the attention between their words and
            regions; None writes none.
        existing: whether an earlier evaluation in `out` is replaced, or kept: then it must be of
            the same inputs and its result is returned.

    Raises:
        ConfigError: `out` is to be kept and holds another evaluation, or a shortlist for a task
            that compares nothing.
        InputError: annotations of another task, a checkpoint of another task or of other region
            features than the shards', images that the shards lack.
    """
    start = time.monotonic()
    examples = task.read(annotations, split=split)
    network = open_network(
        checkpoint,
        device=device,
        batch_size=batch_size,
        precision=precision,
        zero_shot=task.labels(()) if task.head == "match" else (),
    )
    settings = {"task": task.name, "split": split, "precision": precision, "shortlist": shortlist}
    with joined_ranks() as ranks, open_store(shards) as store:
        _check_network(network, task, examples, store, checkpoint)
        made_of = sources(network, checkpoint, store, annotations, settings)
        file, key = out / task.file_name(split), key_of({**made_of, "mode": mode})
        scores = _finished(out, key) if existing == "keep" else None
        if scores is None:
            wanted, cost = _wanted(network, examples, store, shortlist)
            way = Way(ranks=ranks, scratch=Scratch(out, key_of(made_of)), wanted=wanted)
            answers = answers_by_mode(network, task, examples, store, mode, way)
            check_ids(task.ids(examples), answers[mode], "predictions")
            scores = _scores(task, examples, answers, split, mode)
            if scores:
                scores |= {**cost, "baselines": baseline_scores(task, train, examples)}
            if ranks.is_first:
                out.mkdir(parents=True, exist_ok=True)
                _remove_old(out)
                submission = task.write(answers[mode], file)
                origin = provenance({**made_of, "mode": mode, "key": key}, submission)
                write_page(out / PAGE_NAME, task, network, examples, answers, scores, store, images)
                _write_side_files(out, scores, origin)
                clear(out)
        if explain and ranks.is_first:
            shown = f"{task.name}, {split}"
            write_explanation(
                out / EXPLAIN_NAME, shown, network, examples, store, images, count=explain
            )
        ranks.wait()
    return EvalReport(
        out=out,
        file=file,
        count=len(task.ids(examples)),
        scores=scores or None,
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
    for doubt in task.doubts(examples, answers):
        log.warning("%s: %s", predictions, doubt)
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


def _finished(out: Path, key: str) -> dict[str, Any] | None:
    """The scores of the evaluation that is there, empty where it has none; None: nothing there."""
    try:
        before = json.loads((out / PROVENANCE_NAME).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{out / PROVENANCE_NAME}: must be JSON: {error}") from error
    if before.get("key") != key:
        raise ConfigError(
            f"{out} holds an evaluation of other inputs; give another --out, or --overwrite"
        )
    log.info("%s holds this evaluation already", out)
    scores = out / SCORES_NAME
    return dict(json.loads(scores.read_bytes())) if scores.exists() else {}


def _wanted(
    network: Network, examples: Sequence[Example], store: Store, shortlist: int | None
) -> tuple[NDArray[np.bool_] | None, dict[str, Any]]:
    """The pairs of a shortlist and what it costs; None where all pairs are compared."""
    if shortlist is None:
        return None, {}
    if network.model.config.task_head != "match":
        raise ConfigError("a shortlist is for retrieval; leave --shortlist out for this task")
    lookup = RegionLookup(store, examples, max_regions=network.limits.max_regions)
    wanted = best_pairs(label_overlap(examples, lookup, store.manifest), shortlist)
    return wanted, {"shortlist": {"size": shortlist, **lost(examples, wanted)}}


def _remove_old(out: Path) -> None:
    """A crash must not leave earlier scores beside a newer leaderboard file."""
    for name in (PROVENANCE_NAME, SCORES_NAME, PAGE_NAME, EXPLAIN_NAME):
        (out / name).unlink(missing_ok=True)


def _write_side_files(out: Path, scores: dict[str, Any] | None, origin: dict[str, Any]) -> None:
    if scores is not None:
        atomic.write_json(out / SCORES_NAME, scores)
    # Last: an evaluation is finished when it says where it comes from.
    atomic.write_json(out / PROVENANCE_NAME, origin)


def _scores(
    task: Task, examples: Sequence[Example], answers: AnswersByMode, split: str, mode: EvalMode
) -> dict[str, Any] | None:
    for doubt in task.doubts(examples, answers[mode]):
        log.warning("%s", doubt)
    if not _labelled(examples):
        log.info("split %s has no labels: wrote the leaderboard file without scores", split)
        return None
    modes = {one: task.score(examples, given) for one, given in answers.items()}
    found: dict[str, Any] = {"task": task.name, "split": split, "mode": mode, **modes[mode]}
    found |= {"counts": _counts(examples), "parts": _parts(task, examples, answers)}
    return {**found, "modes": modes} if len(modes) > 1 else found


def _parts(
    task: Task, examples: Sequence[Example], answers: AnswersByMode
) -> dict[str, dict[str, dict[str, float]]]:
    """Table -> row -> mean credit of each mode in percent, and `count`."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for mode, given in answers.items():
        credits = [task.credit(example, given[example.example_id]) for example in examples]
        for table, rows in metrics.by_part(examples, credits).items():
            for row, (score, count) in rows.items():
                entry = found.setdefault(table, {}).setdefault(row, {"count": count})
                entry[mode] = score
    return found


def _counts(examples: Sequence[Example]) -> dict[str, int]:
    subsets = Counter(str(e.meta["subset"]) for e in examples if e.meta.get("subset") is not None)
    images = {name for example in examples for name in example.images}
    return {"examples": len(examples), "images": len(images), **dict(sorted(subsets.items()))}
