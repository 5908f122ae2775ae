"""How much of a text and of an image a checkpoint reads, as it was trained."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from semvlp.documents import from_json, from_toml
from semvlp.errors import InputError
from semvlp.model.config import PROCESSOR

# Where training leaves its resolved settings inside a checkpoint.
TRAINING_CONFIG = Path("training") / "config.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a text and of an image is read; must be as in training."""

    max_text_length: int = 60
    """Longest text in word pieces, [CLS] and [SEP] included."""
    max_regions: int = 100
    """Only the most confident regions of an image are used, this many."""


DEFAULT_LIMITS = Limits()
LIMITS = tuple(field.name for field in fields(Limits))


def limits_of(checkpoint: Path) -> Limits:
    """Return the limits of training, or the defaults where nothing in the checkpoint says them.

    What comes from the Hub has no settings of its training, but those of its processor.
    """
    if (checkpoint / TRAINING_CONFIG).is_file():
        return read_limits(checkpoint / TRAINING_CONFIG)
    path = checkpoint / PROCESSOR
    if not path.is_file():
        return DEFAULT_LIMITS
    try:
        values = from_json(path.read_bytes())
        return Limits(**{name: int(values[name]) for name in LIMITS})
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: must say {' and '.join(LIMITS)} of the training run, but: {error!r}"
        ) from error


def read_limits(path: Path) -> Limits:
    """Read the limits in the settings of a training run.

    Raises:
        InputError: it is no such file.
    """
    try:
        tree: dict[str, Any] = from_toml(path.read_text(encoding="utf-8"))
        if not tree:
            raise ValueError("it is empty")
    except ValueError as error:
        raise InputError(
            f"{path}: must be the settings of the training run, but: {error}; the config.toml of "
            "the run is the same file"
        ) from error
    data = tree.get("data", {})
    known = {name: data[name] for name in LIMITS if name in data}
    return Limits(**known)
