"""Memory for the features of some steps, used again: new memory costs more than the copying."""

from collections import deque
from typing import Any
from weakref import finalize

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SPARE = 1.25
"""Room for the next steps, which may have more regions."""


class FeatureMemory:
    """Copies of features; the memory of one is used again once no tensor refers to it.

    Args:
        pinned: page-locked, of PyTorch's allocator, which does likewise and waits for the GPU too.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._free: deque[NDArray[Any]] = deque()

    def copy(self, features: NDArray[np.float16]) -> Tensor:
        """The same features [R, F] in memory of our own."""
        if self._pinned:
            # Not pin_memory(): what the reader lends is page-locked already and is not copied.
            source = torch.from_numpy(features)
            return torch.empty(source.shape, dtype=source.dtype, pin_memory=True).copy_(source)
        room = self._room(features)
        used = room[: len(features)]
        used[:] = features
        # The tensor, and whatever is cut from it, holds `used`.
        finalize(used, self._free.append, room).atexit = False
        return torch.from_numpy(used)

    def _room(self, features: NDArray[np.float16]) -> NDArray[Any]:
        while self._free:
            room = self._free.popleft()
            if len(room) >= len(features):
                return room
        return np.empty((int(len(features) * SPARE), features.shape[1]), features.dtype)
