"""One optimiser step: forward, backward, clip, update.

A rank's share of a step is split into micro-batches, evenly or by what a forward pass may take.
Nothing here waits for the device: the sums of a step stay there as tensors until somebody asks.
Muon alone does, which has no fused form.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from semvlp.distributed import World
from semvlp.model.packing import Mode, PackedBatch
from semvlp.shards.batch import Damage
from semvlp.train.train_config import TrainConfig


class Movable(Protocol):
    """Tensors that belong together."""

    def to(self, device: torch.device) -> Self:
        """Return the same on another device."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MicroBatch:
    """The input of one forward pass: a rank's share of a step, or a piece of it."""

    batch: PackedBatch
    targets: Movable
    counts: Mapping[str, float]
    """How many things each objective predicts here."""
    image_ids: tuple[str, ...]
    damaged: tuple[Damage, ...] = ()
    """Samples that its step is without; told by the first micro-batch."""

    def to(self, device: torch.device) -> Self:
        """Return the same micro-batch on another device."""
        return replace(self, batch=self.batch.to(device), targets=self.targets.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class StepSums:
    """The sums of a step, still on the device of this rank."""

    numbers: Tensor
    """[objectives + 1] sum of each objective over this rank's micro-batches; gradient's norm."""
    counts: Mapping[str, float]
    """How many things each objective predicted over all ranks."""
    stop: bool
    """Whether some rank was asked to stop."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """The losses and the gradient of a step, over all ranks."""

    loss: float
    """The weighted sum of the losses: what was minimised."""
    losses: dict[str, float]
    """Mean of each objective over what it predicted; objectives without any are left out."""
    grad_norm: float
    """Norm of the gradient before clipping."""

    @property
    def is_finite(self) -> bool:
        """Tell whether all are finite; where they are not, the weights were not updated."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


def train_step(
    loss_module: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[MicroBatch],
    mode: Mode,
    *,
    lr: float,
    weights: Mapping[str, float],
    config: TrainConfig,
    world: World,
    stop: bool = False,
) -> StepSums:
    """Update the weights once by the mean losses over the micro-batches of all ranks.

    Weights and optimiser stay as they are where loss or gradient is not finite.

    Args:
        loss_module: (micro-batch, mode) -> sum of each objective, by name; shared where ranks are.
        lr: learning rate of groups whose `scale` is 1.
        weights: weight of each objective that `loss_module` gives.
        stop: whether this rank was asked to stop; what is returned says whether any was.
    """
    own = [sum(micro_batch.counts[name] for micro_batch in micro_batches) for name in weights]
    *totals, stops = world.sum([*own, float(stop)])
    counts = dict(zip(weights, totals, strict=True))
    sums = _backward(loss_module, micro_batches, mode, counts, weights, config, world)
    norm = nn.utils.clip_grad_norm_(loss_module.parameters(), config.max_grad_norm or math.inf)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("scale", 1.0)
    # A fused optimiser looks at this number on the device and then does nothing.
    bad = ~torch.isfinite(norm + sums.sum())
    optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepSums(torch.cat([sums, norm[None]]), counts, stops > 0)


def reduce(
    steps: Sequence[StepSums], weights: Mapping[str, float], world: World
) -> list[StepResult]:
    """Sum some steps over all ranks, with one transfer from the device for all of them."""
    if not steps:
        return []
    rows = torch.stack([step.numbers for step in steps]).tolist()
    totals = iter(world.sum([value for *sums, _ in rows for value in sums]))
    results = []
    for step, row in zip(steps, rows, strict=True):
        sums = {name: next(totals) for name in weights}
        losses = {n: total / step.counts[n] for n, total in sums.items() if step.counts[n]}
        loss = sum(weights[name] * value for name, value in losses.items())
        results.append(StepResult(loss, losses, row[-1]))
    return results


def split(rows: Sequence[int], config: TrainConfig) -> list[slice]:
    """Split the things of a step, which take so many `rows` of a packed batch each, into runs."""
    if config.max_rows_per_micro_batch:
        return list(filled(rows, config.max_rows_per_micro_batch))
    return list(evenly(len(rows), config.gradient_accumulation_steps))


def evenly(count: int, runs: int) -> Iterator[slice]:
    """Split `count` things into `runs` whose lengths differ by one at most; none is empty."""
    bounds = [count * run // runs for run in range(runs + 1)]
    return (slice(low, high) for low, high in pairwise(bounds) if low < high)


def filled(rows: Sequence[int], most: int) -> Iterator[slice]:
    """Make runs as long as can be of at most `most` rows; one thing may take more by itself."""
    first = total = 0
    for index, size in enumerate(rows):
        if index > first and total + size > most:
            yield slice(first, index)
            first, total = index, 0
        total += size
    yield slice(first, len(rows))


def _backward(
    loss_module: nn.Module,
    micro_batches: Sequence[MicroBatch],
    mode: Mode,
    counts: Mapping[str, float],
    weights: Mapping[str, float],
    config: TrainConfig,
    world: World,
) -> Tensor:
    """Add up the gradients of this rank; return the sum of each objective, on the device."""
    sums = torch.zeros(len(weights), device=world.device)
    for micro_batch, share, is_last in _rounds(micro_batches, loss_module, world):
        with _sync_when(loss_module, last=is_last):
            with torch.autocast(
                world.device.type, torch.bfloat16, enabled=config.precision == "bf16"
            ):
                losses: dict[str, Tensor] = loss_module(micro_batch.to(world.device), mode)
            # Gradients are averaged over the ranks, but the counts are those of all ranks.
            scale = {
                name: share * weights[name] * world.size / max(counts[name], 1) for name in weights
            }
            torch.stack([losses[name] * scale[name] for name in weights]).sum().backward()  # type: ignore[no-untyped-call]
        sums += torch.stack([losses[name].detach() for name in weights]) * share
    return sums


def _rounds(
    micro_batches: Sequence[MicroBatch], module: nn.Module, world: World
) -> list[tuple[MicroBatch, float, bool]]:
    """Return the micro-batches, how much each counts, and whether it is the last.

    Weights that are cut among ranks are gathered by all of them together, so there a rank with
    fewer micro-batches than another computes its last one again and counts it as nothing.
    """
    count = len(micro_batches)
    missing = int(world.max(count)) - count if _cut_pieces(module) else 0
    rounds = [(one, 1.0) for one in micro_batches] + [(micro_batches[-1], 0.0)] * missing
    return [(one, share, n == len(rounds)) for n, (one, share) in enumerate(rounds, start=1)]


def _sync_when(module: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Let ranks exchange their gradients once a step, with the last micro-batch."""
    for piece in _cut_pieces(module):
        piece.set_requires_gradient_sync(last, recurse=False)
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return nullcontext()


def _cut_pieces(module: nn.Module) -> list[FSDPModule]:
    return [piece for piece in module.modules() if isinstance(piece, FSDPModule)]
