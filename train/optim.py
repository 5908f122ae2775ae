"""The optimiser, with groups: by what decays, and by how fast a layer learns.

Muon (Jordan et al. 2024, torch.optim.Muon) is for the matrices of the blocks, AdamW for everything
else. Muon makes the update of a matrix orthogonal, so that all of its directions learn alike.
Updates are scaled to the size of AdamW's (Liu et al. 2025, Moonlight), so both take the same
learning rate.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter

from semvlp.train.train_config import TrainConfig


class MuonAdamW(torch.optim.Optimizer):
    """One state and one list of groups, which the two optimisers share."""

    def __init__(
        self,
        matrices: Sequence[dict[str, Any]],
        others: Sequence[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        """Parameter groups of two-dimensional tensors, and those of all other tensors."""
        self._muon = torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw")
        self._adamw = torch.optim.AdamW(others, lr=lr, betas=betas, eps=eps, fused=True)
        self._num_matrix_groups = len(matrices)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters, or none where `found_inf` is set; this waits for the device.

        Raises:
            ValueError: a closure is given.
        """
        if closure is not None:
            raise ValueError("closure must be None: the gradients are computed beforehand")
        if getattr(self, "found_inf", None):
            return
        self._muon.step()  # type: ignore[no-untyped-call]
        self._adamw.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        cut = self._num_matrix_groups
        self._muon.param_groups, self._adamw.param_groups = (
            self.param_groups[:cut],
            self.param_groups[cut:],
        )
        self._muon.state = self._adamw.state = self.state


EPSILON = 1e-6  # BertAdam's, as in airsplay/lxmert src/lxrt/optimization.py
BLOCK = re.compile(r"\bblocks\.(\d+)\.")
HEAD = "head."

Scale = Callable[[str], float]
"""Name of a parameter -> its learning rate over the step's."""


def make_optimizer(
    model: nn.Module, config: TrainConfig, scale_of: Scale = lambda name: 1.0
) -> torch.optim.Optimizer:
    """Make the optimiser of all trainable parameters.

    `step.py` sets the learning rate of each group at each step: the step's times the group's
    `scale`.
    """
    decay, no_decay = parameter_groups(model)
    if config.weight_decay_on == "all":
        decay, no_decay = decay | no_decay, {}
    betas = (config.beta1, config.beta2)
    if config.optimizer == "adamw":
        groups = _groups(decay, no_decay, config, scale_of)
        return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=EPSILON, fused=True)
    inner = {name: value for name, value in decay.items() if is_block_matrix(name, value)}
    outer = {name: value for name, value in decay.items() if name not in inner}
    return MuonAdamW(
        _groups(inner, {}, config, scale_of),
        _groups(outer, no_decay, config, scale_of),
        lr=config.lr,
        betas=betas,
        eps=EPSILON,
    )


def is_block_matrix(name: str, parameter: Parameter) -> bool:
    """Tell whether Muon updates it: embeddings and heads are matrices of rows that differ."""
    return parameter.ndim == 2 and BLOCK.search(name) is not None


def layer_scale(
    name: str, *, num_layers: int, layer_decay: float, head_lr_multiplier: float
) -> float:
    """Return the learning rate of a task model's parameter over the step's.

    The head has `head_lr_multiplier`, what lies right under it 1, and each block `layer_decay` of
    the one above it, the embeddings last (Clark et al. 2020, ELECTRA, appendix).
    """
    if name.startswith(HEAD):
        return head_lr_multiplier
    block = BLOCK.search(name)
    depth = int(block[1]) + 1 if block else 0 if "embeddings" in name else num_layers + 1
    return float(layer_decay ** (num_layers + 1 - depth))


def parameter_groups(model: nn.Module) -> tuple[dict[str, Parameter], dict[str, Parameter]]:
    """Return the trainable parameters by name, matrices and the rest: each in one of the two.

    The rest are biases and the weights of normalisation. A tied parameter stands once, under its
    first name.
    """
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
    decay = {name: value for name, value in trainable.items() if value.ndim >= 2}
    no_decay = {name: value for name, value in trainable.items() if value.ndim < 2}
    _check_partition(model.parameters(), decay, no_decay)
    return decay, no_decay


def _groups(
    decay: Mapping[str, Parameter],
    no_decay: Mapping[str, Parameter],
    config: TrainConfig,
    scale_of: Scale,
) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    for named, weight_decay in ((decay, config.weight_decay), (no_decay, 0.0)):
        by_scale: dict[float, list[Parameter]] = {}
        for name, parameter in named.items():
            by_scale.setdefault(scale_of(name), []).append(parameter)
        groups += [
            {"params": parameters, "weight_decay": weight_decay, "scale": scale}
            for scale, parameters in by_scale.items()
        ]
    return groups


def _check_partition(
    parameters: Iterable[Parameter],
    decay: Mapping[str, Parameter],
    no_decay: Mapping[str, Parameter],
) -> None:
    grouped = [id(value) for group in (decay, no_decay) for value in group.values()]
    wanted = {id(value) for value in parameters if value.requires_grad}
    assert len(grouped) == len(set(grouped)), "a parameter stands in both groups"
    assert set(grouped) == wanted, "a trainable parameter stands in no group"
