"""The two groups of parameters."""

import torch
from torch import nn

from semvlp.model.config import SemVLPConfig
from semvlp.model.semvlp import SemVLPForPreTraining
from semvlp.train.config import TrainConfig
from semvlp.train.optim import make_optimizer, parameter_groups


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
