"""A new run that goes on from a checkpoint of another one, with other settings.

Weights, heads, the state of the optimiser and the number of steps done are taken over; learning
rate, length, batches and data may be others. The schedule is that of the new settings, at the step
the checkpoint has reached.
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from semvlp import settings
from semvlp.documents import from_json, from_toml
from semvlp.errors import ConfigError, InputError
from semvlp.eval.network import check_regions
from semvlp.model.config import SemVLPConfig
from semvlp.shards.stores.store import Store
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.run.checkpoint import (
    RAW_WEIGHTS,
    Checkpoint,
    TrainingState,
    read_state,
    write_checkpoint,
)

OF_THE_NETWORK = ("model.", "data.max_answers")
"""Starts of the names of settings that stand in the weights."""
OF_THE_OPTIMISER = (
    "train.optimizer",
    "train.weight_decay_on",
    "train.layer_decay",
    "train.head_lr_multiplier",
)
"""Settings that the state of the optimiser is ordered by."""
OF_THE_ORDER = ("train.seed", "data.order", "data.block_shards", "data.weights", "data.sampling")
"""Settings that decide which example comes when."""
READ = ("shards", "annotations")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The checkpoint that a run goes on from."""

    path: Path
    kind: str
    """The class of the model that the run trains."""
    steps: int
    """Steps of the whole run, those of the checkpoint included."""


def source_of(
    path: Path | None, kind: str, steps: int, store: Store, *, allow_other_regions: bool
) -> Source | None:
    """Return the source of a run, or None where it has none.

    Raises:
        InputError: it is no checkpoint, or was trained on other regions than those of the store,
            unless these are allowed.
    """
    if path is None:
        return None
    read_state(path)
    network = SemVLPConfig.from_pretrained(path)
    check_regions(network, path, store, allow_other=allow_other_regions)
    return Source(path=path, kind=kind, steps=steps)


def from_input(path: Path | None) -> dict[str, str]:
    """Return how inputs.json names the source of a run; nothing where it has none."""
    return {} if path is None else {"from": str(path.resolve())}


def must_stay(name: str) -> bool:
    """Tell whether a setting must be as it was, also with `--from`."""
    return name.startswith(OF_THE_NETWORK) or name in OF_THE_OPTIMISER


def take_over(
    out: Path, source: Source, config: PretrainConfig | FinetuneConfig, inputs: Mapping[str, Any]
) -> Checkpoint:
    """Write the first checkpoint of the run `out`: that of `source`, with its best step unknown.

    Raises:
        ConfigError: it is of another kind or task, has as many steps as the run shall have, or a
            setting differs that stands in its weights or its optimiser.
        InputError: it is no checkpoint of a training, or a damaged one.
    """
    path = source.path.resolve()
    state = read_state(path)
    _check(path, source, state, inputs)
    before, now = _settings_of(path, config), flatten(settings.to_tree(config))
    for name in sorted({*before, *now}):
        if must_stay(name) and before.get(name) != now.get(name):
            raise _other(path, name, before.get(name), now.get(name))
    averaged = (path / "training" / RAW_WEIGHTS).exists()
    if state.step and averaged != bool(config.train.ema_decay):
        kept = "more than 0" if averaged else "0"
        raise _other(path, "train.ema_decay", kept, config.train.ema_decay)
    same_order = all(before.get(name) == now.get(name) for name in OF_THE_ORDER)
    if not (same_order and _reads_the_same(path, inputs)):
        log.info("other data, or another order of them: they are read from their beginning")
        state = replace(state, data={})
    begun = TrainingState(step=state.step, seconds=state.seconds, data=state.data)

    def copy(made: Path) -> None:
        shutil.copytree(path, made, dirs_exist_ok=True)

    return write_checkpoint(out, begun, copy, keep=config.train.keep)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        flat.update(flatten(value, f"{dotted}.") if isinstance(value, dict) else {dotted: value})
    return flat


def _settings_of(checkpoint: Path, like: PretrainConfig | FinetuneConfig) -> dict[str, Any]:
    path = checkpoint / "training" / "config.toml"
    try:
        tree = from_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must hold the settings of the run, but: {error}") from error
    try:
        return flatten(settings.to_tree(settings.build(type(like), tree)))
    except ConfigError as error:
        raise ConfigError(f"--from {checkpoint} is of another kind of training: {error}") from error


def _check(path: Path, source: Source, state: TrainingState, inputs: Mapping[str, Any]) -> None:
    try:
        kinds = from_json((path / "config.json").read_bytes())["architectures"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path / 'config.json'} must name a network, but: {error!r}") from error
    if kinds != [source.kind]:
        raise ConfigError(f"--from must be a checkpoint of {source.kind}, but {path} is of {kinds}")
    task, wanted = _inputs_of(path).get("task"), inputs.get("task")
    if task not in (None, wanted):
        raise ConfigError(f"--from must be a checkpoint of the task {wanted}, {path} is of {task}")
    if state.step >= source.steps:
        raise ConfigError(
            f"--from {path} has done {state.step} steps, so the run must have more than that, "
            f"but it has {source.steps}: raise train.steps or train.epochs, which count from the "
            "beginning"
        )


def _other(path: Path, name: str, before: object, now: object) -> ConfigError:
    return ConfigError(
        f"to go on from {path}, {name} must be {before!r} as in its run, but it is {now!r}: what "
        "is saved depends on it"
    )


def _inputs_of(checkpoint: Path) -> Mapping[str, Any]:
    """Return what the run of a checkpoint reads; nothing where that is not known."""
    try:
        inputs = from_json((checkpoint.parent.parent / "inputs.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return inputs if isinstance(inputs, dict) else {}


def _reads_the_same(checkpoint: Path, inputs: Mapping[str, Any]) -> bool:
    before = _inputs_of(checkpoint)
    return all(before.get(name) == inputs.get(name) for name in READ)
