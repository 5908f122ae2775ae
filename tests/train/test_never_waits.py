"""A step of pre-training with AdamW asks the GPU for nothing, so the CPU runs ahead of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException

from semvlp.distributed import World
from semvlp.model.config import SemVLPConfig
from semvlp.model.packing import Mode
from semvlp.model.semvlp import SemVLPForPreTraining
from semvlp.model.tokenizer import train_wordpiece
from semvlp.shards.open import open_store
from semvlp.train.config import OBJECTIVES, PretrainConfig
from semvlp.train.data.pretraining import PretrainingCollator
from semvlp.train.data.texts import read_sample, sentences
from semvlp.train.ema import WeightAverage
from semvlp.train.optim import make_optimizer
from semvlp.train.pretrain import PreTrainingLosses
from semvlp.train.step import MicroBatch, StepSums, train_step
from tests.fake_gpu import GPU, FakeGpu, fake_gpu
from tests.train.micro_batches import first_step, micro_batches

ANSWERS = ["red", "green", "blue", "grey"]
BASIS = (
    "train.precision=bf16",
    "train.gradient_accumulation_steps=2",
    "train.max_grad_norm=1.0",
    "train.batch_size=16",
)


@pytest.fixture
def made(shards: Path, small: Callable[..., PretrainConfig]) -> Callable[..., Any]:
    """(settings) -> their config, a network's configuration, the micro-batches of a step."""

    def make(*settings: str) -> tuple[PretrainConfig, SemVLPConfig, list[MicroBatch]]:
        config = small(*BASIS, *settings)
        with open_store(shards) as store:
            tokenizer = train_wordpiece(sentences(read_sample([store])), 300)
            collator = PretrainingCollator(config, tokenizer, ANSWERS)
            made = list(micro_batches(collator, first_step(store, 16)))
            network = SemVLPConfig.preset(
                "tiny",
                # Operations on a fake GPU are slow.
                num_hidden_layers=2,
                cross_layers=1,
                vocab_size=len(tokenizer),
                region_feature_size=store.manifest.feature_size,
                num_objects=len(store.manifest.object_labels),
                num_attributes=len(store.manifest.attribute_labels),
                answers=ANSWERS,
                attention_probs_dropout_prob=config.model.attention_dropout or 0.0,
                image_token=config.model.image_token,
            )
        return config, network, made

    return make


@contextmanager
def backward_by_shape(gpu: FakeGpu, model: torch.nn.Module) -> Iterator[None]:
    """The engine of autograd needs a real GPU: gradients appear, of the shape of the weights."""

    def backward(loss: Tensor) -> None:
        assert loss.shape == ()
        assert loss.requires_grad
        with gpu.shapes:
            for parameter in model.parameters():
                parameter.grad = torch.empty_like(parameter)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "backward", backward)
        yield


def run(
    gpu: FakeGpu,
    config: PretrainConfig,
    network: SemVLPConfig,
    step: list[MicroBatch],
    mode: Mode,
) -> StepSums:
    """Two steps, the first of which gives the optimiser its state."""
    weights = dict.fromkeys(OBJECTIVES, 1.0)
    with gpu.shapes, GPU:
        model = SemVLPForPreTraining(network).train()
        loss_module = PreTrainingLosses(model, weights, config.objectives)
    with gpu.shapes:
        optimizer = make_optimizer(model, config.train)
        average = WeightAverage(model, 0.99)
    with backward_by_shape(gpu, model):
        for _ in range(2):
            sums = train_step(
                loss_module,
                optimizer,
                step,
                mode,
                lr=1e-4,
                weights=weights,
                config=config.train,
                world=World(device=GPU),
            )
            average.update()
    return sums


@pytest.mark.parametrize("mode", ["single", "two"])
@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("model.attention_dropout=0.1",),
        ("model.image_token=mean", "objectives.classes_on=all"),
        ("objectives.class_loss=kl", "objectives.feature_loss=mse"),
        ("train.precision=fp32", "objectives.region_random=0.5", "objectives.region_zeroed=0.5"),
    ],
    ids=str,
)
def test_a_step(made: Callable[..., Any], mode: Mode, settings: tuple[str, ...]) -> None:
    config, network, step = made(*settings)
    assert len(step) == 2
    assert all(micro_batch.counts[name] for micro_batch in step for name in OBJECTIVES)
    with fake_gpu() as gpu:
        sums = run(gpu, config, network, step, mode)
        assert sums.numbers.device == GPU
        assert sums.numbers.shape == (len(OBJECTIVES) + 1,)


def test_a_step_that_asks_fails(made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    forward = PreTrainingLosses.forward

    def asking(self: PreTrainingLosses, micro_batch: MicroBatch, mode: Mode) -> dict[str, Tensor]:
        losses = forward(self, micro_batch, mode)
        losses["mlm"].item()
        return losses

    monkeypatch.setattr(PreTrainingLosses, "forward", asking)
    with fake_gpu() as gpu, pytest.raises(DataDependentOutputException):
        run(gpu, *made(), "single")
