"""The folder of one training of a detector: a run's, with the detector when it is done.

    RUN/checkpoints/step-0000500/training/   weights.safetensors, optimizer.pt, state.json
    RUN/last                                 a relative link to the newest
    RUN/detector.json, detector.safetensors  what `--detector RUN` opens

Checkpoints are written as all of train's are, so one that has its name is whole.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from semvlp import settings
from semvlp.atomic import write_json, write_text
from semvlp.documents import from_json
from semvlp.errors import ConfigError, InputError
from semvlp.extract.weights.checkpoint import DESCRIPTION, FORMAT, WEIGHTS
from semvlp.torch_file import load_torch, save_torch
from semvlp.train.detector.config import DetectorTrainConfig
from semvlp.train.run.checkpoint import (
    OPTIMIZER,
    RAW_WEIGHTS,
    UNREADABLE,
    load_optimizer,
    reading,
    recover,
    settle,
    write_checkpoint,
)
from semvlp.train.run.files import CONFIG, INPUTS, settle_log
from semvlp.train.run.folder import MADE_BY_A_RUN, prepare
from semvlp.train.run.state import TrainingState, newest

TASK = "detector"
OLD_STATE = "training.pt"
"""What version 0.1 kept the state of a training in."""
SAME_INPUTS = ("task", "annotations_sha256", "backend", "config_sha256")
# Settings that a training may be continued with although they changed: none shapes a number.
MAY_CHANGE = frozenset(
    {"log_every", "tracker", "save_every", "keep", "valid", "valid_images", "device"}
)

log = logging.getLogger(__name__)


def open_run(
    out: Path,
    config: DetectorTrainConfig,
    inputs: Mapping[str, Any],
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Make the folder, or see that the training in it may go on.

    One that version 0.1 began gets the form of today.

    Raises:
        ConfigError: there is a run that may not be touched or was started with other settings or
            annotations, or a detector whose training cannot go on.
        InputError: a state of version 0.1 that is damaged.
    """
    recover(out)
    if not overwrite and newest(out) is None:
        if (out / OLD_STATE).exists():
            _renew(out)
        elif _is_a_detector(out):
            raise ConfigError(
                f"{out} holds a detector whose training cannot go on, because its checkpoints are "
                "missing; --overwrite replaces it"
            )
    prepare(
        out,
        config,
        {"task": TASK, **inputs},
        resume=resume,
        overwrite=overwrite,
        made=(*MADE_BY_A_RUN, DESCRIPTION, WEIGHTS, OLD_STATE),
        may_change=MAY_CHANGE,
        same_inputs=SAME_INPUTS,
        is_ours=lambda out: _is_a_detector(out) or _has_old_state(out),
    )
    if start := newest(out):
        settle(out, start, keep=config.keep)
        if start.state.finished:  # else the log does when it is opened
            settle_log(out, done=start.state.step)


def _is_a_detector(out: Path) -> bool:
    """Tell whether a folder holds what a training ends with; other files may have its name."""
    try:
        return bool(from_json((out / DESCRIPTION).read_bytes())["format"] == FORMAT)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _has_old_state(out: Path) -> bool:
    try:
        return bool(_read_old_state(out / OLD_STATE))
    except InputError:
        return False


def restore(out: Path, network: nn.Module, optimizer: Optimizer) -> TrainingState:
    """Give network and optimiser what the newest checkpoint holds; return where the run stands.

    Raises:
        InputError: the checkpoint is damaged.
    """
    start = newest(out)
    if start is None:
        return TrainingState()
    with reading(start, RAW_WEIGHTS, "the weights to go on from") as path:
        network.load_state_dict(load_file(path))
    load_optimizer(start, optimizer)
    return start.state


def save(
    out: Path,
    state: TrainingState,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Any],
    *,
    keep: int,
) -> None:
    """Write the checkpoint of `state.step` and remove those older than the newest `keep`.

    Raises:
        SemVLPError: it could not be written; the checkpoints before it stand as they stood.
    """

    def write(path: Path) -> None:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        save_file(plain, path / "training" / RAW_WEIGHTS)
        save_torch(optimizer, path / "training" / OPTIMIZER)

    write_checkpoint(out, state, write, keep=keep)


def _renew(out: Path) -> None:
    """Make a checkpoint with settings and inputs beside it of what version 0.1 has written."""
    path = out / OLD_STATE
    plan, step, weights, optimizer = _read_old_state(path)
    del plan["images"]  # their number, which follows from the annotations
    inputs = {name: plan.pop(name) for name in SAME_INPUTS if name in plan}
    config = settings.build(DetectorTrainConfig, plan)
    write_text(out / CONFIG, settings.to_toml(config))
    write_json(out / INPUTS, {"task": TASK, **inputs})
    state = TrainingState(step=step, finished=step == config.steps)
    save(out, state, weights, optimizer, keep=config.keep)
    path.unlink()
    log.info("%s, which version 0.1 wrote, is now the checkpoint %s", path, out / "last")


def _read_old_state(path: Path) -> tuple[dict[str, Any], int, Any, Any]:
    """Return plan, step, weights and optimiser of a training that version 0.1 began.

    Raises:
        InputError: the file is missing, damaged or of something else.
    """
    try:
        old = load_torch(path)
        return from_json(old["plan"]), old["step"], old["network"], old["optimizer"]
    except (InputError, *UNREADABLE, TypeError) as error:
        raise InputError(f"{path}: damaged; remove it to start anew: {error}") from error
