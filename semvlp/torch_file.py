"""What `torch.save` wrote, if that is tensors and plain values alone."""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semvlp.archives import open_archive
from semvlp.errors import InputError

SMALL = 2**20
"""Values that a tensor may have beyond what is stored for it: a constant spread over a shape."""

# What torch raises on a file that is no file of its own, or a damaged one.
DAMAGE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    LookupError,
    MemoryError,
    OverflowError,
)


def save_torch(value: Any, path: Path) -> None:
    """Write what `load_torch` reads.

    Raises:
        OSError: it cannot be written, for instance on a full disk.
    """
    # Into an open file: of one that it opens itself, torch tells of a full disk in C++ alone.
    with path.open("wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_torch(path: Path) -> Any:
    """Return what a file of `torch.save` holds, on the CPU; no code of it runs.

    Raises:
        InputError: it is damaged, holds more than tensors and plain values, or is made to unpack
            to far more than its size.
    """
    try:
        if zipfile.is_zipfile(path):
            # torch stores and never compresses.
            open_archive(path, most=path.stat().st_size).close()
        content = torch.load(path, map_location="cpu", weights_only=True)
        for tensor in _tensors(content):
            _check(tensor)
    except DAMAGE as error:
        raise InputError(
            f"{path}: damaged, or it holds more than tensors and plain values: "
            f"{error or type(error).__name__}"
        ) from error
    return content


def _tensors(content: Any) -> Iterator[Tensor]:
    """Yield every tensor in containers of containers, each container once."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, Mapping) else value)


def _check(tensor: Tensor) -> None:
    """Raise where a tensor has no numbers of its own, or far more than the file stores."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise ValueError("a tensor must be a plain one of numbers")
    stored = tensor.untyped_storage().nbytes() // tensor.element_size()
    if tensor.numel() > max(stored, SMALL):
        raise ValueError(f"a tensor of {tensor.numel()} numbers, of which {stored} are stored")
