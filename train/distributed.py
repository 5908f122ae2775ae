"""Several processes as one: found from torchrun's environment, absent in a plain run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from semvlp.errors import ConfigError
from semvlp.torchrun import place
from semvlp.train.train_config import Device, Parallel, Precision

PATIENCE = timedelta(hours=2)  # the first rank may draw a report while the others wait


@dataclass(frozen=True, slots=True)
class World:
    """The processes of this run and our place among them.

    A run of one process never touches `torch.distributed`. Numbers and objects travel between CPUs,
    so that agreeing on a count never waits for a GPU.
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
        return self._reduced(values, distributed.ReduceOp.SUM)

    def max(self, value: float) -> float:
        """The largest of the numbers of all ranks."""
        return self._reduced([value], distributed.ReduceOp.MAX)[0]

    def wait(self) -> None:
        """Return when every rank has come here."""
        self.sum([0.0])

    def share(
        self,
        losses_of: nn.Module,
        model: PreTrainedModel,
        how: Parallel,
        precision: Precision = "fp32",
    ) -> nn.Module:
        """The module `losses_of` around `model`, with its gradients averaged over the ranks.

        `ddp` keeps the whole model on every rank (Li et al. 2020); `fsdp` cuts weights, gradients
        and optimiser state among them, block by block, and gathers a block while it is used (Zhao
        et al. 2023, in PyTorch's second form, `fully_shard`).
        """
        if self.size == 1:
            return losses_of
        if how == "ddp":
            # A single-stream step leaves the cross-attention without gradients, and these must stay
            # none: zeros in their place would move the weights by AdamW's momentum.
            return DistributedDataParallel(
                losses_of, find_unused_parameters=True, gradient_as_bucket_view=True
            )
        cut(model, init_device_mesh(self.device.type, (self.size,)), precision)
        return losses_of

    def _reduced(self, values: Sequence[float], how: distributed.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(numbers, how)
        return [float(number) for number in numbers.tolist()]


@contextmanager
def joined(device: Device) -> Iterator[World]:
    """The world of this process, as torchrun describes it; left again at the end.

    Within a world that was joined already, it is that world.

    Raises:
        ConfigError: a GPU is asked for where there is none.
    """
    rank, size, local_rank = place()
    ours = device_of(device, local_rank=local_rank)
    if size == 1:
        yield World(0, 1, ours)
        return
    if distributed.is_initialized():
        yield World(rank, size, ours)
        return
    if ours.type == "cuda":
        torch.cuda.set_device(ours)
    backend = "cpu:gloo,cuda:nccl" if ours.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
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


def cut(model: PreTrainedModel, mesh: DeviceMesh, precision: Precision) -> None:
    """Cut the weights of a model among the ranks of `mesh`, each block by itself.

    With `bf16` a block is gathered in bfloat16, half as much to send, and its gradients are summed
    in float32. Autocast would cast what was gathered in float32, and keep the copy of every block.
    """
    half = torch.bfloat16 if precision == "bf16" else None
    # What goes from block to block stays float32, as under autocast alone.
    policy = MixedPrecisionPolicy(
        half, reduce_dtype=half and torch.float32, cast_forward_inputs=False
    )
    for block in blocks_of(model):
        if half:
            # Normalisation is float32 under autocast, and so are its few weights.
            for norm in (part for part in block.modules() if isinstance(part, nn.LayerNorm)):
                fully_shard(norm, mesh=mesh, reshard_after_forward=False)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh)


def blocks_of(model: PreTrainedModel) -> list[nn.Module]:
    """The repeated layers of a model, as transformers has it declare them."""
    names = model._no_split_modules or ()
    return [module for module in model.modules() if type(module).__name__ in names]


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Inside, every rank holds all weights, so that each may run the model as often as it likes.

    Entered on all ranks together; changes nothing where the weights are not cut. Where they are
    gathered in bfloat16, the model runs under autocast, as in training.
    """
    pieces = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for piece in pieces:
        piece.set_reshard_after_forward(False, recurse=False)
        piece.unshard()
    weights = list(model.parameters())
    half = any(weight.dtype == torch.bfloat16 for weight in weights)
    try:
        with torch.autocast(weights[0].device.type, torch.bfloat16, enabled=bool(pieces) and half):
            yield
    finally:
        for piece in pieces:
            piece.reshard()
            # The root keeps its weights between forward and backward, as `fully_shard` set it.
            piece.set_reshard_after_forward(piece is not model, recurse=False)
