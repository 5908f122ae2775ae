"""Several processes as one: found from torchrun's environment, absent in a plain run."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from semvlp.errors import ConfigError
from semvlp.train.config import Device

PATIENCE = timedelta(hours=2)  # the first rank validates alone while the others wait


@dataclass(frozen=True, slots=True)
class World:
    """The processes of this run and our place among them.

    A run of one process never touches `torch.distributed`.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the log, the checkpoints and the report."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums of each number over all ranks."""
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(numbers)
        return [float(number) for number in numbers.tolist()]

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self.size > 1:
            distributed.barrier()

    def share(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over the ranks."""
        if self.size == 1:
            return module
        # A single-stream step leaves the cross-attention without gradients.
        return DistributedDataParallel(module, find_unused_parameters=True)


@contextmanager
def joined(device: Device) -> Iterator[World]:
    """The world of this process, as torchrun describes it; left again at the end.

    Raises:
        ConfigError: a GPU is asked for where there is none.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    ours = device_of(device, local_rank=int(os.environ.get("LOCAL_RANK", 0)))
    if size == 1:
        yield World(0, 1, ours)
        return
    if ours.type == "cuda":
        torch.cuda.set_device(ours)
    distributed.init_process_group("nccl" if ours.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(rank, size, ours)
    finally:
        distributed.destroy_process_group()


def device_of(device: Device, *, local_rank: int = 0) -> torch.device:
    """The device that `train.device` means on this machine."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device must be cpu or auto: no CUDA device is visible here")
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)
