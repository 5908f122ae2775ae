"""AdamW with two groups: matrices decay, biases and normalisation weights do not."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn import Parameter

from semvlp.train.config import TrainConfig

EPSILON = 1e-6  # BertAdam's, as in airsplay/lxmert src/lxrt/optimization.py


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """The optimiser of all trainable parameters; `step.py` sets its learning rate at each step."""
    decay, no_decay = parameter_groups(model)
    groups = [
        {"params": list(decay.values()), "weight_decay": config.weight_decay},
        {"params": list(no_decay.values()), "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=EPSILON, fused=True)


def parameter_groups(model: nn.Module) -> tuple[dict[str, Parameter], dict[str, Parameter]]:
    """Trainable parameters by name, with and without decay: disjoint, and together all of them.

    A tied parameter stands once, under its first name.
    """
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
    decay = {name: value for name, value in trainable.items() if value.ndim >= 2}
    no_decay = {name: value for name, value in trainable.items() if value.ndim < 2}
    _check_partition(model.parameters(), decay, no_decay)
    return decay, no_decay


def _check_partition(
    parameters: Iterable[Parameter],
    decay: Mapping[str, Parameter],
    no_decay: Mapping[str, Parameter],
) -> None:
    grouped = [id(value) for group in (decay, no_decay) for value in group.values()]
    wanted = {id(value) for value in parameters if value.requires_grad}
    assert len(grouped) == len(set(grouped)), "a parameter stands in both groups"
    assert set(grouped) == wanted, "a trainable parameter stands in no group"
