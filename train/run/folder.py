"""The folder of one run: whether it may be written to, goes on, is finished or starts anew."""

import logging
import shutil
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerFast

from semvlp import settings
from semvlp.atomic import make_directory, refuse_source_code, write_json, write_text
from semvlp.distributed import World, precision_of
from semvlp.documents import from_toml
from semvlp.errors import ConfigError, InputError
from semvlp.eval.files.inputs import DAMAGED_NAME
from semvlp.model.pretrained import SemVLPPreTrainedModel
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.run.checkpoint import collected, left_over, recover, save, settle
from semvlp.train.run.files import CONFIG, INPUTS, flatten, read_config, read_inputs, settle_log
from semvlp.train.run.going_on import Source, must_stay, take_over
from semvlp.train.run.state import Checkpoint, TrainingState, newest, step_folders
from semvlp.train.run.tracker import TRACKER, check_tracker

MADE_BY_A_RUN = (
    CONFIG,
    INPUTS,
    "metrics.jsonl",
    "events.out.tfevents.*",
    "bad-batch-*.json",
    "validation.jsonl",
    DAMAGED_NAME,
    TRACKER,
    "report.html",
    "last",
    "best",
    "checkpoints",
)
# Settings that a run may be continued with although they changed: none shapes a number.
MAY_CHANGE = frozenset(
    {
        "train.log_every",
        "train.tracker",
        "train.save_every",
        "train.keep",
        "train.device",
        "train.parallel",
        "train.peak_tflops",
        "train.activation_checkpointing",
        "train.compile",
        "data.cache_images",
        "data.workers",
    }
)
# Data may have moved, and their order is checked where they are read.
SAME_INPUTS = ("task", "init", "from")
Config = TypeVar("Config", PretrainConfig, FinetuneConfig)
Build = Callable[[], tuple[SemVLPPreTrainedModel, PreTrainedTokenizerFast]]
Proof = Callable[[Path], bool]

log = logging.getLogger(__name__)


def open_run(
    out: Path,
    config: PretrainConfig | FinetuneConfig,
    inputs: Mapping[str, Any],
    world: World,
    build: Build,
    *,
    resume: bool,
    overwrite: bool,
    source: Source | None = None,
) -> Checkpoint:
    """Return the checkpoint a run starts from: the newest in `out`, else a fresh one of step 0.

    All ranks read what the first one has written, so they start from the same weights.

    Args:
        inputs: what the run reads, kept in inputs.json for whoever evaluates it.
        build: makes the model and the tokenizer of a fresh run.
        source: what a fresh run goes on from instead.

    Raises:
        ConfigError: `out` holds source code, a run that may not be touched, or one that was
            started with other settings (the first that differs is named).
    """
    if world.is_first:
        prepare(out, config, inputs, resume=resume, overwrite=overwrite)
        if (start := newest(out)) is None and source:
            take_over(out, source, config, inputs)
        elif start is None:
            model, tokenizer = build()
            with collected(model, None) as tensors:
                save(out, TrainingState(), model, tokenizer, tensors, keep=config.train.keep)
        else:
            settle(out, start, keep=config.train.keep)
            if start.state.finished:  # else the log does when it is opened
                settle_log(out, done=start.state.step)
    world.wait()
    start = newest(out)
    assert start is not None, "the first rank has written a checkpoint"
    return start


def settle_precision(config: Config, out: Path, world: World, *, overwrite: bool) -> Config:
    """Return the settings with what `train.precision` = auto stands for.

    A run that is gone on with keeps what it began with.
    """
    if config.train.precision != "auto":
        return config
    precision = precision_of("auto", world.device)
    # Also a step that waits for its replacement, which `recover` gives its name back.
    if not overwrite and any((out / "checkpoints").glob("*step-*")) and _is_a_run(out):
        precision = _saved_settings(out, config).train.precision
    if world.is_first:
        log.info("train.precision = auto takes %s", precision)
    return replace(config, train=replace(config.train, precision=precision))


def prepare(
    out: Path,
    config: Any,
    inputs: Mapping[str, Any],
    *,
    resume: bool,
    overwrite: bool,
    made: Sequence[str] = MADE_BY_A_RUN,
    may_change: Container[str] = MAY_CHANGE,
    same_inputs: Sequence[str] = SAME_INPUTS,
    is_ours: Proof = lambda out: False,
) -> None:
    """Make the folder of a run, which may hold one that is gone on with, and write its settings.

    Args:
        config: the settings, a dataclass as `semvlp.settings` reads them.
        made: patterns of what such a run writes, which `overwrite` removes.
        may_change: dotted names of settings that may be others than when the run began.
        same_inputs: names of inputs that may not.
        is_ours: tells by what is in a folder, besides inputs.json and checkpoints, that it is ours.

    Raises:
        ConfigError: `out` holds source code, files of somebody else under the names of ours, a run
            that may not be touched, or one that was started with other settings (the first that
            differs is named); or its tracker is not installed.
        InputError: log, inputs or settings of the run are damaged beyond what can be mended.
    """
    check_tracker(getattr(config, "train", config).tracker)
    refuse_source_code(out)
    recover(out)
    strangers = [path.name for pattern in made for path in out.glob(pattern)]
    if strangers and not (_is_a_run(out) or is_ours(out)):
        raise ConfigError(
            f"{out} holds {strangers[0]}, but no run of ours ({_unproven(out)}), so nothing there "
            "is replaced; name another --out"
        )
    if overwrite:
        remove(out, made)
    if newest(out) is not None:
        if not resume:
            raise ConfigError(
                f"{out} already holds a run; --resume goes on with it, --overwrite replaces it"
            )
        _check_same_inputs(out / INPUTS, inputs, same_inputs)
        _check_same_settings(out, config, may_change)
    make_directory(out)
    # The inputs first: they tell that the folder is a run.
    write_json(out / INPUTS, inputs)
    write_text(out / CONFIG, settings.to_toml(config))


def _is_a_run(out: Path) -> bool:
    states = (path / "training" / "state.json" for path in step_folders(out / "checkpoints"))
    if any(path.is_file() for path in states):
        return True
    try:
        return not {"task", "init"}.isdisjoint(read_inputs(out / INPUTS))
    except InputError:
        return False


def _unproven(out: Path) -> str:
    """Say what would have shown that a folder is a run."""
    try:
        read_inputs(out / INPUTS)
    except InputError as error:
        if (out / INPUTS).exists():
            return f"{error}, and there is no checkpoint with its training state"
    return f"{INPUTS} or a checkpoint with its training state"


def remove(out: Path, made: Sequence[str] = MADE_BY_A_RUN) -> None:
    """Remove what a run has written, and nothing else."""
    for pattern in made:
        for path in out.glob(pattern):
            if path.is_symlink() or not path.is_dir():
                path.unlink()
                continue
            for checkpoint in (*step_folders(path), *left_over(path)):
                shutil.rmtree(checkpoint)
            if not any(path.iterdir()):
                path.rmdir()


def _check_same_settings(run: Path, config: Any, may_change: Container[str]) -> None:
    saved = _saved_settings(run, config)
    before, now = flatten(settings.to_tree(saved)), flatten(settings.to_tree(config))
    for name in sorted({**before, **now}):
        if name not in may_change:
            other = isinstance(config, PretrainConfig | FinetuneConfig) and not must_stay(name)
            hint = f"; --from {run / 'last'} goes on from there in another --out" if other else ""
            _check_same(run, name, before.get(name), now.get(name), hint)


def _saved_settings(run: Path, like: Config) -> Config:
    return settings.build(type(like), from_toml(read_config(run)))


def _check_same_inputs(saved: Path, inputs: Mapping[str, Any], names: Sequence[str]) -> None:
    """Compare the inputs with those on record; a damaged record is told, and written anew later."""
    try:
        before = read_inputs(saved)
    except InputError as error:
        told = "%s; it is written anew from what this command gives, without comparing %s"
        log.warning(told, error, ", ".join(names))
        return
    for name in names:
        _check_same(saved.parent, name, before.get(name), inputs.get(name))


def _check_same(run: Path, name: str, before: object, now: object, hint: str = "") -> None:
    if before != now:
        raise ConfigError(
            f"to go on with the run in {run}, {name} must be {before!r} as when it began, but it "
            f"is {now!r}; give the same, another --out, or --overwrite to start anew{hint}"
        )
