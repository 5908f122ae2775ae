"""One optimiser step: forward, backward, clip, update.

A rank's share of a step is cut into parts, evenly or by what a forward pass may take. Nothing here
waits for the device: what a step found stays there as tensors until somebody asks. Muon alone does,
which has no fused form.
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
from semvlp.train.train_config import TrainConfig


class Movable(Protocol):
    """Tensors that belong together."""

    def to(self, device: torch.device) -> Self:
        """The same on another device."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MicroBatch:
    """What one forward pass takes: a rank's share of a step, or a piece of it."""

    batch: PackedBatch
    targets: Movable
    counts: Mapping[str, float]
    """How many things each objective predicts here."""
    image_ids: tuple[str, ...]

    def to(self, device: torch.device) -> Self:
        """The same part on another device."""
        return replace(self, batch=self.batch.to(device), targets=self.targets.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class StepSums:
    """What a step found, still on the device of this rank."""

    numbers: Tensor
    """[objectives + 1] sum of each objective over this rank's parts; norm of the gradient."""
    counts: Mapping[str, float]
    """How many things each objective predicted over all ranks."""
    stop: bool
    """Whether some rank was asked to stop."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step found, over all ranks."""

    loss: float
    """The weighted sum of the losses: what was minimised."""
    losses: dict[str, float]
    """Mean of each objective over what it predicted; objectives without any are left out."""
    grad_norm: float
    """Norm of the gradient before clipping."""

    @property
    def is_finite(self) -> bool:
        """False: the weights were not updated."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


def train_step(
    loss_module: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[MicroBatch],
    mode: Mode,
    *,
    lr: float,
    weights: Mapping[str, float],
    config: TrainConfig,
    world: World,
    stop: bool = False,
) -> StepSums:
    """Update the weights once by the mean losses over the parts of all ranks.

    Weights and optimiser stay as they are where loss or gradient is not finite.

    Args:
        loss_module: (part, mode) -> sum of each objective, by name; shared where ranks are.
        lr: learning rate of groups whose `scale` is 1.
        weights: weight of each objective that module gives.
        stop: whether this rank was asked to stop; what is returned says whether any was.
    """
    counts, stop = _global_counts(parts, weights, world, stop)
    sums = torch.zeros(len(weights), device=world.device)
    for part, counted, is_last in _rounds(parts, loss_module, world):
        with _sync_when(loss_module, last=is_last):
            with torch.autocast(
                world.device.type, torch.bfloat16, enabled=config.precision == "bf16"
            ):
                losses: dict[str, Tensor] = loss_module(part.to(world.device), mode)
            # Gradients are averaged over the ranks, but the counts are those of all ranks.
            scale = {
                name: counted * weights[name] * world.size / max(counts[name], 1)
                for name in weights
            }
            torch.stack([losses[name] * scale[name] for name in weights]).sum().backward()  # type: ignore[no-untyped-call]
        sums += torch.stack([losses[name].detach() for name in weights]) * counted
    norm = nn.utils.clip_grad_norm_(loss_module.parameters(), config.max_grad_norm or math.inf)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("scale", 1.0)
    # A fused optimiser looks at this number on the device and then does nothing.
    bad = ~torch.isfinite(norm + sums.sum())
    optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepSums(torch.cat([sums, norm[None]]), counts, stop)


def results(
    found: Sequence[StepSums], weights: Mapping[str, float], world: World
) -> list[StepResult]:
    """What some steps found, over all ranks: one transfer from the device for all of them."""
    if not found:
        return []
    rows = torch.stack([one.numbers for one in found]).tolist()
    own = [value for *sums, _ in rows for value in sums]
    totals = iter(world.sum(own))
    return [
        _result({name: next(totals) for name in weights}, one.counts, weights, row[-1])
        for one, row in zip(found, rows, strict=True)
    ]


def _global_counts(
    parts: Sequence[MicroBatch], weights: Mapping[str, float], world: World, stop: bool
) -> tuple[dict[str, float], bool]:
    """Things predicted by each objective over all ranks; and whether any rank stops."""
    own = [sum(part.counts[name] for part in parts) for name in weights]
    *totals, stops = world.sum([*own, float(stop)])
    return dict(zip(weights, totals, strict=True)), stops > 0


def _rounds(
    parts: Sequence[MicroBatch], module: nn.Module, world: World
) -> list[tuple[MicroBatch, float, bool]]:
    """The parts, how much each counts, and whether it is the last.

    Cut weights are gathered by all ranks together, so there a rank with fewer parts than another
    computes its last one again and counts it as nothing.
    """
    missing = int(world.max(len(parts))) - len(parts) if _is_cut(module) else 0
    counted = [(part, 1.0) for part in parts] + [(parts[-1], 0.0)] * missing
    last = len(counted) - 1
    return [(part, share, number == last) for number, (part, share) in enumerate(counted)]


def _sync_when(module: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Ranks exchange their gradients once a step, with the last part."""
    for piece in _cut_pieces(module):
        piece.set_requires_gradient_sync(last, recurse=False)
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return nullcontext()


def _cut_pieces(module: nn.Module) -> list[FSDPModule]:
    return [piece for piece in module.modules() if isinstance(piece, FSDPModule)]


def _is_cut(module: nn.Module) -> bool:
    return bool(_cut_pieces(module))


def _result(
    totals: Mapping[str, float],
    counts: Mapping[str, float],
    weights: Mapping[str, float],
    grad_norm: float,
) -> StepResult:
    losses = {name: total / counts[name] for name, total in totals.items() if counts[name]}
    loss = sum(weights[name] * value for name, value in losses.items())
    return StepResult(loss, losses, grad_norm)


def split(rows: Sequence[int], config: TrainConfig) -> list[slice]:
    """Runs of the things of a step, which take so many `rows` of a packed batch each."""
    if config.max_rows_per_micro_batch:
        return list(filled(rows, config.max_rows_per_micro_batch))
    return list(evenly(len(rows), config.gradient_accumulation_steps))


def evenly(count: int, parts: int) -> Iterator[slice]:
    """Cut `count` things into `parts` runs whose lengths differ by one at most."""
    bounds = [count * part // parts for part in range(parts + 1)]
    return (slice(low, high) for low, high in pairwise(bounds))


def filled(rows: Sequence[int], most: int) -> Iterator[slice]:
    """Runs as long as they can be with at most `most` rows; one thing may take more by itself."""
    first = total = 0
    for index, size in enumerate(rows):
        if index > first and total + size > most:
            yield slice(first, index)
            first, total = index, 0
        total += size
    yield slice(first, len(rows))
