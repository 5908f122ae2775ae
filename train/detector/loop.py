"""The steps of detector training, each logged, saved and stopped as those of every training.

It shares the parts of `semvlp.train.loop` and not the loop itself: that one is built round packed
batches, their two modes and the ranks that share them, none of which a detector has.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.optim import AdamW

from semvlp.errors import SemVLPError
from semvlp.train.detector.batches import Group, batch_indices, flips, load_groups
from semvlp.train.detector.checkpoint import restore, save
from semvlp.train.detector.coco import Annotations
from semvlp.train.detector.config import DetectorTrainConfig
from semvlp.train.detector.learner import Learner
from semvlp.train.run import throughput
from semvlp.train.run.log import RunLog
from semvlp.train.schedule import is_saved, warmup_and_decay
from semvlp.train.stopping import interrupted, stop_signals


class DetectorLoop:
    """One training in progress, from its newest checkpoint on."""

    def __init__(
        self, run: Path, learner: Learner, data: Annotations, config: DetectorTrainConfig
    ) -> None:
        self._run, self._learner, self._data, self._config = run, learner, data, config
        self._optimizer = AdamW(
            learned(learner.network), lr=config.lr, weight_decay=config.weight_decay
        )
        self.state = restore(run, learner.network, self._optimizer)
        self._seconds: list[float] = []
        """Of the steps since the last entry of the log."""
        self._waited = 0.0
        """The part of these spent reading images."""

    def run(self, log: RunLog) -> None:
        """Do the steps that are left.

        Raises:
            Interrupted: after SIGINT or SIGTERM, with a checkpoint of the last finished step.
            SemVLPError: the loss is not finite, or a checkpoint could not be written.
        """
        with stop_signals() as stop:
            while not self.state.finished:
                entry = self._step()
                self._log(log, entry)
                step, steps = self.state.step, self._config.steps
                asked = stop.asked
                if asked or is_saved(step, steps, self._config.save_every):
                    weights = self._learner.network.state_dict()
                    optimizer = self._optimizer.state_dict()
                    log.sync()
                    save(self._run, self.state, weights, optimizer, keep=self._config.keep)
                if asked and not self.state.finished:
                    raise interrupted(self._run, step, steps)

    def _step(self) -> dict[str, float]:
        """Take one step; return its losses, its learning rate and the norm of its gradient."""
        begin, config, step = time.monotonic(), self._config, self.state.step + 1
        groups = self._groups(step)
        self._waited += time.monotonic() - begin
        lr = warmup_and_decay(
            step, config.steps, lr=config.lr, warmup_steps=config.warmup_steps, lr_schedule="cosine"
        )
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        entry = train_step(self._learner, self._optimizer, groups, config, step)
        seconds = time.monotonic() - begin
        self._seconds.append(seconds)
        self.state = replace(
            self.state,
            step=step,
            seconds=self.state.seconds + seconds,
            finished=step == config.steps,
        )
        return {**entry, "lr": lr}

    def _groups(self, step: int) -> list[Group]:
        config, images = self._config, self._data.images
        # Batches count the steps from 0.
        indices = batch_indices(
            step - 1, batch_size=config.batch_size, num_images=len(images), seed=config.seed
        )
        flipped = [False] * config.batch_size
        if config.flip:
            flipped = flips(step - 1, batch_size=config.batch_size, seed=config.seed)
        chosen = [images[index] for index in indices]
        num_attributes = len(self._data.attribute_labels)
        return load_groups(chosen, flipped, self._learner.resize, num_attributes)

    def _log(self, log: RunLog, entry: dict[str, float]) -> None:
        """Move the bar on; write an entry where one is due."""
        step, config = self.state.step, self._config
        log.advance({"": entry["loss"]})
        if step % config.log_every and step != config.steps:
            return
        speed = throughput.pairs_per_second(config.batch_size, self._seconds)
        times = {
            "images_per_second": speed,
            "waiting": self._waited / sum(self._seconds),
            "seconds": self.state.seconds,
            "seconds_left": throughput.seconds_left(step, config.steps, self._seconds),
        }
        log.metrics({"step": step, **entry, **times})
        self._seconds, self._waited = [], 0.0


def train_step(
    learner: Learner,
    optimizer: AdamW,
    groups: Sequence[Group],
    config: DetectorTrainConfig,
    step: int,
) -> dict[str, float]:
    """Update the weights once, every image weighing the same whatever group it is in.

    Returns:
        The sum of the losses, each of them by its name, and the norm of the gradient before it was
        clipped.

    Raises:
        SemVLPError: the loss is not finite; the weights are as they were.
    """
    optimizer.zero_grad(set_to_none=True)
    parameters = learned(learner.network)
    device = parameters[0].device
    sums: dict[str, float] = {}
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=accelerators, device_type=device.type):
        # A seed for each step makes the sampling of a step independent of where a run started.
        torch.manual_seed(config.seed * 1_000_003 + step - 1)
        for images, targets in groups:
            share = len(images) / config.batch_size
            losses = learner.losses(images, targets)
            losses = {"loss": torch.stack(list(losses.values())).sum()} | losses
            (losses["loss"] * share).backward()  # type: ignore[no-untyped-call]
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) * share
    if not math.isfinite(sums["loss"]):
        raise SemVLPError(f"the loss of step {step} is {sums['loss']}; try a smaller `lr`")
    norm = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
    optimizer.step()
    return {**sums, "grad_norm": float(norm)}


def learned(network: nn.Module) -> list[nn.Parameter]:
    """Return what is not frozen, as the first stages of detectron2's networks are."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
