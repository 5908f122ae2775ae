"""Where a detector's training stands, on disk: saved whole, gone on from exactly."""

import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from semvlp import atomic
from semvlp.errors import ConfigError, InputError
from semvlp.extract.weights.checkpoint import DESCRIPTION, WEIGHTS

STATE, METRICS = "training.pt", "metrics.jsonl"


class TrainingState:
    """The directory of one training: `training.pt`, `metrics.jsonl`."""

    def __init__(self, out: Path, plan: Mapping[str, Any]) -> None:
        self.step = 0
        """Finished steps."""
        self._out, self._plan = out, dict(plan)

    def open(
        self, network: nn.Module, optimizer: Optimizer, *, resume: bool, overwrite: bool
    ) -> None:
        """Make the directory, or go on from the state in it.

        Raises:
            ConfigError: there is a run and it must not be resumed, or its plan is another one.
            InputError: its state is damaged.
        """
        self._out.mkdir(parents=True, exist_ok=True)
        files = [self._out / name for name in (STATE, METRICS, DESCRIPTION, WEIGHTS)]
        if overwrite:
            for file in files:
                file.unlink(missing_ok=True)
        elif any(file.exists() for file in files) and not resume:
            raise ConfigError(f"{self._out} holds a run already; --overwrite replaces it")
        elif files[0].exists():
            self._restore(files[0], network, optimizer)
        elif files[2].exists():
            raise ConfigError(
                f"{self._out} holds a detector whose training cannot go on, because {STATE} is "
                "missing; --overwrite replaces it"
            )
        self._cut_metrics()

    def save(self, step: int, network: nn.Module, optimizer: Optimizer) -> None:
        """Replace the saved state by the one after `step` steps."""
        self.step = step
        buffer = io.BytesIO()
        state = {"step": step, "plan": json.dumps(self._plan)}
        torch.save(
            state | {"network": network.state_dict(), "optimizer": optimizer.state_dict()}, buffer
        )
        atomic.write_bytes(self._out / STATE, buffer.getvalue())

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl."""
        with (self._out / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")

    def _restore(self, path: Path, network: nn.Module, optimizer: Optimizer) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            plan = json.loads(state["plan"])
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
            raise InputError(f"{path}: damaged; --overwrite starts anew: {error}") from error
        for key in sorted(plan.keys() | self._plan.keys()):
            if plan.get(key) != self._plan.get(key):
                raise ConfigError(
                    f"{self._out} holds a run with {key} = {plan.get(key)!r}, now it is "
                    f"{self._plan.get(key)!r}; give another --out, or --overwrite"
                )
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def _cut_metrics(self) -> None:
        """Leave out the lines of steps that will be taken again."""
        path = self._out / METRICS
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) <= self.step]
        atomic.write_text(path, "".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    """The step of a line; a line a crash cut short is one of a later step."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
