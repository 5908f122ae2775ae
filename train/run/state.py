"""Where a run stands, as its checkpoints say it; to read that takes no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semvlp.documents import from_json
from semvlp.errors import InputError

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """Where a run stands."""

    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Time they took."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Where the data stand: what their source's `load_state_dict` takes; empty at the start."""
    best_step: int | None = None
    """The step of the best checkpoint so far."""
    best_score: float | None = None
    """Its score; higher is better."""
    stale: int = 0
    """Checkpoints in a row that did not better it."""
    loss_sum: float = 0.0
    """Of the losses of the steps that no checkpoint was judged by yet ..."""
    loss_count: int = 0
    """... and how many these are: 0 but where a run was stopped between two checkpoints."""
    unjudged: bool = False
    """Whether the validation of this step was cut short: it comes first when the run goes on."""
    finished: bool = False
    """Whether there is nothing left to do."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk."""

    path: Path
    state: TrainingState


def newest(run: Path) -> Checkpoint | None:
    """Find the checkpoint with the most steps, or None where there is none.

    Raises:
        InputError: its training state is damaged or of another version.
    """
    paths = step_folders(run / "checkpoints")
    return Checkpoint(paths[-1], read_state(paths[-1])) if paths else None


def step_folders(folder: Path) -> list[Path]:
    """Return the folders with the name of a checkpoint, by their steps; others are not ours."""
    steps = {path: path.name.removeprefix("step-") for path in folder.glob("step-*")}
    ours = [path for path, step in steps.items() if step.isdecimal() and path.is_dir()]
    return sorted(ours, key=lambda path: int(steps[path]))


def read_state(checkpoint: Path) -> TrainingState:
    """Read the training state of a checkpoint.

    Raises:
        InputError: it is missing, damaged or of another version.
    """
    path = checkpoint / "training" / "state.json"
    try:
        entry = from_json(path.read_text(encoding="utf-8"))
        version = entry.pop("format_version")
        state = TrainingState(**entry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} must hold the state of a training run, but: {error}; remove {checkpoint} to "
            "go on from the checkpoint before it"
        ) from error
    if version != FORMAT_VERSION:
        raise InputError(f"{path} must have format version {FORMAT_VERSION}, got {version}")
    return state
