"""Memory that two processes share: slots of packed rows, allocated once and used in turn.

It can be page-locked, so that a GPU copies from it directly while the trainer goes on.
"""

import logging
import math
import mmap
import os
import sys
from collections.abc import Callable
from multiprocessing.reduction import DupFd
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from semvlp.shards.batch import Columns, layout

log = logging.getLogger(__name__)

ALIGNMENT = 64


class Ring:
    """Slots that each hold `rows` regions. It has no name, so no crash leaves anything behind.

    Pickled for a process that is being started, it is the same memory there.
    """

    def __init__(self, slots: int, rows: int, feature_size: int, descriptor: int = -1) -> None:
        self._shape = slots, rows, feature_size
        if descriptor < 0:
            descriptor = _nameless_file()
            os.ftruncate(descriptor, slots * _slot_bytes(rows, feature_size))
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, 0)
        self._unpin: Callable[[], None] = unpinned

    def columns(self, slot: int) -> Columns:
        """Return the arrays of one slot."""
        _, rows, feature_size = self._shape
        offset = slot * _slot_bytes(rows, feature_size)
        columns = {}
        for name, kind, shape in layout(rows, feature_size):
            columns[name] = np.ndarray(shape, kind, self._memory, offset)
            offset += _column_bytes(kind, shape)
        return columns

    def pin(self) -> None:
        """Let the GPU of this process, where it uses one, copy straight from the slots."""
        self._unpin = pin(self._memory)

    def close(self) -> None:
        """Give the descriptor back; the memory goes when no array uses it any more."""
        self._unpin()
        self._unpin = unpinned
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (*self._shape, DupFd(self._descriptor))


def pin(memory: mmap.mmap) -> Callable[[], None]:
    """Pin `memory` where this process uses a GPU through PyTorch; returns what ends that.

    A copy to the GPU from memory that is not pinned goes through another buffer and waits for it.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return unpinned
    address, size = np.frombuffer(memory, np.uint8).ctypes.data, len(memory)
    runtime = torch.cuda.cudart()
    failure = int(runtime.cudaHostRegister(address, size, 0))
    if failure:
        log.warning("%d bytes of shared memory cannot be pinned: CUDA error %d", size, failure)
        return unpinned

    def unpin() -> None:
        runtime.cudaHostUnregister(address)

    return unpin


def unpinned() -> None:
    """Do nothing, where nothing was pinned."""


def _nameless_file() -> int:
    """Open a file in memory where the system can (Linux), else among the temporary files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("semvlp-ring")
    with TemporaryFile() as file:
        return os.dup(file.fileno())


def _received(slots: int, rows: int, feature_size: int, descriptor: Any) -> Ring:
    return Ring(slots, rows, feature_size, descriptor.detach())


def _slot_bytes(rows: int, feature_size: int) -> int:
    return sum(_column_bytes(kind, shape) for _, kind, shape in layout(rows, feature_size))


def _column_bytes(kind: type[np.generic], shape: tuple[int, ...]) -> int:
    size = math.prod(shape) * np.dtype(kind).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT
