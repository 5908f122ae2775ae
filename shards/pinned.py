"""Shared memory that a GPU copies from directly, while the trainer goes on."""

import logging
import mmap
import sys
from collections.abc import Callable

import numpy as np

log = logging.getLogger(__name__)


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
    """What there is to end where nothing was pinned."""
