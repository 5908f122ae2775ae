"""The inputs of an evaluation where none are given: what the run was validated on."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semvlp.documents import from_json
from semvlp.errors import ConfigError, InputError

# Where fine-tuning leaves the absolute paths of what it read.
INPUTS_NAME = "inputs.json"
LEFT_OUT = "left_out"
"""There: how many examples of training were left out, for the store lacks their images."""
DAMAGED_NAME = "damaged.jsonl"
"""A line for each damaged image that pre-training left out."""
# The name fine-tuning reads its validation examples by.
VALIDATION_SPLIT = "val"

log = logging.getLogger(__name__)

_SPLIT = re.compile(
    r"(?<![a-z])(test-dev\d*|(?:train|val|dev|test|hidden|challenge)[a-z]*\d*)(?![a-z0-9])", re.I
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalInputs:
    """The files of one evaluation and the name of their split."""

    annotations: tuple[Path, ...]
    shards: Path
    split: str
    train: tuple[Path, ...] = ()
    """What the run was trained on, for baselines; none where it is not known."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Names of columns by role, of a run on tables."""


def eval_inputs(
    checkpoint: Path,
    *,
    annotations: Sequence[Path] = (),
    shards: Path | None = None,
    split: str | None = None,
) -> EvalInputs:
    """Fill in what is not given: files from the run of `checkpoint`, the split from their names.

    Raises:
        ConfigError: something is not given and the run does not say it either.
        InputError: the run's record of what it read is damaged, and something is not given.
    """
    known = bool(annotations and shards)
    try:
        recorded = {} if known and not _record(checkpoint).is_file() else _recorded(checkpoint)
    except InputError as error:
        if not known:
            raise
        log.warning("%s; the baselines that learn from its training split are left out", error)
        recorded = {}
    used = tuple(annotations) or tuple(Path(path) for path in recorded.get("valid", ()))
    # Pre-training reads several stores.
    own = recorded.get("shards")
    store = shards or (Path(own) if own and isinstance(own, str) else None)
    if not used or store is None:
        what = "validation annotations" if not used else "shards"
        option = "--annotations" if not used else "--shards"
        raise ConfigError(f"{checkpoint}: its run names no {what}; give {option}")
    unnamed = split_name(used[0]) if annotations else VALIDATION_SPLIT
    train = tuple(Path(path) for path in recorded.get("annotations", ()))
    columns = recorded.get("columns", {})
    return EvalInputs(
        annotations=used, shards=store, split=split or unnamed, train=train, columns=columns
    )


def split_name(annotations: Path) -> str:
    """Return the split in a file name: `val2014`, `testdev`, `test1`; else its first part."""
    found = _SPLIT.search(annotations.name)
    return found[1] if found else annotations.name.partition(".")[0]


def run_of(checkpoint: Path) -> Path:
    """Return the folder of the run that a checkpoint would lie in."""
    # RUN/best is a link to RUN/checkpoints/step-XXXXXXX.
    return checkpoint.resolve().parent.parent


def left_out_of(checkpoint: Path) -> int:
    """Return how many examples the run of a checkpoint was trained without, for want of images.

    Of a pre-training it is how many images, because they are damaged.
    """
    try:
        count = from_json(_record(checkpoint).read_bytes()).get(LEFT_OUT, 0)
        damaged = run_of(checkpoint) / DAMAGED_NAME
        lines = damaged.read_bytes().count(b"\n") if damaged.exists() else 0
    except (OSError, ValueError, AttributeError):
        return 0
    return lines + (count if isinstance(count, int) else 0)


def _record(checkpoint: Path) -> Path:
    return run_of(checkpoint) / INPUTS_NAME


def _recorded(checkpoint: Path) -> dict[str, Any]:
    path = _record(checkpoint)
    if not path.is_file():
        raise ConfigError(
            f"{checkpoint}: must lie in a fine-tuning run for what it was validated on to be "
            f"known, but there is no {path}; give --annotations and --shards"
        )
    try:
        recorded = from_json(path.read_bytes())
        kinds: dict[str, Any] = {"annotations": list, "valid": list, "shards": (str, list)}
        for name, kind in {**kinds, "columns": dict}.items():
            if not isinstance(recorded.get(name, {} if kind is dict else []), kind):
                raise ValueError(f"{name} is {recorded[name]!r}")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: must be the JSON that fine-tuning wrote, but: {error}; give --annotations "
            "and --shards, or the fine-tuning command again, which writes it anew"
        ) from error
    return dict(recorded)
