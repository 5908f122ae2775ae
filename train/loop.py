"""The loop that pre-training and fine-tuning share: step, log, save, judge, stop in good order."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from semvlp.atomic import write_json
from semvlp.errors import Interrupted, SemVLPError
from semvlp.shards.order import draw
from semvlp.train import checkpoint
from semvlp.train.checkpoint import Checkpoint
from semvlp.train.config import TrainConfig
from semvlp.train.distributed import World
from semvlp.train.log import RunLog
from semvlp.train.optim import make_optimizer
from semvlp.train.prefetch import Ready, Source, prefetched
from semvlp.train.run_report import RunReport
from semvlp.train.schedule import is_logged, is_saved, learning_rate, mode_of
from semvlp.train.step import StepResult, train_step
from semvlp.train.stopping import StopRequest, stop_signals


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one kind of training brings to the loop."""

    what: str
    """Which kind of training, for people."""
    run: Path
    config: TrainConfig
    steps: int
    save_every: int
    weights: Mapping[str, float]
    """Weight of each objective that `losses_of` gives."""
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    losses_of: nn.Module
    """Holds `model`; (part, mode) -> sum of each objective by name."""
    source: Source
    validate: Callable[[], Mapping[str, float]] | None = None
    """Scores of the model as it is; the first rank runs it at every checkpoint."""
    metric: str = ""
    """The score that names the best checkpoint; without validation the training loss does."""
    patience: int = 0
    """Stop after this many checkpoints in a row without a better score; 0 never does."""


class Loop:
    """One run in progress, from a checkpoint on."""

    def __init__(self, job: Job, start: Checkpoint, world: World) -> None:
        self.job, self.world, self.state = job, world, start.state
        job.losses_of.to(world.device).train()
        self.optimizer = make_optimizer(job.losses_of, job.config)
        checkpoint.load_optimizer(start, self.optimizer)
        job.source.load_state_dict(start.state.data)
        self.losses_of = world.share(job.losses_of)
        self.log: RunLog | None = None
        self.scores: Mapping[str, float] = {}
        self.losses: list[float] = []
        """Of the steps since the last checkpoint."""
        self.paces: list[float] = []
        """Seconds of the steps since the last entry of the log."""

    def run(self) -> RunReport:
        """Do the steps that are left.

        Raises:
            Interrupted: after SIGINT or SIGTERM, with a checkpoint of the last finished step.
            SemVLPError: the loss or the gradient is not finite.
        """
        before, loss = self.state, None
        with ExitStack() as stack:
            if self.world.is_first:
                self.log = stack.enter_context(
                    RunLog(self.job.run, self.job.what, steps=self.job.steps, done=before.step)
                )
            stop = stack.enter_context(stop_signals())
            steps = stack.enter_context(prefetched(self.job.source))
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

    def _step(self, take: Callable[[], Ready], stop: StopRequest) -> float:
        """One step and what is due after it; returns its loss."""
        begin = time.monotonic()
        ready, step = take(), self.state.step + 1
        result = self._train(step, ready, stop)
        self._check_finite(step, ready, result)
        seconds = time.monotonic() - begin
        self.state = replace(
            self.state, step=step, seconds=self.state.seconds + seconds, data=ready.state
        )
        self.losses.append(result.loss)
        self.paces.append(seconds)
        self._write_log(step, result)
        due = is_saved(step, self.job.steps, self.job.save_every)
        if due:
            self._judge()
        if due or result.stop:
            self._save()
        if result.stop and not self.state.finished:
            raise Interrupted(
                f"stopped after step {step} of {self.job.steps}, which is saved in "
                f"{self.job.run / 'last'}; the same command goes on from there"
            )
        return result.loss

    def _train(self, step: int, ready: Ready, stop: StopRequest) -> StepResult:
        config = self.job.config
        # Dropout follows from the step's number, so going on needs no stored random state.
        torch.manual_seed(draw(config.seed, step, f"dropout of rank {self.world.rank}"))
        return train_step(
            self.losses_of,
            self.optimizer,
            ready.parts,
            mode_of(step, config),
            lr=learning_rate(step, self.job.steps, config),
            weights=self.job.weights,
            config=config,
            world=self.world,
            stop=stop.asked,
        )

    def _check_finite(self, step: int, ready: Ready, result: StepResult) -> None:
        """Stop before a NaN spreads; the images of the step are named in a file."""
        if result.is_finite:
            return
        path = self.job.run / f"not-finite-step-{step:07d}-rank-{self.world.rank}.json"
        image_ids = [image_id for part in ready.parts for image_id in part.image_ids]
        found = {"loss": str(result.loss), "grad_norm": str(result.grad_norm)}
        losses = {name: str(loss) for name, loss in result.losses.items()}
        write_json(path, {"step": step, **found, "losses": losses, "image_ids": image_ids})
        raise SemVLPError(
            f"loss and gradient must be finite, but step {step} has loss {result.loss} and "
            f"gradient norm {result.grad_norm}; its weights were not updated, its images are named "
            f"in {path}; lower train.lr or lengthen train.warmup and start anew with --overwrite"
        )

    def _write_log(self, step: int, result: StepResult) -> None:
        config = self.job.config
        if self.log is None:
            return
        mode = mode_of(step, config)
        self.log.advance(mode, result.loss)
        if is_logged(step, self.job.steps, config):
            losses = {f"loss_{name}": value for name, value in result.losses.items()}
            self.log.metrics(
                {
                    "step": step,
                    "mode": mode,
                    "loss": result.loss,
                    **losses,
                    "lr": learning_rate(step, self.job.steps, config),
                    "grad_norm": result.grad_norm,
                    "pairs_per_second": config.batch_size * len(self.paces) / sum(self.paces),
                    "seconds": self.state.seconds,
                }
            )
            self.paces.clear()

    def _judge(self) -> None:
        """Find out whether the model is the best so far, and whether the run is over."""
        score, step, state = self._score(), self.state.step, self.state
        better = state.best_score is None or score > state.best_score
        stale = 0 if better else state.stale + 1
        self.state = replace(
            state,
            best_score=score if better else state.best_score,
            best_step=step if better else state.best_step,
            stale=stale,
            finished=step == self.job.steps or 0 < self.job.patience <= stale,
        )

    def _score(self) -> float:
        """How good the model is, higher is better: its validation, else its training loss."""
        if self.job.validate is None:
            return -sum(self.losses) / len(self.losses)
        score = 0.0
        if self.log is not None:
            self.scores = self.job.validate()
            self.job.losses_of.train()
            self.log.validation(self.state.step, self.scores)
            score = self.scores[self.job.metric]
        return self.world.sum([score])[0]

    def _save(self) -> None:
        if self.world.is_first:
            checkpoint.save(
                self.job.run,
                self.state,
                self.job.model,
                self.job.tokenizer,
                self.optimizer,
                keep=self.job.config.keep,
            )
        self.world.wait()
        self.losses.clear()
