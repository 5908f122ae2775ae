"""Trackio and Weights & Biases beside TensorBoard: what metrics.jsonl and validation.jsonl say."""

import logging
import os
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from semvlp.atomic import write_json
from semvlp.documents import from_json, from_toml
from semvlp.errors import ConfigError
from semvlp.train.train_config import TrackerName

TRACKER = "tracker.json"
"""Which tracker knows the run, and as what; with it a run that goes on is the same one there."""
PROJECT = "semvlp"

log = logging.getLogger(__name__)


def check_tracker(name: TrackerName) -> None:
    """Check that a tracker is installed.

    Raises:
        ConfigError: it is not.
    """
    if name != "none" and _is_missing(name):
        raise ConfigError(f"tracker = {name} needs the package {name}: pip install {name}")


class Tracker:
    """One run as a tracker shows it; values have the names that TensorBoard shows them under."""

    def __init__(self, name: TrackerName, run: Path, settings: str) -> None:
        """Begin the run there, or go on with it; `settings` are those of the run as TOML.

        Raises:
            ConfigError: the package is missing, or refuses to begin.
        """
        check_tracker(name)
        self._name, self._module = name, import_module(name)
        identity, self.is_new = _identity(run / TRACKER, name)
        given: dict[str, Any] = {
            "project": os.environ.get(f"{name.upper()}_PROJECT", PROJECT),
            "name": f"{run.absolute().name}-{identity}",
            "config": from_toml(settings),
            "resume": "allow",
        }
        if name == "wandb":
            given |= {"id": identity, "dir": str(run)}
        try:
            self._module.init(**given)
            if name == "wandb":
                # Steps that are done again after a crash would be dropped as ones of the past.
                self._module.define_metric("*", step_metric="step")
        except Exception as error:
            raise ConfigError(f"tracker = {name} cannot begin: {error}") from error
        write_json(run / TRACKER, {"tracker": name, "id": identity})
        self._works = True

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Send the values of a step; a tracker that fails is told and left alone from then on."""
        if not self._works:
            return
        try:
            if self._name == "wandb":
                self._module.log({**values, "step": step})
            else:
                self._module.log(dict(values), step=step)
        except Exception as error:
            self._works = False
            log.warning("%s fails and is sent nothing more: %s", self._name, error)

    def close(self) -> None:
        """Send what waits and end."""
        try:
            self._module.finish()
        except Exception as error:
            log.warning("%s fails at the end: %s", self._name, error)


def _identity(path: Path, name: TrackerName) -> tuple[str, bool]:
    """Return the id under which a tracker knows the run, and whether it is a new one."""
    try:
        kept = from_json(path.read_bytes())
        if kept["tracker"] == name:
            return str(kept["id"]), False
    except (OSError, ValueError, KeyError, TypeError):
        log.debug("%s names no run of %s", path, name)
    return uuid4().hex[:8], True


def _is_missing(name: str) -> bool:
    try:
        return find_spec(name) is None
    except ValueError:  # a module that was put in place by hand
        return False
