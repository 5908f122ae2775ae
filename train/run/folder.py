"""The folder of one run: whether it may be written to, goes on, is finished or starts anew."""

import shutil
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from semvlp import settings
from semvlp.atomic import refuse_source_code, write_json, write_text
from semvlp.distributed import World
from semvlp.documents import from_json
from semvlp.errors import ConfigError
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.run.checkpoint import (
    Checkpoint,
    TrainingState,
    collected,
    newest,
    save,
    settle,
    step_folders,
)

CONFIG = "config.toml"
INPUTS = "inputs.json"
MADE_BY_A_RUN = (
    CONFIG,
    INPUTS,
    "metrics.jsonl",
    "events.out.tfevents.*",
    "bad-batch-*.json",
    "validation.jsonl",
    "report.html",
    "last",
    "best",
    "checkpoints",
)
# Settings that a run may be continued with although they changed: none shapes a number.
MAY_CHANGE = frozenset(
    {
        "train.log_every",
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
SAME_INPUTS = ("task", "init")
Config = PretrainConfig | FinetuneConfig
Build = Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerFast]]


def open_run(
    out: Path,
    config: Config,
    inputs: Mapping[str, Any],
    world: World,
    build: Build,
    *,
    resume: bool,
    overwrite: bool,
) -> Checkpoint:
    """Return the checkpoint a run starts from: the newest in `out`, else a fresh one of step 0.

    All ranks read what the first one has written, so they start from the same weights.

    Args:
        inputs: what the run reads, kept in inputs.json for whoever evaluates it.
        build: makes the model and the tokenizer of a fresh run.

    Raises:
        ConfigError: `out` holds source code, a run that may not be touched, or one that was
            started with other settings (the first that differs is named).
    """
    if world.is_first:
        prepare(out, config, inputs, resume=resume, overwrite=overwrite)
        if (start := newest(out)) is None:
            model, tokenizer = build()
            with collected(model, None) as tensors:
                save(out, TrainingState(), model, tokenizer, tensors, keep=config.train.keep)
        else:
            settle(out, start, keep=config.train.keep)
    world.wait()
    start = newest(out)
    assert start is not None, "the first rank has written a checkpoint"
    return start


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
    proofs: Sequence[str] = (),
) -> None:
    """Make the folder of a run, which may hold one that is gone on with, and write its settings.

    Args:
        config: the settings, a dataclass as `semvlp.settings` reads them.
        made: patterns of what such a run writes, which `overwrite` removes.
        may_change: dotted names of settings that may be others than when the run began.
        same_inputs: names of inputs that may not.
        proofs: files besides inputs.json and checkpoints that only such a run leaves.

    Raises:
        ConfigError: `out` holds source code, files of somebody else under the names of ours, a run
            that may not be touched, or one that was started with other settings (the first that
            differs is named).
    """
    refuse_source_code(out)
    strangers = [path.name for pattern in made for path in out.glob(pattern)]
    if strangers and not _is_a_run(out, proofs):
        raise ConfigError(
            f"{out} holds {strangers[0]}, but no run of ours ({INPUTS} or a checkpoint with its "
            "training state), so nothing there is replaced; name another --out"
        )
    if overwrite:
        remove(out, made)
    if newest(out) is not None:
        if not resume:
            raise ConfigError(
                f"{out} already holds a run; --resume goes on with it, --overwrite replaces it"
            )
        _check_same_inputs(out / INPUTS, inputs, same_inputs)
        _check_same_settings(out / CONFIG, config, may_change)
    out.mkdir(parents=True, exist_ok=True)
    # The inputs first: they tell that the folder is a run.
    write_json(out / INPUTS, inputs)
    write_text(out / CONFIG, settings.to_toml(config))


def _is_a_run(out: Path, proofs: Sequence[str]) -> bool:
    states = (path / "training" / "state.json" for path in step_folders(out / "checkpoints"))
    if any(path.is_file() for path in (*states, *(out / name for name in proofs))):
        return True
    try:
        inputs = from_json((out / INPUTS).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(inputs, dict) and not {"task", "init"}.isdisjoint(inputs)


def remove(out: Path, made: Sequence[str] = MADE_BY_A_RUN) -> None:
    """Remove what a run has written, and nothing else."""
    for pattern in made:
        for path in out.glob(pattern):
            if path.is_symlink() or not path.is_dir():
                path.unlink()
                continue
            for checkpoint in (*step_folders(path), *path.glob(".step-*.part")):
                shutil.rmtree(checkpoint)
            if not any(path.iterdir()):
                path.rmdir()


def _check_same_settings(saved: Path, config: Any, may_change: Container[str]) -> None:
    before = flatten(settings.to_tree(settings.load(type(config), saved)))
    now = flatten(settings.to_tree(config))
    for name in sorted({**before, **now}):
        if name not in may_change:
            _check_same(saved.parent, name, before.get(name), now.get(name))


def _check_same_inputs(saved: Path, inputs: Mapping[str, Any], names: Sequence[str]) -> None:
    before = from_json(saved.read_text(encoding="utf-8"))
    for name in names:
        _check_same(saved.parent, name, before.get(name), inputs.get(name))


def _check_same(run: Path, name: str, before: object, now: object) -> None:
    if before != now:
        raise ConfigError(
            f"to go on with the run in {run}, {name} must be {before!r} as when it began, but it "
            f"is {now!r}; give the same, another --out, or --overwrite to start anew"
        )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        flat.update(flatten(value, f"{dotted}.") if isinstance(value, dict) else {dotted: value})
    return flat
