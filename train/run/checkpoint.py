"""Checkpoints: weights in the Hugging Face layout, and beside them all it takes to go on exactly.

    RUN/checkpoints/step-0001000/   config.json, model.safetensors, tokenizer files, README.md,
                                    processor_config.json
                        training/   state.json, optimizer.pt, config.toml
    RUN/last, RUN/best              relative links to two of them

Where a moving average of the weights is kept, `model.safetensors` is the average and
`training/weights.safetensors` what the optimiser goes on from. All tensors are whole, however the
ranks had cut them, so any number of ranks goes on. No random state is stored: every step seeds its
random numbers by its own number. A checkpoint is written aside and renamed, so one that has its
name is whole. One that is written again has the name `.step-0001000.before.part` for the moment
between two renames, and gets its own back (`recover`) if the process dies there.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from semvlp.atomic import aside, make_directory, sync, sync_directory, write_json
from semvlp.errors import InputError, SemVLPError
from semvlp.eval.limits import read_limits
from semvlp.model.card import write_card
from semvlp.model.config import PROCESSOR, processor_values
from semvlp.model.pretrained import SemVLPPreTrainedModel
from semvlp.torch_file import load_torch, save_torch
from semvlp.train.distributed import cut_state, whole, whole_state
from semvlp.train.ema import WeightAverage
from semvlp.train.run.state import FORMAT_VERSION, Checkpoint, TrainingState, step_folders

OPTIMIZER = "optimizer.pt"
RAW_WEIGHTS = "weights.safetensors"
BEFORE = ".before.part"
LEFT_OVER = re.compile(r"\.step-\d+(\.gone|\.before)?\.part")
# What the readers of tensors raise for a file that is missing, cut short or of other contents.
UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, KeyError, SafetensorError)
M = TypeVar("M", bound=PreTrainedModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """The tensors of a checkpoint, whole."""

    weights: Mapping[str, Tensor]
    """What is saved as the model."""
    raw: Mapping[str, Tensor] | None = None
    """What the optimiser goes on from, where that is something else."""
    optimizer: Mapping[str, Any] | None = None
    """None before the first step: a fresh optimiser has no state."""


@contextmanager
def collected(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer | None,
    average: WeightAverage | None = None,
) -> Iterator[Tensors]:
    """Put the tensors to save together from all ranks; entered on all of them together."""
    with average.in_place() if average else nullcontext() as raw:
        yield Tensors(
            # As they stand in the model, so that tied ones are known by being the same.
            weights=whole(model.state_dict(keep_vars=True)),
            raw=None if raw is None else whole(raw),
            optimizer=None if optimizer is None else whole_state(optimizer),
        )


def save(
    run: Path,
    state: TrainingState,
    model: SemVLPPreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tensors: Tensors,
    *,
    keep: int,
    scores: Mapping[str, float] | None = None,
) -> Checkpoint:
    """Write the checkpoint of `state.step`; see `write_checkpoint`.

    Args:
        scores: of the model in validation, for its card.
    """
    limits = read_limits(run / "config.toml")

    def write(path: Path) -> None:
        write_card(path, model.config, type(model).__name__, model.num_parameters(), scores)
        model.save_pretrained(path, state_dict=dict(tensors.weights))
        tokenizer.save_pretrained(path)
        write_json(path / PROCESSOR, processor_values(model.config) | asdict(limits))
        if tensors.optimizer is not None:
            save_torch(tensors.optimizer, path / "training" / OPTIMIZER)
        if tensors.raw is not None:
            save_file(dict(tensors.raw), path / "training" / RAW_WEIGHTS)

    return write_checkpoint(run, state, write, keep=keep)


def write_checkpoint(
    run: Path, state: TrainingState, write: Callable[[Path], None], *, keep: int
) -> Checkpoint:
    """Write the checkpoint of `state.step`, turn the links, remove what is older than `keep`.

    Args:
        write: puts the tensors into the folder that it is given, which has a `training/`.

    Raises:
        SemVLPError: it could not be written, for instance on a full disk; the checkpoints before it
            stand as they stood.
    """
    folder = run / "checkpoints"
    path, made = folder / _name(state.step), folder / f".{_name(state.step)}.part"
    recover(run)
    for nameless in left_over(folder):
        shutil.rmtree(nameless)
    try:
        make_directory(folder)
        (made / "training").mkdir(parents=True)
        write(made)
        write_json(
            made / "training" / "state.json", {"format_version": FORMAT_VERSION, **asdict(state)}
        )
        shutil.copyfile(run / "config.toml", made / "training" / "config.toml")
        # safetensors keeps its files to their owner, whatever the umask says.
        for path_of_weights in made.rglob("*.safetensors"):
            shutil.copymode(made / "training" / "config.toml", path_of_weights)
        sync(made)
    except (OSError, RuntimeError, SafetensorError) as error:
        # safetensors tells of a full disk by an error of its own.
        shutil.rmtree(made, ignore_errors=True)
        raise SemVLPError(
            f"{path} could not be written: {error}; the checkpoints before it are whole: make room "
            "and give the same command again, it goes on from the last one"
        ) from error
    if path.exists():
        path.rename(path.with_name(f".{path.name}{BEFORE}"))
    made.rename(path)
    sync_directory(folder)
    checkpoint = Checkpoint(path, state)
    settle(run, checkpoint, keep=keep)
    return checkpoint


def settle(run: Path, checkpoint: Checkpoint, *, keep: int) -> None:
    """Turn the links of a run to its newest checkpoint and to its best, and remove older ones.

    A run that is gone on with does so first: it may have been killed after a checkpoint had its
    name and before the links were turned.
    """
    folder, best_step = run / "checkpoints", checkpoint.state.best_step
    turn_link(run / "last", checkpoint.path)
    if best_step is not None:
        turn_link(run / "best", folder / _name(best_step))
    for path in step_folders(folder)[:-keep]:
        if best_step is None or path.name != _name(best_step):
            # Without its name first: one that has it is whole at any moment.
            path.rename(path.with_name(f".{path.name}.gone.part"))
    sync_directory(folder)
    for nameless in left_over(folder):
        shutil.rmtree(nameless)


def recover(run: Path) -> None:
    """Give a checkpoint its name back that was being replaced when the process died."""
    folder = run / "checkpoints"
    for nameless in left_over(folder):
        path = folder / nameless.name.removeprefix(".").removesuffix(BEFORE)
        if nameless.name.endswith(BEFORE) and not path.exists():
            nameless.rename(path)
            sync_directory(folder)


def left_over(folder: Path) -> list[Path]:
    """Return what has the name of a checkpoint no more, or not yet; a run has one process."""
    return [path for path in folder.glob(".step-*.part") if LEFT_OVER.fullmatch(path.name)]


def load_model(kind: type[M], path: Path) -> M:
    """Load the model of a checkpoint, with every tensor accounted for.

    Raises:
        InputError: the weights are missing, damaged, or not those of this network.
    """
    try:
        # The declared type leaves out that `output_loading_info` makes it a pair.
        loaded: Any = kind.from_pretrained(path, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{path} must hold a whole {kind.__name__}, but: {error}; remove it to go on from the "
            "checkpoint before it"
        ) from error
    model, info = loaded
    wrong = {what: sorted(map(str, names)) for what, names in info.items() if names}
    if wrong:
        raise InputError(
            f"{path} must hold exactly the tensors of {kind.__name__}, but: {wrong}; remove it to "
            "go on from the checkpoint before it"
        )
    whole: M = model
    return whole


def load_optimizer(checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
    """Give the optimiser its state back; before the first step it has none.

    Numbers of the settings, such as the decay of weights, are those it was made with.

    Raises:
        InputError: the file is missing or damaged.
    """
    if checkpoint.state.step == 0:
        return
    with reading(checkpoint, OPTIMIZER, "the state of the optimiser") as path:
        state = load_torch(path)
        own = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        optimizer.load_state_dict(cut_state(state, optimizer))
        for group, numbers in zip(optimizer.param_groups, own, strict=True):
            group.update(numbers)


def load_raw(checkpoint: Checkpoint, average: WeightAverage) -> None:
    """Give the model the weights to go on from, `average` keeping what the model was loaded with.

    Raises:
        InputError: the file is missing or damaged.
    """
    if checkpoint.state.step == 0:
        return
    with reading(checkpoint, RAW_WEIGHTS, "the weights to go on from") as path:
        average.load_parameters(load_file(path))


@contextmanager
def reading(checkpoint: Checkpoint, name: str, what: str) -> Iterator[Path]:
    """Let the file `name` of the training state be read inside, which must hold `what`.

    Raises:
        InputError: it is missing or damaged.
    """
    path = checkpoint.path / "training" / name
    try:
        yield path
    except (InputError, *UNREADABLE) as error:
        raise InputError(
            f"{path} must hold {what}, but: {error}; remove {checkpoint.path} to go on from the "
            "checkpoint before it"
        ) from error


def _name(step: int) -> str:
    return f"step-{step:07d}"


def turn_link(link: Path, target: Path) -> None:
    """Turn a relative link atomically: a reader finds the old checkpoint or the new one."""
    with aside(link) as made:
        made.symlink_to(os.path.relpath(target, link.parent))
