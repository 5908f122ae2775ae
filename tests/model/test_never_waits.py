"""No pass over the network asks the GPU for a number, so the CPU runs ahead of it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from semvlp.model import (
    PackedBatch,
    SemVLPConfig,
    SemVLPForPreTraining,
    SemVLPForTask,
    SemVLPModel,
)
from semvlp.model.packing import Mode
from semvlp.model.pretrained import SemVLPPreTrainedModel
from tests.fake_gpu import GPU, FakeGpu, fake_gpu
from tests.model.flash_reference import Calls

MakeBatch = Callable[..., PackedBatch]

LENGTHS = [(3, 2), (5, 4), (2, 7), (1, 0)]
MODES: tuple[Mode, ...] = ("single", "two")
# Attention weights are dropped on the padded path alone.
VARLEN, SDPA = {"attention_probs_dropout_prob": 0.0}, {"attention_probs_dropout_prob": 0.1}

paths = pytest.mark.parametrize("path", [VARLEN, SDPA], ids=["varlen", "sdpa"])
modes = pytest.mark.parametrize("mode", MODES)


@pytest.fixture
def config(config: SemVLPConfig) -> SemVLPConfig:
    """One block of each kind: operations on a fake GPU are slow."""
    return dataclasses.replace(config, num_hidden_layers=2, cross_layers=1)


def there(gpu: FakeGpu, make: Callable[[], SemVLPPreTrainedModel]) -> SemVLPPreTrainedModel:
    """A network in training, of which the GPU holds the weights."""
    with gpu.shapes, GPU:
        return make().train()


def sent(batch: PackedBatch) -> PackedBatch:
    """The batch on the GPU, with some regions hidden."""
    hidden = torch.arange(len(batch.region_features)) % 3 == 0
    return batch.replace(region_mask=hidden).to(GPU)


def indices(*numbers: int) -> Tensor:
    return torch.tensor(numbers).pin_memory().to(GPU, non_blocking=True)


@modes
@pytest.mark.parametrize(
    ("fields", "checkpointed"),
    [
        (VARLEN, False),
        (VARLEN, True),
        (SDPA, False),
        (SDPA, True),
        (VARLEN | {"cross_attention": "separate"}, False),
        (SDPA | {"cross_attention": "separate"}, False),
        (VARLEN | {"image_token": "mean"}, False),
        (VARLEN | {"box_encoding": "fourier"}, False),
        (VARLEN | {"box_size": 7, "region_embedding": "sum"}, False),
        (VARLEN | {"box_size": 5, "region_embedding": "sum-of-norms"}, False),
    ],
    ids=str,
)
def test_pre_training(
    config: SemVLPConfig,
    make_batch: MakeBatch,
    mode: Mode,
    fields: dict[str, Any],
    checkpointed: bool,
) -> None:
    config = dataclasses.replace(config, **fields)
    with fake_gpu() as gpu, torch.autocast("cuda", torch.bfloat16), Calls() as calls:
        model = there(gpu, lambda: SemVLPForPreTraining(config))
        if checkpointed:
            model.activation_checkpointing_enable()
        output = model(
            sent(make_batch(LENGTHS)),
            mode,
            token_positions=indices(1, 4),
            region_positions=indices(0, 3, 5),
        )
        assert {part.device for part in output.values()} == {GPU}
        assert output.token_logits.shape == (2, config.vocab_size)
        assert output.match_logits.shape == (len(LENGTHS), 2)
    assert bool(calls.seen) == (fields["attention_probs_dropout_prob"] == 0)


@paths
@modes
@pytest.mark.parametrize(
    ("head", "pair_head"),
    [
        ("pooled", "concatenation"),
        ("match", "concatenation"),
        ("pair", "concatenation"),
        ("pair", "attention"),
    ],
)
def test_tasks(
    config: SemVLPConfig,
    make_batch: MakeBatch,
    mode: Mode,
    head: str,
    pair_head: str,
    path: dict[str, Any],
) -> None:
    task = config.for_task(head, ["no", "yes"], pair_head=pair_head, **path)
    with fake_gpu() as gpu, torch.autocast("cuda", torch.bfloat16):
        logits = there(gpu, lambda: SemVLPForTask(task))(sent(make_batch(LENGTHS)), mode).logits
        assert logits.device == GPU
        assert logits.shape == (2 if head == "pair" else 4, 2)


@paths
@pytest.mark.parametrize("cross_layers", [0, 1, 2])
@pytest.mark.parametrize("cross_attention", ["shared", "separate", "tied"])
def test_both_halves(
    config: SemVLPConfig,
    make_batch: MakeBatch,
    cross_layers: int,
    cross_attention: str,
    path: dict[str, Any],
) -> None:
    fields = {"cross_layers": cross_layers, "cross_attention": cross_attention, **path}
    config = dataclasses.replace(config, **fields)
    batch = make_batch(LENGTHS)
    texts, images = torch.tensor([2, 0, 2, 3, 1]), torch.tensor([3, 3, 1, 0, 2])
    with fake_gpu() as gpu, torch.autocast("cuda", torch.bfloat16):
        model = there(gpu, lambda: SemVLPModel(config))
        pooled = model.upper(*model.lower(batch.to(GPU)), texts, images)
        assert pooled.device == GPU
        assert pooled.shape == (5, config.hidden_size)


@pytest.mark.parametrize(
    ("wait", "error"),
    [
        (lambda rows: rows.sum().item(), DataDependentOutputException),
        (lambda rows: bool(rows.any()), DataDependentOutputException),
        (lambda rows: rows.nonzero(), DynamicOutputShapeException),
        (lambda rows: rows[rows > 0], DynamicOutputShapeException),
        (lambda rows: rows.cpu(), AssertionError),
        (lambda rows: torch.zeros(4).copy_(rows), AssertionError),
        (lambda rows: rows.copy_(torch.zeros(4)), AssertionError),
        (lambda rows: torch.zeros(4).to(GPU, non_blocking=True), AssertionError),
        (lambda rows: torch.zeros(4).pin_memory().to(GPU), AssertionError),
    ],
    ids=[
        "item",
        "bool",
        "nonzero",
        "mask",
        "cpu",
        "copy from",
        "copy to",
        "not locked",
        "blocking",
    ],
)
def test_what_waits_fails(wait: Callable[[Tensor], Any], error: type[Exception]) -> None:
    with fake_gpu():
        rows = torch.zeros(4, device=GPU)
        with pytest.raises(error):
            wait(rows)
