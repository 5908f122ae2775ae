"""One step: micro-batches add up, nothing that is not finite reaches the weights."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from semvlp.distributed import ALONE
from semvlp.train.optim import make_optimizer
from semvlp.train.step import MicroBatch, StepResult, reduce, train_step
from semvlp.train.train_config import TrainConfig

WEIGHTS = {"left": 1.0, "right": 2.0}


@dataclass
class Points:
    """Inputs [n, 2]; an objective each for the sum and the difference of them."""

    inputs: Tensor
    to_device: list[Any] = field(default_factory=list)

    def to(self, device: torch.device) -> Self:
        self.to_device.append(device)
        return self


class Squares(nn.Module):
    """Sums of squares of two linear functions."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, micro_batch: MicroBatch, mode: str) -> dict[str, Tensor]:
        assert isinstance(micro_batch.targets, Points)
        out = self.linear(micro_batch.targets.inputs)
        return {"left": (out[:, 0] ** 2).sum(), "right": (out[: mode == "two", 1] ** 2).sum()}


def micro_batch_of(inputs: Tensor, right: int = 0) -> MicroBatch:
    batch = SimpleNamespace(to=lambda device: None)
    counts = {"left": len(inputs), "right": right}
    return MicroBatch(batch=batch, targets=Points(inputs), counts=counts, image_ids=())  # type: ignore[arg-type]


def step(
    module: nn.Module, micro_batches: Sequence[MicroBatch], *, mode: str = "single", **config: Any
) -> StepResult:
    settings = TrainConfig(**{"max_grad_norm": 0.0, **config})
    sums = train_step(
        module,
        make_optimizer(module, settings),
        micro_batches,
        mode,  # type: ignore[arg-type]
        lr=0.1,
        weights=WEIGHTS,
        config=settings,
        world=ALONE,
    )
    (result,) = reduce([sums], WEIGHTS, ALONE)
    return result


def test_the_loss_is_the_weighted_sum_of_means() -> None:
    module, inputs = Squares(), torch.randn(6, 2)
    out = module.linear(inputs).detach()
    result = step(module, [micro_batch_of(inputs, right=1)], mode="two")
    left, right = (out[:, 0] ** 2).mean().item(), (out[0, 1] ** 2).item()
    assert result.losses == pytest.approx({"left": left, "right": right})
    assert result.loss == pytest.approx(left + 2 * right)


def test_an_objective_without_anything_to_predict_is_left_out() -> None:
    result = step(Squares(), [micro_batch_of(torch.randn(4, 2))])
    assert set(result.losses) == {"left"}


@pytest.mark.parametrize("cuts", [[6], [1, 5], [2, 2, 2]])
def test_accumulated_parts_of_any_size_make_the_same_step(cuts: list[int]) -> None:
    torch.manual_seed(0)
    module, inputs = Squares(), torch.randn(6, 2)
    other = copy.deepcopy(module)
    whole = step(module, [micro_batch_of(inputs)])
    pieces = step(other, [micro_batch_of(piece) for piece in inputs.split(cuts)])
    assert pieces.loss == pytest.approx(whole.loss, rel=1e-6)
    assert pieces.grad_norm == pytest.approx(whole.grad_norm, rel=1e-6)
    assert torch.allclose(module.linear.weight, other.linear.weight, atol=1e-7)


def test_the_learning_rate_is_used_and_gradients_are_gone() -> None:
    module = Squares()
    before = module.linear.weight.detach().clone()
    step(module, [micro_batch_of(torch.randn(4, 2))], weight_decay=0.0)
    # AdamW's first step moves every weight with a gradient by the learning rate.
    moved = (module.linear.weight - before).abs()[0]
    assert moved.tolist() == pytest.approx([0.1, 0.1], rel=1e-3)
    assert module.linear.weight.grad is None


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_the_norm_is_told_before_clipping_and_clipping_acts(clip: float) -> None:
    module = Squares()
    before = torch.cat([p.detach().flatten() for p in module.parameters()])
    sums = train_step(
        module,
        torch.optim.SGD(module.parameters(), fused=True),
        [micro_batch_of(100 * torch.ones(1, 2))],
        "single",
        lr=0.1,
        weights=WEIGHTS,
        config=TrainConfig(max_grad_norm=clip),
        world=ALONE,
    )
    (result,) = reduce([sums], WEIGHTS, ALONE)
    moved = torch.cat([p.detach().flatten() for p in module.parameters()]) - before
    assert result.grad_norm > 1.0
    assert moved.norm().item() == pytest.approx(0.1 * (clip or result.grad_norm), rel=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_updates_nothing(bad: float) -> None:
    module = Squares()
    before = copy.deepcopy(module.state_dict())
    result = step(module, [micro_batch_of(torch.full((2, 2), bad))])
    assert not result.is_finite
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_bf16_computes_matrix_products_in_bf16() -> None:
    seen: list[torch.dtype] = []
    module = Squares()
    module.linear.register_forward_hook(lambda *_: seen.append(_[2].dtype))
    step(module, [micro_batch_of(torch.randn(4, 2))], precision="bf16")
    step(module, [micro_batch_of(torch.randn(4, 2))], precision="fp32")
    assert seen == [torch.bfloat16, torch.float32]
    assert module.linear.weight.dtype == torch.float32


def test_a_stop_is_passed_on() -> None:
    module = Squares()
    config = TrainConfig()
    sums = train_step(
        module,
        make_optimizer(module, config),
        [micro_batch_of(torch.randn(2, 2))],
        "single",
        lr=0.1,
        weights=WEIGHTS,
        config=config,
        world=ALONE,
        stop=True,
    )
    assert sums.stop
