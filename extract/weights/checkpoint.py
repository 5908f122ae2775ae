"""Weights of detectors on disk, read strictly.

A detector of our own is two files: `NAME.json` (format, network, labels, sha256 of the weights) and
`NAME.safetensors` beside it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from semvlp import atomic
from semvlp.documents import from_json
from semvlp.errors import ConfigError, InputError
from semvlp.extract.networks import NetworkConfig, from_stored
from semvlp.settings import build, to_tree
from semvlp.torch_file import load_torch

FORMAT, FORMAT_VERSION = "semvlp-detector", 1
DESCRIPTION, WEIGHTS = "detector.json", "detector.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The content of a detector's JSON file."""

    network: NetworkConfig | None = None
    """The network's config; its weights have our names, whichever backend learned them."""
    detectron2: str | None = None
    """detectron2's config as YAML instead, with weights under its names."""
    object_labels: tuple[str, ...]
    attribute_labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if (self.network is None) == (self.detectron2 is None):
            raise ValueError("a detector has either a `network` or a `detectron2` config")


def save_detector(directory: Path, state: Mapping[str, Tensor], description: Description) -> None:
    """Write a detector of our own into `directory`, the JSON last: where it lies, all is there."""
    data = _serialised(state)
    atomic.write_bytes(directory / WEIGHTS, data)
    entry = {"format": FORMAT, "format_version": FORMAT_VERSION, **to_tree(description)}
    if description.network is not None:
        entry["network"] = description.network.stored()
    entry["weights_sha256"] = hashlib.sha256(data).hexdigest()
    atomic.write_json(directory / DESCRIPTION, entry)


def read_detector(path: Path) -> tuple[Description, dict[str, Tensor]]:
    """Return description and weights of the detector whose JSON file is `path`.

    Raises:
        InputError: a file that is missing, damaged, of another format or version, or weights that
            are not the ones the JSON names.
    """
    description, entry = read_description(path), read_object(path, "a detector")
    weights = path.with_suffix(".safetensors")
    state = read_weights(weights)
    if state_sha256(state) != entry.get("weights_sha256"):
        raise InputError(
            f"{weights}: its sha256 is not the one in {path}; copy both files of the detector again"
        )
    return description, state


def read_description(path: Path) -> Description:
    """Return the description in the JSON file `path` of a detector; raises as `read_detector`."""
    entry = read_object(path, "a detector")
    if entry.get("format") != FORMAT or entry.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: must be a {FORMAT} of version {FORMAT_VERSION}, found "
            f"{entry.get('format')!r} {entry.get('format_version')!r}"
        )
    tree = {key: entry[key] for key in Description.__dataclass_fields__ if key in entry}
    if isinstance(tree.get("network"), dict):
        tree["network"] = from_stored(tree["network"])
    try:
        return build(Description, tree)
    except ConfigError as error:
        raise InputError(f"{path}: {error}") from error


def read_object(path: Path, what: str) -> dict[str, Any]:
    """Return the object in the JSON file `path`, which describes `what`.

    Raises:
        InputError: no such file, or something else in it.
    """
    try:
        content = from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; it must describe {what}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: must be JSON that describes {what}: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a JSON object that describes {what}")
    return content


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors, .pth, .pt, .bin or .pkl file that holds tensors alone.

    Raises:
        InputError: no such file, another kind of file, or one whose reading could run code.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path}: damaged weights: {error}") from error
    if path.suffix in (".pth", ".pt", ".bin"):
        return _named_tensors(load_torch(path), path)
    if path.suffix == ".pkl":
        # Brings every community format along, which only this kind of file needs.
        from semvlp.shards.formats import safe_pickle

        # NumPy arrays, as in detectron2's model zoo; a pickle of anything else is refused.
        return _named_tensors(safe_pickle.loads(path.read_bytes(), str(path)), path)
    raise InputError(f"{path}: weights must be .safetensors, .pth, .pt, .bin or .pkl")


def load_strict(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load `state` into `network`, which must have the same tensors in the same shapes.

    Raises:
        InputError: the first tensors that are missing, unexpected or of another shape.
    """
    wanted = network.state_dict()
    problems = [f"{name} is missing" for name in wanted if name not in state]
    problems += [f"{name} is not part of the network" for name in state if name not in wanted]
    problems += [
        f"{name} must be {_shape(tensor)}, found {_shape(state[name])}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(f"{source} does not fit the network: {'; '.join(problems[:5])}{more}")
    network.load_state_dict(dict(state))


def load_body(
    network: nn.Module, given: Mapping[str, Tensor], own: tuple[str, ...], source: str
) -> None:
    """Load `given` strictly, but for names that start with `own`: those know the user's classes.

    Raises:
        InputError: a tensor is missing, unexpected or of another shape.
    """
    kept = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(own)}
    body = {name: tensor for name, tensor in given.items() if not name.startswith(own)}
    load_strict(network, kept | body, source)


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the hash of the weights themselves, whatever file they came from."""
    return hashlib.sha256(_serialised(state)).hexdigest()


def _serialised(state: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})


def _named_tensors(state: Any, path: Path) -> dict[str, Tensor]:
    """Return the mapping itself, or the one inside a training checkpoint, as torch tensors."""
    if isinstance(state, dict):
        state = next((state[key] for key in ("model", "state_dict") if key in state), state)
    if not isinstance(state, dict) or not state:
        raise InputError(f"{path}: must hold a mapping of names to tensors")
    tensors = {}
    for name, value in state.items():
        if isinstance(value, np.ndarray | np.generic):
            value = torch.from_numpy(np.array(value))
        if not isinstance(value, Tensor):
            raise InputError(f"{path}: {name} must be a tensor, found {type(value).__name__}")
        tensors[str(name)] = value
    return tensors


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"
