"""What each step does, as pure functions of its number: mode, learning rate, what is written.

Steps are counted from 1.
"""

import math

from semvlp.model.packing import Mode
from semvlp.shards.stream.order import generator
from semvlp.train.train_config import LrSchedule, ModeSchedule, TrainConfig


def mode_of(step: int, config: TrainConfig) -> Mode:
    """Return the mode of a step, equal on all ranks and for all its micro-batches."""
    turns = turns_at(step, config)
    if turns == "single" or turns == "two":
        return turns
    if turns == "ratio":
        drawn = generator(config.seed, step, "mode").random()
        return "single" if drawn < config.single_share else "two"
    return "single" if step % 2 else "two"


def turns_at(step: int, config: TrainConfig) -> ModeSchedule:
    """Return how the modes take turns in the phase that the step belongs to."""
    end = 0.0
    for phase in config.phases:
        end += phase.steps
        if step <= end:
            break
    return phase.turns


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Return the learning rate of a step by the settings of pre-training and fine-tuning."""
    warmup = round(config.warmup_ratio * steps)
    return warmup_and_decay(
        step, steps, lr=config.lr, warmup_steps=warmup, lr_schedule=config.lr_schedule
    )


def warmup_and_decay(
    step: int, steps: int, *, lr: float, warmup_steps: int, lr_schedule: LrSchedule
) -> float:
    """Return the learning rate of a step: a linear rise to `lr`, then the decay, never quite to 0.

    All kinds of training have it, that of detectors too.
    """
    if step <= warmup_steps:
        return lr * step / warmup_steps
    if lr_schedule == "constant":
        return lr
    # The step after the warm-up has done 0 of the way, the step after the last would have done all.
    done = (step - warmup_steps - 1) / (steps - warmup_steps)
    if lr_schedule == "cosine":
        return lr * (1 + math.cos(math.pi * done)) / 2
    return lr * (1 - done)


def is_logged(step: int, steps: int, config: TrainConfig) -> bool:
    """Tell whether the step stands in metrics.jsonl.

    The last step of each interval of `log_every` does; where two modes take turns also the one
    before it, else an even interval would show the same mode for ever.
    """
    shown = 1 if turns_at(step, config) in ("single", "two") else 2
    left = min(-step % config.log_every, steps - step)
    return left < shown


def is_saved(step: int, steps: int, save_every: int) -> bool:
    """Tell whether a checkpoint is written after the step."""
    return step == steps or step % save_every == 0
