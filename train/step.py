"""One optimiser step: forward, backward, clip, update."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from semvlp.model.packing import Mode, PackedBatch
from semvlp.train.config import TrainConfig
from semvlp.train.distributed import World


class Movable(Protocol):
    """Tensors that belong together."""

    def to(self, device: torch.device) -> Self:
        """The same on another device."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Part:
    """What one forward pass takes: a rank's share of a step, or a piece of it."""

    batch: PackedBatch
    targets: Movable
    counts: Mapping[str, float]
    """How many things each objective predicts here."""
    image_ids: tuple[str, ...]

    def to(self, device: torch.device) -> Self:
        """The same part on another device."""
        return replace(self, batch=self.batch.to(device), targets=self.targets.to(device))


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step found, over all ranks."""

    loss: float
    """The weighted sum of the losses: what was minimised."""
    losses: dict[str, float]
    """Mean of each objective over what it predicted; objectives without any are left out."""
    grad_norm: float
    """Norm of the gradient before clipping."""
    stop: bool
    """Whether some rank was asked to stop."""

    @property
    def is_finite(self) -> bool:
        """False: the weights were not updated."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


def train_step(
    losses_of: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[Part],
    mode: Mode,
    *,
    lr: float,
    weights: Mapping[str, float],
    config: TrainConfig,
    world: World,
    stop: bool = False,
) -> StepResult:
    """Update the weights once by the mean losses over the parts of all ranks.

    Args:
        losses_of: module (part, mode) -> sum of each objective, by name; in DDP where ranks share.
        weights: weight of each objective that module gives.
        stop: whether this rank was asked to stop; the result says whether any was.
    """
    counts, stop = _global_counts(parts, weights, world, stop)
    sums = {name: torch.zeros((), device=world.device) for name in weights}
    for number, part in enumerate(parts):
        with _sync_when(losses_of, last=number == len(parts) - 1):
            with torch.autocast(
                world.device.type, torch.bfloat16, enabled=config.precision == "bf16"
            ):
                losses: dict[str, Tensor] = losses_of(part.to(world.device), mode)
            # DDP averages gradients over the ranks, but the counts are those of all ranks.
            scale = {name: weights[name] * world.size / max(counts[name], 1) for name in losses}
            torch.stack([losses[name] * scale[name] for name in losses]).sum().backward()  # type: ignore[no-untyped-call]
        for name, loss in losses.items():
            sums[name] += loss.detach()
    grad_norm = nn.utils.clip_grad_norm_(losses_of.parameters(), config.clip or math.inf)
    result = _result(sums, counts, weights, grad_norm, world, stop)
    if result.is_finite:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return result


def _global_counts(
    parts: Sequence[Part], weights: Mapping[str, float], world: World, stop: bool
) -> tuple[dict[str, float], bool]:
    """Things predicted by each objective over all ranks; and whether any rank stops."""
    own = [sum(part.counts[name] for part in parts) for name in weights]
    *totals, stops = world.sum([*own, float(stop)])
    return dict(zip(weights, totals, strict=True)), stops > 0


def _sync_when(module: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Ranks exchange their gradients once a step, with the last part."""
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return nullcontext()


def _result(
    sums: Mapping[str, Tensor],
    counts: Mapping[str, float],
    weights: Mapping[str, float],
    grad_norm: Tensor,
    world: World,
    stop: bool,
) -> StepResult:
    # One transfer from the device for all numbers of the step.
    *own, norm = torch.stack([*sums.values(), grad_norm]).tolist()
    totals = dict(zip(sums, world.sum(own), strict=True))
    losses = {name: total / counts[name] for name, total in totals.items() if counts[name]}
    loss = sum(weights[name] * value for name, value in losses.items())
    return StepResult(loss, losses, norm, stop)
