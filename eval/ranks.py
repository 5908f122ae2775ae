"""Several processes that answer together: each takes its share, everyone gets the whole."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from semvlp.torchrun import place

Scores = NDArray[np.float32]
# Ranks wait for the slowest one at the end of a pass.
PATIENCE = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Ranks:
    """Our place among the processes of an evaluation.

    Work is cut into the same units whatever their number, so the numbers do not depend on it.
    """

    rank: int
    size: int

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def share(self, units: int) -> range:
        """The units that are ours; over all ranks each unit occurs once."""
        return range(self.rank, units, self.size)

    def gathered(self, ours: Sequence[Scores], units: int) -> list[Scores]:
        """The result of every unit in order, on every rank.

        Args:
            ours: two-dimensional results of `share(units)`, in its order.
        """
        if self.size == 1:
            return list(ours)
        shapes = self._shapes(ours, units)
        sizes = [int(shapes[rank :: self.size].prod(1).sum()) for rank in range(self.size)]
        flat = torch.zeros(max(sizes))
        if ours:
            joined = np.concatenate([result.ravel() for result in ours])
            flat[: sizes[self.rank]] = torch.from_numpy(joined)
        received = [torch.empty_like(flat) for _ in range(self.size)]
        distributed.all_gather(received, flat)
        found: dict[int, Scores] = {}
        for rank, values in enumerate(received):
            start = 0
            for unit in range(rank, units, self.size):
                rows, columns = shapes[unit].tolist()
                piece = values[start : start + rows * columns]
                found[unit] = piece.numpy().reshape(rows, columns)
                start += rows * columns
        return [found[unit] for unit in range(units)]

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self.size > 1:
            distributed.barrier()

    def _shapes(self, ours: Sequence[Scores], units: int) -> torch.Tensor:
        """[units, 2] int64"""
        shapes = torch.zeros(units, 2, dtype=torch.int64)
        for unit, result in zip(self.share(units), ours, strict=True):
            shapes[unit] = torch.tensor(result.shape)
        distributed.all_reduce(shapes)
        return shapes


ALONE = Ranks(0, 1)


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """The processes that torchrun has started, left again at the end; a plain run is alone.

    Only scores on the CPU are exchanged, so gloo serves CPUs and GPUs alike.
    """
    size = place().size
    if size == 1:
        yield ALONE
        return
    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
