"""How weights that are cut among ranks are put together while they are used."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from semvlp.distributed import ALONE
from semvlp.model import PackedBatch, SemVLPConfig, SemVLPForTask
from semvlp.names import Precision
from semvlp.train.distributed import blocks_of, cut, gathered, parallelize


@pytest.fixture
def group() -> Iterator[None]:
    """A world of this process alone, which all the same is one."""
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def batch() -> PackedBatch:
    return PackedBatch(
        input_ids=torch.arange(5),
        region_features=torch.rand(4, 6),
        region_boxes=torch.rand(4, 4).sort(dim=1).values,
        text_lengths=torch.tensor([3, 2]),
        region_lengths=torch.tensor([4, 0]),
    )


def test_a_plain_run_trains_the_module_itself() -> None:
    module: Any = nn.Linear(1, 1)
    assert parallelize(module, module, ALONE, "ddp") is module


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.usefixtures("group")
def test_a_block_is_gathered_in_the_precision_of_the_step(precision: Precision) -> None:
    config = SemVLPConfig.preset("tiny", vocab_size=10, region_feature_size=6)
    model = SemVLPForTask(config.for_task("pooled", ["no", "yes"]))
    blocks = blocks_of(model)
    cut(model, init_device_mesh("cpu", (1,)), precision)
    used: list[tuple[bool, torch.dtype]] = []
    passed: list[torch.dtype] = []

    def look(module: nn.Module, given: object) -> None:
        used.extend((isinstance(p, DTensor), p.dtype) for p in module.parameters())

    def between(module: nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        passed.extend((given[0].dtype, result.dtype))

    for block in blocks:
        block.register_forward_hook(between)
        for part in block.modules():
            if isinstance(part, nn.Linear):
                part.register_forward_pre_hook(look)
    half = precision == "bf16"
    wanted = torch.bfloat16 if half else torch.float32
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        model(batch(), "two").logits.float().sum().backward()
    assert set(used) == {(False, wanted)}
    assert set(passed) == {torch.float32}
    for parameter in model.parameters():
        assert isinstance(parameter, DTensor)
        assert parameter.dtype == torch.float32
        assert parameter.grad is None or parameter.grad.dtype == torch.float32
    with gathered(model), torch.no_grad():
        assert model(batch(), "two").logits.isfinite().all()
