"""The loop that pre-training and fine-tuning share: step, log, validate, save, stop in good order.

A run that is stopped finishes and saves the step in hand, then the program ends.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from semvlp.distributed import World
from semvlp.errors import Interrupted
from semvlp.eval.task import Stop
from semvlp.model.pretrained import SemVLPPreTrainedModel
from semvlp.shards.stream.order import draw
from semvlp.train.data.source import BatchSource, Prefetched, prefetched
from semvlp.train.distributed import gathered, parallelize
from semvlp.train.ema import WeightAverage
from semvlp.train.optim import Scale, make_optimizer
from semvlp.train.run import bad_batch, checkpoint, cost, throughput
from semvlp.train.run.damaged import DamageLog
from semvlp.train.run.log import RunLog
from semvlp.train.run.report import RunReport
from semvlp.train.run.state import Checkpoint
from semvlp.train.schedule import is_logged, is_saved, learning_rate, mode_of
from semvlp.train.step import MicroBatch, StepResult, StepSums, reduce, train_step
from semvlp.train.stopping import StopRequest, interrupted, stop_signals
from semvlp.train.train_config import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that one kind of training brings to the loop."""

    what: str
    """Which kind of training, for people."""
    run: Path
    config: TrainConfig
    steps: int
    save_every: int
    weights: Mapping[str, float]
    """Weight of each objective that `loss_module` gives."""
    model: SemVLPPreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    loss_module: nn.Module
    """Holds `model`; (micro-batch, mode) -> sum of each objective by name."""
    source: BatchSource
    validate: Callable[[Stop], Mapping[str, float]] | None = None
    """Scores of the model as it is, the same on all ranks, which run it together at every
    checkpoint; it raises Interrupted on all of them where it is to stop."""
    scale_of: Scale = lambda name: 1.0
    """Name of a parameter -> its learning rate over the step's."""
    metric: str = ""
    """The score that names the best checkpoint; without validation the training loss does."""
    instead: str = ""
    """What else could be done where the run will take more than a day on a CPU, for people."""
    patience: int = 0
    """Stop after this many checkpoints in a row without a better score; 0 never does."""
    damage: DamageLog | None = None
    """Where damaged images are left out."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PendingStep:
    """A step that was done, and whose losses nobody has asked the device for yet."""

    step: int
    sums: StepSums
    batch: Mapping[str, Any]
    """Sizes and images of its micro-batches, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a step took on this rank."""

    seconds: float
    """All of it."""
    waited: float
    """The part of it spent waiting for the data."""
    flops: float
    """Operations that its forward and backward passes needed on this rank; 0 where `peak_tflops`
    is."""


class Loop:
    """One run in progress, from a checkpoint on."""

    def __init__(self, job: Job, start: Checkpoint, world: World) -> None:
        self.job, self.world, self.state = job, world, start.state
        self.first_step = start.state.step + 1
        config = job.config
        # These change speed and memory, and numbers by no more than rounding.
        if config.threads:
            torch.set_num_threads(config.threads)
        if config.activation_checkpointing:
            job.model.activation_checkpointing_enable({"use_reentrant": False})
        if config.compile:
            job.model.compile_blocks()
        job.loss_module.to(world.device).train()
        self.loss_module = parallelize(
            job.loss_module, job.model, world, config.parallel, config.precision
        )
        # The optimiser comes after: sharing may replace the parameters by parts of them.
        self.optimizer = make_optimizer(job.model, config, job.scale_of)
        self.average = WeightAverage(job.model, config.ema_decay) if config.ema_decay else None
        checkpoint.load_optimizer(start, self.optimizer)
        if self.average:
            checkpoint.load_raw(start, self.average)
        job.source.load_state_dict(start.state.data)
        self.peak = config.peak_tflops * 1e12
        self.log: RunLog | None = None
        self.scores: Mapping[str, float] = {}
        self.pending: list[PendingStep] = []
        """Steps whose losses are still on the device."""
        self.timings: list[Timing] = []
        """Of the steps since the last entry of the log."""

    def run(self) -> RunReport:
        """Do the steps that are left.

        Raises:
            Interrupted: after SIGINT or SIGTERM, with a checkpoint of the last finished step.
            SemVLPError: the loss or the gradient is not finite, memory ran out, or a checkpoint
                could not be written.
        """
        before, loss = self.state, None
        with ExitStack() as stack:
            if self.world.is_first:
                self.log = stack.enter_context(
                    RunLog(
                        self.job.run,
                        self.job.what,
                        steps=self.job.steps,
                        done=before.step,
                        tracker=self.job.config.tracker,
                    )
                )
            stop = stack.enter_context(stop_signals())
            if before.unjudged:
                self._end_step(stop, saved=True)
            steps = stack.enter_context(prefetched(self.job.source, self.world.device))
            while not self.state.finished:
                loss = self._step(steps.__next__, stop)
        return RunReport(
            what=self.job.what,
            run=self.job.run,
            steps=self.state.step,
            new_steps=self.state.step - before.step,
            pairs=(self.state.step - before.step) * self.job.config.batch_size,
            seconds=self.state.seconds - before.seconds,
            loss=loss,
            scores=self.scores,
            best_step=self.state.best_step,
        )

    def _step(self, take: Callable[[], Prefetched], stop: StopRequest) -> float | None:
        """Do one step and what is due after it; return its loss where it was asked for."""
        begin = time.monotonic()
        ready, step = take(), self.state.step + 1
        waited = time.monotonic() - begin
        if step == self.first_step:
            self._tell_cost(ready.micro_batches)
            begin = time.monotonic() - waited
        sums = self._train(step, ready.micro_batches, stop)
        batch = bad_batch.described(ready.micro_batches)
        self.pending.append(PendingStep(step=step, sums=sums, batch=batch))
        if self.job.damage is not None:
            self.job.damage.meet(step, ready.micro_batches)
        logged = is_logged(step, self.job.steps, self.job.config)
        saved = is_saved(step, self.job.steps, self.job.save_every)
        result = self._fetch_results() if logged or saved or sums.stop else None
        seconds = time.monotonic() - begin
        flops = self._flops(step, ready.micro_batches) if self.peak else 0.0
        self.timings.append(Timing(seconds=seconds, waited=waited, flops=flops))
        self.state = replace(
            self.state, step=step, seconds=self.state.seconds + seconds, data=ready.state
        )
        self._write_log(result if logged else None)
        self._end_step(stop, saved=saved, asked=sums.stop)
        return result.loss if result else None

    def _end_step(self, stop: StopRequest, *, saved: bool, asked: bool = False) -> None:
        """Validate and save where it is due; a stop that was `asked` for saves as well.

        Raises:
            Interrupted: the run was asked to stop, and is not finished.
        """
        if saved:
            self._update_best(stop)
        if saved or asked:
            self._save({} if self.state.unjudged or not saved else self.scores)
        if (asked or self.state.unjudged) and not self.state.finished:
            raise interrupted(self.job.run, self.state.step, self.job.steps)

    def _train(self, step: int, micro_batches: Sequence[MicroBatch], stop: StopRequest) -> StepSums:
        config = self.job.config
        # Dropout follows from the step's number, so going on needs no stored random state.
        torch.manual_seed(draw(config.seed, step, f"dropout of rank {self.world.rank}"))
        try:
            sums = train_step(
                self.loss_module,
                self.optimizer,
                micro_batches,
                mode_of(step, self.job.config),
                lr=learning_rate(step, self.job.steps, config),
                weights=self.job.weights,
                config=config,
                world=self.world,
                stop=stop.asked,
            )
        except (RuntimeError, MemoryError) as error:
            if not bad_batch.is_out_of_memory(error):
                raise
            batch = bad_batch.described(micro_batches)
            raise bad_batch.out_of_memory(
                self.job.run, step, self.world.rank, batch, self.world.device
            ) from error
        if self.average:
            self.average.update()
        return sums

    def _tell_cost(self, micro_batches: Sequence[MicroBatch]) -> None:
        """Tell before the first step what the run will cost, where that is to be told in time."""
        job, step = self.job, self.first_step
        if self.log is None or self.world.device.type != "cpu":
            return
        seconds = cost.expected_seconds(self._flops(step, micro_batches))
        if seconds is not None:
            self.log.expect(seconds)
            left, pairs = job.steps - step + 1, job.config.batch_size
            cost.tell(job.what, seconds, steps=left, pairs=pairs, instead=job.instead)

    def _flops(self, step: int, micro_batches: Sequence[MicroBatch]) -> float:
        config, mode = self.job.model.config, mode_of(step, self.job.config)
        return math.fsum(
            throughput.step_flops(
                config, one.batch, mode, **throughput.counts_for_flops(one.counts)
            )
            for one in micro_batches
        )

    def _fetch_results(self) -> StepResult:
        """Fetch the losses of the pending steps; return those of the last one.

        Raises:
            SemVLPError: one is not finite; its images are named in a file and nothing is saved.
            InputError: too many images are damaged to go on.
        """
        if self.job.damage is not None:
            self.job.damage.settle()
        results = reduce([one.sums for one in self.pending], self.job.weights, self.world)
        for one, result in zip(self.pending, results, strict=True):
            if not result.is_finite:
                raise bad_batch.not_finite(
                    self.job.run, one.step, self.world.rank, one.batch, result
                )
            state = self.state
            self.state = replace(
                state, loss_sum=state.loss_sum + result.loss, loss_count=state.loss_count + 1
            )
        self.pending.clear()
        return results[-1]

    def _write_log(self, result: StepResult | None) -> None:
        """Move the bar on; write an entry where there is a result for it."""
        step, mode = self.state.step, mode_of(self.state.step, self.job.config)
        if self.log is not None:
            self.log.advance({mode: result.loss} if result else {})
            if result:
                self.log.metrics({"step": step, "mode": mode, **self._entry(result)})
        if result:
            self.timings.clear()

    def _entry(self, result: StepResult) -> dict[str, float]:
        """Return the numbers of the log entry that is due."""
        step, steps, config = self.state.step, self.job.steps, self.job.config
        timings = [timing.seconds for timing in self.timings]
        entry = {
            "loss": result.loss,
            **{f"loss_{name}": value for name, value in result.losses.items()},
            "lr": learning_rate(step, steps, config),
            "grad_norm": result.grad_norm,
            "pairs_per_second": throughput.pairs_per_second(config.batch_size, timings),
            "waiting": sum(timing.waited for timing in self.timings) / sum(timings),
            "seconds": self.state.seconds,
            "seconds_left": throughput.seconds_left(step, steps, timings),
        }
        if self.peak:
            flops = sum(timing.flops for timing in self.timings)
            entry["mfu"] = throughput.utilisation(flops, sum(timings), self.peak)
        return entry

    def _update_best(self, stop: StopRequest) -> None:
        """Find out whether the model is the best so far, and whether the run is over.

        Where the validation is cut short, it is still to be found out.
        """
        try:
            score, step, state = self._score(stop), self.state.step, self.state
        except Interrupted:
            self.state = replace(self.state, unjudged=True)
            return
        better = state.best_score is None or score > state.best_score
        stale = 0 if better else state.stale + 1
        self.state = replace(
            state,
            best_score=score if better else state.best_score,
            best_step=step if better else state.best_step,
            stale=stale,
            loss_sum=0.0,
            loss_count=0,
            unjudged=False,
            finished=step == self.job.steps or 0 < self.job.patience <= stale,
        )

    def _score(self, stop: StopRequest) -> float:
        """Score the model, higher is better: by its validation, else by its training loss."""
        if self.job.validate is None:
            return -self.state.loss_sum / self.state.loss_count
        with ExitStack() as stack:
            if self.average:
                stack.enter_context(self.average.in_place())
            stack.enter_context(gathered(self.job.model))
            self.scores = self.job.validate(lambda: stop.asked)
        self.job.loss_module.train()
        if self.log is not None:
            self.log.validation(self.state.step, self.scores)
        return self.scores[self.job.metric]

    def _save(self, scores: Mapping[str, float]) -> None:
        """Write a checkpoint; `scores` are its own, where it was validated."""
        job = self.job
        with checkpoint.collected(job.model, self.optimizer, self.average) as tensors:
            if self.log is not None:
                self.log.sync()
                checkpoint.save(
                    *(job.run, self.state, job.model, job.tokenizer, tensors),
                    keep=job.config.keep,
                    scores=scores,
                )
        self.world.wait()
