"""Several processes as one: found from torchrun's environment, absent in a plain run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from semvlp.errors import ConfigError, Interrupted
from semvlp.names import Precision
from semvlp.torchrun import process_rank

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class World:
    """The processes of this run and our place among them.

    A run of one process never touches `torch.distributed`. Numbers travel between CPUs, by gloo, so
    that agreeing on a count never waits for a GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Our number on our own machine."""
    device: torch.device = CPU
    """Where we compute."""
    group: distributed.ProcessGroup | None = field(default=None, compare=False, repr=False)
    """Through what numbers travel; None is the group of all processes as we formed it."""

    @property
    def is_first(self) -> bool:
        """Tell whether this process is the one that writes what all have made."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums of each number over all ranks."""
        return self._reduced(values, distributed.ReduceOp.SUM)

    def max(self, value: float) -> float:
        """Return the largest of the numbers of all ranks."""
        return self._reduced([value], distributed.ReduceOp.MAX)[0]

    def check_stop(self, asked: bool) -> None:
        """Return where no rank was asked to stop; all ranks come here together.

        Raises:
            Interrupted: on every rank, where one was.
        """
        if self.max(asked):
            raise Interrupted("stopped between two batches")

    def wait(self) -> None:
        """Return when every rank has come here."""
        # Not a barrier: that would be one of the GPUs where there are some.
        self.sum([0.0])

    def share(self, units: int) -> range:
        """Return the units that are ours; over all ranks each unit occurs once.

        Work that is cut into the same units whatever the number of ranks gives numbers that do not
        depend on it.
        """
        return range(self.rank, units, self.size)

    def gathered(
        self, ours: Sequence[NDArray[np.float32]], units: int
    ) -> list[NDArray[np.float32]]:
        """Return the result of every unit in order, on every rank.

        Args:
            ours: two-dimensional results of `share(units)`, in its order.
        """
        if self.size == 1:
            return list(ours)
        shapes = self._shapes(ours, units)
        sizes = [int(shapes[rank :: self.size].prod(1).sum()) for rank in range(self.size)]
        flat = torch.zeros(max(sizes))
        if ours:
            values = np.concatenate([result.ravel() for result in ours])
            flat[: sizes[self.rank]] = torch.from_numpy(values)
        received = [torch.empty_like(flat) for _ in range(self.size)]
        distributed.all_gather(received, flat, group=self.group)
        results: dict[int, NDArray[np.float32]] = {}
        for rank, values_of_rank in enumerate(received):
            start = 0
            for unit in range(rank, units, self.size):
                rows, columns = shapes[unit].tolist()
                piece = values_of_rank[start : start + rows * columns]
                results[unit] = piece.numpy().reshape(rows, columns)
                start += rows * columns
        return [results[unit] for unit in range(units)]

    def collected(self, ours: Sequence[Any]) -> list[Any]:
        """Return the values of all ranks, on every rank, those of the first one first."""
        if self.size == 1:
            return list(ours)
        received: list[Any] = [None] * self.size
        distributed.all_gather_object(received, list(ours), group=self.group)
        return [value for values in received for value in values]

    def _shapes(self, ours: Sequence[NDArray[np.float32]], units: int) -> torch.Tensor:
        """[units, 2] int64"""
        shapes = torch.zeros(units, 2, dtype=torch.int64)
        for unit, result in zip(self.share(units), ours, strict=True):
            shapes[unit] = torch.tensor(result.shape)
        distributed.all_reduce(shapes, group=self.group)
        return shapes

    def _reduced(self, values: Sequence[float], how: distributed.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(numbers, how, group=self.group)
        return [float(number) for number in numbers.tolist()]


ALONE = World()


@contextmanager
def joined(device: str, *, patience: timedelta, setting: str = "device") -> Iterator[World]:
    """Join the processes that torchrun has started, and leave them at the end.

    Within a world that was joined already it is that world, which then goes on.

    Args:
        device: where to compute; see `device_of`.
        patience: how long the ranks wait for the slowest one before the run fails.
        setting: what the user calls `device`.

    Raises:
        ConfigError: as `device_of`.
    """
    rank, size, local_rank = process_rank()
    ours = device_of(device, local_rank=local_rank, setting=setting)
    if size == 1:
        yield World(device=ours)
        return
    if distributed.is_initialized():
        # Whoever formed it may have left out the CPUs (NCCL alone), or be less patient.
        group = distributed.new_group(backend="gloo", timeout=patience)
        assert not isinstance(group, int), "no rank is left out"
        yield World(rank, size, local_rank, ours, group)
        return
    backend = "gloo"
    if ours.type != "cpu":
        torch.accelerator.set_device_index(ours)
        backend = f"cpu:gloo,{ours.type}:{distributed.get_default_backend_for_device(ours)}"
    distributed.init_process_group(backend, timeout=patience)
    try:
        yield World(rank, size, local_rank, ours)
    finally:
        distributed.destroy_process_group()


def device_of(
    device: str, *, local_rank: int | None = None, setting: str = "device"
) -> torch.device:
    """Return the device that a name means for this process.

    Args:
        device: one of `semvlp.names.DEVICES`, where `auto` is the accelerator if there is one; or
            one of several accelerators by its number, such as `cuda:1`.
        local_rank: our number on our machine, and so the number of our accelerator; torchrun's
            unless given.
        setting: what the user calls `device`.

    Raises:
        ConfigError: no such device is there, or fewer than there are processes.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    kind, _, number = device.partition(":")
    if kind == "cpu" or (kind == "auto" and accelerator is None):
        return CPU
    if accelerator is None or kind not in ("auto", accelerator.type):
        there = f"auto, cpu or {accelerator.type}" if accelerator else "auto or cpu"
        raise ConfigError(
            f"{setting} must be {there}, got {device!r}: PyTorch sees no other device here"
        )
    local_rank = process_rank().local_rank if local_rank is None else local_rank
    index, count = int(number or local_rank), torch.accelerator.device_count()
    if index >= count:
        raise ConfigError(
            f"{setting} {device!r} needs {index + 1} {accelerator.type} devices on this machine "
            f"(local rank {local_rank}), but PyTorch sees {count}; start at most {count} processes "
            "on a machine (torchrun --nproc-per-node), or take cpu"
        )
    return torch.device(accelerator.type, index)


def precision_of(precision: Precision, device: torch.device) -> Precision:
    """Return fp32 or bf16; `auto` is bf16 where the device multiplies it by itself, so faster."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and bool(native_bf16())
    return "bf16" if native else "fp32"


def native_bf16() -> list[str]:
    """Return the instructions with which the processor multiplies bf16 by itself."""
    can: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return [name for name in ("avx512_bf16", "amx_bf16") if can.get(name)]


def pins_memory(device: torch.device) -> bool:
    """Tell whether memory is page-locked before it is copied to `device`, so that nobody waits.

    MPS shares the memory of the CPU.
    """
    return device.type in ("cuda", "xpu")
