"""Muon and AdamW as one optimiser."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from semvlp.errors import Interrupted
from semvlp.model.config import SemVLPConfig
from semvlp.model.semvlp import SemVLPForTask
from semvlp.train import loop
from semvlp.train.config import PretrainConfig
from semvlp.train.optim import EPSILON, make_optimizer
from semvlp.train.pretrain import pretrain
from semvlp.train.step import StepSums, train_step
from semvlp.train.train_config import TrainConfig

CONFIG = TrainConfig(optimizer="muon", lr=0.02, weight_decay=0.1)


def tiny() -> SemVLPForTask:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "region_feature_size": 8, "hidden_size": 16, "intermediate_size": 32}
    return SemVLPForTask(SemVLPConfig.preset("tiny", **sizes).for_task("pooled", ["a", "b"]))


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, *seeds: int) -> list[torch.Tensor]:
    """The parameters after a step by the random gradients of each seed."""
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_matrices_of_blocks_are_muons_and_the_rest_adamws() -> None:
    model = tiny()
    named = dict(model.named_parameters())
    blocks = [value for name, value in named.items() if ".blocks." in name and value.ndim == 2]
    matrices = [value for name, value in named.items() if ".blocks." not in name and value.ndim > 1]
    others = [value for value in named.values() if value.ndim == 1]
    muon = torch.optim.Muon(blocks, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.98), eps=EPSILON, fused=True)
    for seed in (1, 2):
        stepped(model, adamw, seed)
        muon.step()  # type: ignore[no-untyped-call]
    ours = tiny()
    got = stepped(ours, make_optimizer(ours, CONFIG), 1, 2)
    assert all(map(torch.equal, got, model.parameters()))


def test_it_goes_on_from_its_state_bit_for_bit() -> None:
    model, other = tiny(), tiny()
    optimizer, resumed = make_optimizer(model, CONFIG), make_optimizer(other, CONFIG)
    stepped(model, optimizer, 1, 2)
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    for group in (*optimizer.param_groups, *resumed.param_groups):
        group["lr"] = 0.01
    assert all(map(torch.equal, stepped(model, optimizer, 3), stepped(other, resumed, 3)))


def test_nothing_changes_where_a_gradient_is_not_finite() -> None:
    model = tiny()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = make_optimizer(model, CONFIG)
    optimizer.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]
    assert all(map(torch.equal, stepped(model, optimizer, 1), before))
    assert not optimizer.state


def test_it_needs_whole_matrices() -> None:
    with pytest.raises(ValueError, match="parallel must be ddp, got fsdp"):
        TrainConfig(optimizer="muon", parallel="fsdp")


def test_a_stopped_run_goes_on_with_the_same_weights(
    shards: Path,
    small: Callable[..., PretrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = small("train.optimizer=muon", "train.steps=4", "train.save_every=2")
    pretrain([shards], tmp_path / "whole", config)
    done = 0

    def stops(*args: object, **kwargs: object) -> StepSums:
        nonlocal done
        done += 1
        return train_step(*args, **{**kwargs, "stop": done == 3})  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stops)
        with pytest.raises(Interrupted):
            pretrain([shards], tmp_path / "stopped", config)
    pretrain([shards], tmp_path / "stopped", config)
    whole, stopped = (
        load_file(tmp_path / run / "last" / "model.safetensors") for run in ("whole", "stopped")
    )
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
