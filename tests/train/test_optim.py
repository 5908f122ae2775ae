"""The two groups of parameters."""

import pytest
import torch
from torch import nn

from semvlp.model.config import SemVLPConfig
from semvlp.model.semvlp import SemVLPForPreTraining
from semvlp.train.optim import layer_scale, make_optimizer, parameter_groups
from semvlp.train.train_config import TrainConfig


def tiny() -> SemVLPForPreTraining:
    return SemVLPForPreTraining(
        SemVLPConfig.preset(
            "tiny",
            vocab_size=50,
            region_feature_size=8,
            num_objects=3,
            num_attributes=2,
            answers=["a"],
        )
    )


def test_groups_are_disjoint_and_complete() -> None:
    model = tiny()
    decay, no_decay = parameter_groups(model)
    assert not decay.keys() & no_decay.keys()
    grouped = {id(p) for p in [*decay.values(), *no_decay.values()]}
    assert grouped == {id(p) for p in model.parameters()}


def test_biases_and_norms_do_not_decay() -> None:
    decay, no_decay = parameter_groups(tiny())
    assert all(name.endswith("weight") for name in decay)
    assert {name for name in no_decay if name.endswith("bias")} == {
        name for name, _ in tiny().named_parameters() if name.endswith("bias")
    }
    assert not any("norm" in name.lower() for name in decay)
    assert any("word_embeddings" in name for name in decay)


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    decay, no_decay = parameter_groups(model)
    assert (list(decay), list(no_decay)) == ([], ["bias"])


def test_only_the_first_group_decays() -> None:
    model = nn.Linear(2, 2)
    optimizer = make_optimizer(model, TrainConfig(weight_decay=0.5, lr=0.1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(model.weight, before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias, before["bias"])


def test_all_decays_where_asked() -> None:
    optimizer = make_optimizer(tiny(), TrainConfig(weight_decay_on="all", weight_decay=0.3))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3]


def test_layers_learn_the_slower_the_lower_they_lie() -> None:
    names = {
        "head.outer.weight": 10.0,
        "semvlp.pooler.weight": 1.0,
        "semvlp.encoder.blocks.2.self_attention.query.weight": 0.5,
        "semvlp.encoder.blocks.0.feed_forward.inner.bias": 0.125,
        "semvlp.text_embeddings.word_embeddings.weight": 0.0625,
        "semvlp.region_embeddings.features.weight": 0.0625,
    }
    for name, scale in names.items():
        assert layer_scale(name, num_layers=3, layer_decay=0.5, head_lr_multiplier=10.0) == scale


def test_the_scale_of_a_group_is_used_at_each_step() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    optimizer = make_optimizer(
        model, TrainConfig(weight_decay=0.0), lambda name: 0.5 if name.startswith("0.") else 1.0
    )
    assert [group["scale"] for group in optimizer.param_groups] == [0.5, 1.0, 0.5, 1.0]
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["scale"]
    optimizer.step()
    moved = [(p - b).abs().max().item() for p, b in zip(model.parameters(), before, strict=True)]
    assert moved == pytest.approx([0.05, 0.05, 0.1, 0.1], rel=1e-3)
