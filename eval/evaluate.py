"""One evaluation: a checkpoint's answers written as a leaderboard file, scored where possible."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semvlp import atomic
from semvlp.distributed import World, joined
from semvlp.errors import ConfigError, InputError
from semvlp.eval.baselines import baseline_scores
from semvlp.eval.eval_report import PAGE_NAME, SCORES_NAME, EvalReport
from semvlp.eval.files.provenance import key_of, provenance, sources
from semvlp.eval.files.submission import check_ids
from semvlp.eval.lookup import RegionLookup
from semvlp.eval.matching.score_matrix import Scratch, clear
from semvlp.eval.matching.shortlist import best_pairs, label_overlap, lost
from semvlp.eval.network import Network, Precision, check_network, open_network
from semvlp.eval.pages.explain import write_explanation
from semvlp.eval.pages.report import write_page
from semvlp.eval.predict import EvalMode, PredictOptions, answers_by_mode
from semvlp.eval.score_table import AnswersByMode, counts_of, is_labelled, scores_by_mode, scores_of
from semvlp.eval.task import Example, Task
from semvlp.shards.open import open_store
from semvlp.shards.stores.store import Store

log = logging.getLogger(__name__)

PROVENANCE_NAME = "provenance.json"
EXPLAIN_NAME = "explain.html"
Existing = Literal["replace", "keep"]
PATIENCE = timedelta(hours=12)  # ranks wait for the slowest one at the end of a pass


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
        ConfigError: `out` is to be kept and holds another evaluation, a shortlist for a task that
            compares nothing, or `device` is not there.
        InputError: annotations of another task, a checkpoint of another task or of other region
            features than the shards', images that the shards lack.
    """
    start = time.monotonic()
    examples = task.read(annotations, split=split)
    settings = {"task": task.name, "split": split, "precision": precision, "shortlist": shortlist}
    with (
        joined(device, patience=PATIENCE, setting="--device") as world,
        open_store(shards) as store,
    ):
        network = open_network(
            checkpoint,
            device=str(world.device),
            batch_size=batch_size,
            precision=precision,
            zero_shot=task.labels(()) if task.head == "match" else (),
        )
        check_network(network, task, examples, store, checkpoint)
        made_of = sources(network, checkpoint, store, annotations, settings)
        run = _Run(task, network, examples, store, world, out, split, mode, made_of)
        scores = _finished(out, run.key) if existing == "keep" else None
        if scores is None:
            scores = run.do(shortlist, train, images)
        if explain and world.is_first:
            run.explain(images, explain)
        world.wait()
    return EvalReport(
        out=out,
        file=run.file,
        count=len(task.ids(examples)),
        scores=scores or None,
        examples=len(examples),
        seconds=time.monotonic() - start,
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """One evaluation that is being made."""

    task: Task
    network: Network
    examples: Sequence[Example]
    store: Store
    world: World
    out: Path
    split: str
    mode: EvalMode
    made_of: dict[str, Any]
    """What its answers depend on, but for the mode."""

    @property
    def file(self) -> Path:
        """The leaderboard file."""
        return self.out / self.task.file_name(self.split)

    @property
    def key(self) -> str:
        """Names the evaluation."""
        return key_of({**self.made_of, "mode": self.mode})

    def do(
        self, shortlist: int | None, train: Sequence[Path], images: Path | None
    ) -> dict[str, Any] | None:
        """Answer, score, and write all but the explanation; returns the scores."""
        wanted, cost = self._wanted(shortlist)
        answers = self._answers(wanted)
        scores = scores_by_mode(self.task, self.examples, answers, self.split, self.mode)
        if scores:
            scores |= {**cost, "baselines": baseline_scores(self.task, train, self.examples)}
        if self.world.is_first:
            self._write(answers, scores, images)
        return scores

    def explain(self, images: Path | None, count: int) -> None:
        """Write `explain.html`."""
        path, shown = self.out / EXPLAIN_NAME, f"{self.task.name}, {self.split}"
        write_explanation(path, shown, self.network, self.examples, self.store, images, count=count)

    def _wanted(self, shortlist: int | None) -> tuple[NDArray[np.bool_] | None, dict[str, Any]]:
        """The pairs of a shortlist and what it costs; None where all pairs are compared."""
        if shortlist is None:
            return None, {}
        if self.task.head != "match":
            raise ConfigError("a shortlist is for retrieval; leave --shortlist out for this task")
        most = self.network.limits.max_regions
        lookup = RegionLookup(self.store, self.examples, max_regions=most)
        cheap = label_overlap(self.examples, lookup, self.store.manifest)
        wanted = best_pairs(cheap, shortlist)
        return wanted, {"shortlist": {"size": shortlist, **lost(self.examples, wanted)}}

    def _answers(self, wanted: NDArray[np.bool_] | None) -> AnswersByMode:
        """The answers of each mode, one to every id."""
        scratch = Scratch(self.out, key_of(self.made_of))
        way = PredictOptions(world=self.world, scratch=scratch, wanted=wanted)
        found = answers_by_mode(self.network, self.task, self.examples, self.store, self.mode, way)
        check_ids(self.task.ids(self.examples), found[self.mode], "predictions")
        return found

    def _write(
        self, answers: AnswersByMode, scores: dict[str, Any] | None, images: Path | None
    ) -> None:
        """Everything into `out`, last of all where it comes from: then it is finished."""
        self.out.mkdir(parents=True, exist_ok=True)
        _remove_old(self.out)
        submission = self.task.write(answers[self.mode], self.file)
        write_page(
            self.out / PAGE_NAME,
            self.task,
            self.network,
            self.examples,
            answers,
            scores,
            self.store,
            images,
            checkpoint=self.made_of["checkpoint"]["path"],
        )
        if scores is not None:
            atomic.write_json(self.out / SCORES_NAME, scores)
        origin = provenance({**self.made_of, "mode": self.mode, "key": self.key}, submission)
        atomic.write_json(self.out / PROVENANCE_NAME, origin)
        clear(self.out)


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
    for doubt in task.warnings(examples, answers):
        log.warning("%s: %s", predictions, doubt)
    return {"task": task.name, **scores_of(task, examples, answers), "counts": counts_of(examples)}


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


def _remove_old(out: Path) -> None:
    """A crash must not leave earlier scores beside a newer leaderboard file."""
    for name in (PROVENANCE_NAME, SCORES_NAME, PAGE_NAME, EXPLAIN_NAME):
        (out / name).unlink(missing_ok=True)
