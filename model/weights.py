"""Tensors of a checkpoint into a network, strictly: every name and shape accounted for."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from semvlp.errors import InputError
from semvlp.model.config import SemVLPConfig

WEIGHTS_FILE = "model.safetensors"
ENCODER = "semvlp."
N = TypeVar("N", bound=nn.Module)
MOST_MISSING = 2**26
"""Numbers that a checkpoint may lack before nothing is allocated for it: 256 MiB of them."""
# Where the setting of `semvlp` has another name than the field of the configuration.
SETTINGS = {"num_hidden_layers": "num_layers"}


class WeightsError(InputError, ValueError):
    """A checkpoint whose tensors do not fit the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """The tensors that were loaded, kept and left over."""

    source: str
    """File or name the tensors came from."""
    loaded: tuple[str, ...]
    """Names in the network that were filled."""
    new: tuple[str, ...]
    """Names in the network that keep their initial values."""
    unused: tuple[str, ...]
    """Names in the checkpoint that the network has no place for."""
    labels: tuple[str, ...] = ()
    """Labels of the task head whose rows were copied from the answer head."""

    def __str__(self) -> str:
        """Name every weight that was not loaded, in one line: `*` stands for layer numbers."""
        return (
            f"{self.source}: {len(self.loaded)} tensors loaded; {len(self.new)} keep their initial "
            f"values: {_patterns(self.new)}; {len(self.unused)} of the file have no place: "
            f"{_patterns(self.unused)}"
        )


def refuse_larger(kind: type[nn.Module], config: object, directory: Path) -> None:
    """Raise where a network of `config` has far more numbers than its checkpoint stores.

    Nothing is allocated for it: that is what this is for. A few missing tensors, or a checkpoint
    elsewhere, are left to who reads it.

    Raises:
        WeightsError: says how many each has.
    """
    file = directory / WEIGHTS_FILE
    if not file.is_file():
        return
    try:
        with safe_open(file, "pt") as tensors:
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
    except SafetensorError:
        return  # told by who reads it
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in kind(config).parameters())
    stored = sum(map(math.prod, shapes))
    if wanted > stored + MOST_MISSING:
        raise WeightsError(
            f"{directory / 'config.json'}: describes a network of {wanted} numbers, but "
            f"{WEIGHTS_FILE} beside it holds {stored}; copy both files of the checkpoint again"
        )


def read_tensors(directory: Path) -> tuple[dict[str, Tensor], Path]:
    """Read all tensors of a checkpoint directory; return them and their file.

    Raises:
        InputError: no such file, or a damaged one.
    """
    file = directory / WEIGHTS_FILE
    if not file.is_file():
        raise InputError(
            f"{directory}: a checkpoint directory must hold {WEIGHTS_FILE}; "
            "give RUN/last, RUN/best or RUN/checkpoints/step-..."
        )
    try:
        return load_file(file), file
    except SafetensorError as error:
        raise InputError(f"{file}: not a readable safetensors file: {error}") from error


def copy_tensors(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    required: Iterable[str],
    unused: Iterable[str] = (),
    labels: Iterable[str] = (),
) -> LoadReport:
    """Fill the parameters and buffers of `module` that `tensors` names.

    Raises:
        WeightsError: a required name is missing, a name is unknown, or shapes differ.
    """
    own = _tensors(module)
    _check_fit(own, tensors, source, required)
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    return LoadReport(
        source=source,
        loaded=tuple(name for name in own if name in tensors),
        new=tuple(name for name in own if name not in tensors),
        unused=tuple(unused),
        labels=tuple(labels),
    )


def filled(kind: Callable[[SemVLPConfig], N], config: SemVLPConfig, directory: Path) -> N:
    """Make a network of the tensors of a checkpoint, all of them and no others, in float32.

    Nothing is allocated for it but what the file holds.

    Raises:
        InputError: an unreadable checkpoint, or one that does not fit (then a WeightsError).
    """
    with torch.device("meta"), _Unfilled():
        network = kind(config)
    tensors, file = read_tensors(directory)
    _check_fit(own := _tensors(network), tensors, str(file), own)
    network.load_state_dict({name: tensors[name].float() for name in own}, assign=True)
    return network


class _Unfilled(TorchFunctionMode):
    """Tensors are made without their initial values, for which torch would load its compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def _check_fit(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str, required: Iterable[str]
) -> None:
    for name in required:
        if name not in tensors:
            raise WeightsError(f"{source}: the tensor {name} {_shape(own[name])} is missing")
    for name, tensor in tensors.items():
        if name not in own:
            raise WeightsError(
                f"{source}: the network has no place for the tensor {name} {_shape(tensor)}; "
                "num_hidden_layers and cross_layers must be those of the checkpoint"
            )
        if tensor.shape != own[name].shape:
            raise WeightsError(
                f"{source}: the tensor {name} must be {_shape(own[name])} in this network, "
                f"got {_shape(tensor)}"
            )


def check_options(config: SemVLPConfig, source: str, whose: str, wanted: Mapping[str, Any]) -> None:
    """Check that the network has the options that the weights of a family were learned with.

    Raises:
        WeightsError: one differs; it is named as it is in `config` and as a setting.
    """
    for name, value in wanted.items():
        chosen = getattr(config, name)
        if chosen != value:
            raise WeightsError(
                f"{source}: {whose} weights need {name} = {value!r}, got {chosen!r}; set "
                f"model.{SETTINGS.get(name, name)}"
            )


def load_pretraining(
    model: nn.Module, config: SemVLPConfig, directory: Path, answers: list[str]
) -> LoadReport:
    """Fill a task model from a pre-training checkpoint whose answer head knows `answers`.

    The encoder must fit as a whole. A pooled head takes the answer head and the rows of the labels
    both know, other rows start at zero (as in LXMERT); a match head takes the matching head.

    Raises:
        InputError: an unreadable checkpoint, or one that does not fit (then a WeightsError).
    """
    tensors, file = read_tensors(directory)
    encoder = {name: tensor for name, tensor in tensors.items() if name.startswith(ENCODER)}
    head: dict[str, Tensor] = {}
    known: list[str] = []
    used = set(encoder)
    if config.task_head == "match":
        head, names = _renamed(tensors, "match_head.", "head.")
        used |= names
    elif config.task_head == "pooled":
        head, names = _renamed(tensors, "answer_head.", "head.")
        used |= names
        if head:
            known = [label for label in config.labels if label in set(answers)]
            for name in ("head.outer.weight", "head.outer.bias"):
                head[name] = _rows(head[name], answers, config.labels)
    return copy_tensors(
        model,
        {**encoder, **head},
        str(file),
        required=[name for name in _tensors(model) if name.startswith(ENCODER)],
        unused=[name for name in tensors if name not in used],
        labels=known,
    )


def _patterns(names: Iterable[str]) -> str:
    """List the modules of these tensors and their numbers of tensors, layers taken together."""
    modules = (re.sub(r"\.(weight|bias)$", "", re.sub(r"\.\d+\.", ".*.", n)) for n in names)
    return ", ".join(f"{name} ({count})" for name, count in Counter(modules).items()) or "none"


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(chain(module.named_parameters(), module.named_buffers()))


def _renamed(
    tensors: Mapping[str, Tensor], old: str, new: str
) -> tuple[dict[str, Tensor], set[str]]:
    """Return the tensors under the prefix `old`, under `new`; and their old names."""
    names = {name for name in tensors if name.startswith(old)}
    return {new + name.removeprefix(old): tensors[name] for name in names}, names


def _rows(outer: Tensor, answers: list[str], labels: list[str]) -> Tensor:
    """Put rows of `outer` [A, ...] in the order of `labels`; zeros where `answers` lacks one."""
    row = {answer: index for index, answer in enumerate(answers)}
    known = [index for index, label in enumerate(labels) if label in row]
    rows = outer.new_zeros(len(labels), *outer.shape[1:])
    rows[known] = outer[[row[labels[index]] for index in known]]
    return rows


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
