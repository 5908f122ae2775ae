"""What the tests of pre-training share: what is in a run, and a signal in the midst of a step."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from semvlp.train import loop
from semvlp.train.config import OBJECTIVES
from semvlp.train.run.files import METRICS, read_lines
from semvlp.train.run.state import read_state
from semvlp.train.step import StepSums, train_step


def losses(folder: Path) -> list[tuple[Any, ...]]:
    """Everything in the log but the clock."""
    kept = ("step", "mode", "loss", "lr", "grad_norm", *(f"loss_{name}" for name in OBJECTIVES))
    return [tuple(entry.get(name) for name in kept) for entry in read_lines(folder / METRICS)]


def judged(folder: Path) -> list[tuple[int | None, float | None]]:
    """The best step and its score after each checkpoint that is kept."""
    states = map(read_state, sorted((folder / "checkpoints").iterdir()))
    return [(state.best_step, state.best_score) for state in states]


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send ourselves a SIGTERM while the step is computed, once."""
    done = 0

    def step_and_kill(*args: Any, **kwargs: Any) -> StepSums:
        nonlocal done
        done += 1
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)
            kwargs["stop"] = True
        return train_step(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", step_and_kill)
