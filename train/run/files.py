"""The files of a run, but for its tensors, and how they are read; it takes no torch."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semvlp.atomic import write_text
from semvlp.documents import from_json, from_toml
from semvlp.errors import InputError
from semvlp.eval.files.inputs import DAMAGED_NAME
from semvlp.train.run.state import Checkpoint, newest, step_folders

CONFIG = "config.toml"
INPUTS = "inputs.json"
METRICS = "metrics.jsonl"
VALIDATION = "validation.jsonl"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What a run has left in its folder."""

    run: Path
    config: str
    metrics: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    newest: Checkpoint | None

    @property
    def name(self) -> str:
        return self.run.resolve().name


def read_run(run: Path) -> RunFiles:
    """Read the log files and the settings of a run; a file it has not written yet is empty.

    Raises:
        InputError: one of them is damaged, in the log a line before the last.
    """
    return RunFiles(
        run=run,
        config=read_config(run) if (run / CONFIG).exists() else "",
        metrics=read_lines(run / METRICS),
        validation=read_lines(run / VALIDATION),
        newest=newest(run),
    )


def read_config(run: Path) -> str:
    """Read the settings of a run as TOML; damaged ones are told and taken from its checkpoint.

    Raises:
        InputError: neither can be read.
    """
    paths = [run / CONFIG]
    paths += [path / "training" / CONFIG for path in reversed(step_folders(run / "checkpoints"))]
    reasons = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
            if not from_toml(text):
                raise ValueError("it is empty")
        except (OSError, ValueError) as error:
            reasons.append(f"{path} must hold the settings of the run, but: {error}")
            continue
        for reason in reasons:
            log.warning("%s; those of %s are taken", reason, path)
        return text
    raise InputError(f"{'; '.join(reasons)}; start anew with --overwrite")


def read_inputs(path: Path) -> dict[str, Any]:
    """Read the record of what a run reads.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        inputs = from_json(path.read_bytes())
        if not isinstance(inputs, dict):
            raise ValueError("it must be an object")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must hold what the run reads, but: {error}") from error
    return inputs


def settle_log(run: Path, *, done: int) -> None:
    """Take back what was logged of steps later than `done`, and lines that a crash has torn."""
    for name in (METRICS, VALIDATION, DAMAGED_NAME):
        cut(run / name, after=done)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the entries of a log file; none without a file.

    A last line that is damaged is what a crash leaves: it is told and left out.

    Raises:
        InputError: a line before it is damaged.
    """
    return _entries(path, path.read_bytes(), "is left out") if path.exists() else []


def cut(path: Path, *, after: int) -> None:
    """Take back the lines of steps later than `after`, so that none stands twice.

    Raises:
        InputError: a line before the last is damaged.
    """
    if path.exists():
        data = path.read_bytes()
        kept = [e for e in _entries(path, data, "is cut off") if e["step"] <= after]
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        if text.encode() != data:
            write_text(path, text)


def _entries(path: Path, data: bytes, what_becomes: str) -> list[dict[str, Any]]:
    """Return the entry of each line but of a damaged last one, of which is told what becomes."""
    *ended, torn = data.split(b"\n")
    lines = [*ended, torn] if torn else ended
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            if number > len(ended):
                raise ValueError("it has no end")
            entry = from_json(line)
            if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
                raise ValueError("it must be an object with a step")
            entries.append(entry)
        except ValueError as error:
            if number < len(lines):
                raise InputError(
                    f"{path}, line {number} is damaged ({error}); remove this line, or start anew "
                    "with --overwrite"
                ) from error
            told = "%s, line %d, the last, is damaged (%s) and %s"
            log.warning(told, path, number, error, what_becomes)
    return entries


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        flat.update(flatten(value, f"{dotted}.") if isinstance(value, dict) else {dotted: value})
    return flat
