"""One evaluation: a checkpoint's answers written as a leaderboard file, scored where possible."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semvlp import atomic
from semvlp.distributed import World, joined, precision_of
from semvlp.documents import from_json
from semvlp.errors import ConfigError, InputError
from semvlp.eval.baselines import baseline_scores
from semvlp.eval.eval_report import PAGE_NAME, SCORES_NAME, EvalReport
from semvlp.eval.files.credits_file import CREDITS_NAME, write_credits
from semvlp.eval.files.inputs import INPUTS_NAME, run_of
from semvlp.eval.files.provenance import key_of, provenance, sources
from semvlp.eval.files.submission import check_ids
from semvlp.eval.lookup import RegionLookup
from semvlp.eval.matching.score_matrix import Scratch, clear
from semvlp.eval.matching.shortlist import best_pairs, label_overlap, lost
from semvlp.eval.network import Network, check_network, check_regions, open_network
from semvlp.eval.pages.explain import write_explanation
from semvlp.eval.pages.report import write_page
from semvlp.eval.predict import PredictOptions, predictions_by_mode
from semvlp.eval.score_table import Scored, scores_by_mode
from semvlp.eval.task import Example, Predictions, Task
from semvlp.model.tokenizer import tell_unknown
from semvlp.names import EvalMode, Precision
from semvlp.pages import link
from semvlp.shards.open import open_store
from semvlp.shards.stores.store import Store

log = logging.getLogger(__name__)

PROVENANCE_NAME = "provenance.json"
EXPLAIN_NAME = "explain.html"
# The page of a run of training, in its folder.
RUN_PAGE = "report.html"
UNFINISHED = "unfinished"
Existing = Literal["replace", "keep"]
PATIENCE = timedelta(hours=12)  # ranks wait for the slowest one at the end of a pass


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """How a checkpoint is evaluated and what is written beside the leaderboard file."""

    split: str
    """Name of the split in the leaderboard file, and which part of a file that holds several."""
    mode: EvalMode = "single"
    batch_size: int = 64
    """Examples of one forward pass; changes speed and memory, never a result."""
    device: str = "auto"
    """Where the network runs; see `semvlp.distributed.device_of`."""
    precision: Precision = "fp32"
    """Arithmetic of the encoder; the head is always fp32."""
    allow_other_regions: bool = False
    """Whether regions may be others than those that the checkpoint was trained on."""
    shortlist: int | None = None
    """Retrieval compares each caption and each image only with its so many likeliest; None: all."""
    train: Sequence[Path] = ()
    """Annotations of the training split, for baselines that do not look."""
    images: Path | None = None
    """The photographs (a directory, a list, a tar), for the report."""
    explain: int | None = None
    """How many examples `explain.html` shows with the attention between their words and regions;
    None writes none."""
    existing: Existing = "replace"
    """Whether an earlier evaluation is replaced, or kept: then it must be of the same inputs and
    its result is returned."""


def evaluate(
    task: Task,
    checkpoint: Path,
    annotations: Sequence[Path],
    shards: Path | str,
    out: Path,
    options: EvalOptions,
) -> EvalReport:
    """Answer every example of `annotations` and write the leaderboard file of `task` into `out`.

    Beside it go `scores.json` where the annotations have labels (`accuracy`, ... of the mode; for
    `both` also those of each pass under `modes`) and `credits.jsonl`, `provenance.json` and
    `report.html`. Under torchrun every process answers its share and the first one writes; no
    number depends on how many there are.

    Raises:
        ConfigError: a split that is no name; `out` is to be kept and holds another evaluation, or
            files of somebody else that have the names of ours; a shortlist for a task that compares
            nothing, or the device is not there.
        InputError: annotations of another task, a checkpoint of another task or of other region
            features than the shards', images that the shards lack.
    """
    start = time.monotonic()
    task.file_name(options.split)  # at once what would be refused in the end
    examples = task.read(annotations, split=options.split)
    with (
        joined(options.device, patience=PATIENCE, setting="--device") as world,
        open_store(shards) as store,
    ):
        precision = precision_of(options.precision, world.device)
        network = open_network(
            checkpoint,
            device=str(world.device),
            batch_size=options.batch_size,
            precision=precision,
            zero_shot=task,
        )
        check_network(network, task, examples, checkpoint)
        other = options.allow_other_regions
        check_regions(network.model.config, checkpoint, store, allow_other=other)
        settings = {
            "task": task.name,
            **({"columns": dict(task.columns)} if task.columns else {}),
            "split": options.split,
            "precision": precision,
            "shortlist": options.shortlist,
        }
        read = [*annotations, *task.read_beside(annotations)]
        inputs = sources(network, checkpoint, store, read, settings)
        run = _Run(task, checkpoint, network, examples, store, world, out, options, inputs)
        with atomic.locked(out) if world.is_first else nullcontext():
            if world.is_first:
                refuse_strangers(out, run.file.name)
            scores = _finished(out, run.key) if options.existing == "keep" else None
            if scores is None:
                scores = run.run()
            if options.explain and world.is_first:
                run.explain(options.explain)
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
    checkpoint: Path
    network: Network
    examples: Sequence[Example]
    store: Store
    world: World
    out: Path
    options: EvalOptions
    inputs: dict[str, Any]
    """What its answers depend on, but for the mode."""

    @property
    def file(self) -> Path:
        """The leaderboard file."""
        return self.out / self.task.file_name(self.options.split)

    @property
    def key(self) -> str:
        """The name of the evaluation among all others."""
        return key_of({**self.inputs, "mode": self.options.mode})

    def run(self) -> dict[str, Any] | None:
        """Answer, score, and write all but the explanation; return the scores."""
        wanted, cost = self._shortlist(self.options.shortlist)
        given, options = self._predictions(wanted), self.options
        scored = scores_by_mode(self.task, self.examples, given, options.split, options.mode)
        if scored:
            baselines = baseline_scores(self.task, options.train, self.examples)
            scored.scores.update(cost, baselines=baselines)
        if self.world.is_first:
            self._write(given, scored)
        return scored.scores if scored else None

    def explain(self, count: int) -> None:
        """Write `explain.html` with so many examples and the answers of the leaderboard file."""
        write_explanation(
            self.out / EXPLAIN_NAME,
            f"{self.task.name}, {self.options.split}",
            self.network,
            self.examples,
            self.task.read_answers(self.file),
            self.store,
            self.options.images,
            count=count,
        )

    def _shortlist(self, size: int | None) -> tuple[NDArray[np.bool_] | None, dict[str, Any]]:
        """Return the wanted pairs [Q, K] and what leaving out the others costs; None: all pairs."""
        if size is None:
            return None, {}
        self.task.check_shortlist()
        most = self.network.limits.max_regions
        lookup = RegionLookup(self.store, self.examples, max_regions=most, galleries=True)
        wanted = best_pairs(label_overlap(self.examples, lookup, self.store.manifest), size)
        return wanted, {"shortlist": {"size": size, **lost(self.examples, wanted)}}

    def _predictions(self, wanted: NDArray[np.bool_] | None) -> dict[EvalMode, Predictions]:
        """Return the answers of each mode, one to every id."""
        mode, scratch = self.options.mode, Scratch(self.out, key_of(self.inputs))
        if self.world.is_first:
            texts = (example.text for example in self.examples)
            tell_unknown(self.network.tokenizer, texts, f"split {self.options.split}")
        options = PredictOptions(world=self.world, scratch=scratch, wanted=wanted)
        given = predictions_by_mode(
            self.network, self.task, self.examples, self.store, mode, options
        )
        check_ids(self.task.ids(self.examples), given[mode].answers, "predictions")
        return given

    def _write(self, given: Mapping[EvalMode, Predictions], scored: Scored | None) -> None:
        """Write everything into `out`, last of all where it comes from: then it is finished."""
        mode = self.options.mode
        atomic.make_directory(self.out)
        # Until then it is ours, and nothing that could be kept.
        atomic.write_json(self.out / PROVENANCE_NAME, {**self.inputs, UNFINISHED: True})
        # A crash must not leave earlier scores beside a newer leaderboard file.
        for name in (SCORES_NAME, CREDITS_NAME, PAGE_NAME, EXPLAIN_NAME):
            (self.out / name).unlink(missing_ok=True)
        submission = self.task.write(given[mode].answers, self.file)
        write_page(
            self.out / PAGE_NAME,
            self.task,
            self.network,
            self.examples,
            given,
            scored.scores if scored else None,
            self.store,
            self.options.images,
            checkpoint=self.inputs["checkpoint"]["path"],
            links=self._links(),
        )
        if scored is not None:
            write_credits(self.out / CREDITS_NAME, scored.credits)
            atomic.write_json(self.out / SCORES_NAME, scored.scores)
        origin = provenance({**self.inputs, "mode": mode, "key": self.key}, submission)
        atomic.write_json(self.out / PROVENANCE_NAME, origin)
        clear(self.out)

    def _links(self) -> dict[str, str]:
        """Return the addresses of the pages of the checkpoint's run and of the explanation."""
        run = run_of(self.checkpoint)
        page = link(run / RUN_PAGE, self.out) if (run / INPUTS_NAME).is_file() else ""
        attention = {"what words and regions attend to": EXPLAIN_NAME}
        return {
            **({f"the run {run.name}": page} if page else {}),
            **(attention if self.options.explain else {}),
        }


def refuse_strangers(out: Path, leaderboard: str) -> None:
    """Refuse a folder that holds what an evaluation would replace, and no evaluation of ours.

    Raises:
        ConfigError: names the first such file.
        InputError: the provenance there is damaged.
    """
    names = (leaderboard, PROVENANCE_NAME, SCORES_NAME, CREDITS_NAME, PAGE_NAME, EXPLAIN_NAME)
    strangers = [name for name in names if (out / name).exists()]
    if strangers and not {"task", "checkpoint"} <= _read(out / PROVENANCE_NAME).keys():
        raise ConfigError(
            f"{out} holds {strangers[0]}, but no evaluation of ours ({PROVENANCE_NAME}), so "
            "nothing there is replaced; name another --out"
        )


def _finished(out: Path, key: str) -> dict[str, Any] | None:
    """Return the scores of the evaluation that is there, empty without labels; None: no such."""
    before = _read(out / PROVENANCE_NAME)
    if not before or UNFINISHED in before:
        return None
    if before.get("key") != key:
        raise ConfigError(
            f"{out} holds an evaluation of other inputs; give another --out, or --overwrite"
        )
    log.info("%s holds this evaluation already", out)
    return _read(out / SCORES_NAME)


def _read(path: Path) -> dict[str, Any]:
    """Read an object that an evaluation has written; empty without a file.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return dict(from_json(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: must be the JSON that an evaluation wrote, but: {error}; remove {path.parent}"
            " if it is one, or name another --out"
        ) from error
