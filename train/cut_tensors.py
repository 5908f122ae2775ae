"""Tensors that `fully_shard` has cut among the ranks: put together, and cut again.

A checkpoint holds whole tensors, so that any number of ranks goes on from it. Everything here also
takes tensors that are not cut, and leaves them as they are.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor put together on the CPU; one that stands under two names stays one.

    Called on all ranks together.
    """
    put: dict[int, Tensor] = {}
    for tensor in tensors.values():
        if id(tensor) not in put:
            found = tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
            put[id(tensor)] = found.detach()
    return {name: put[id(tensor)] for name, tensor in tensors.items()}


def whole_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an optimiser, put together; called on all ranks together."""
    tree = optimizer.state_dict()
    return {**tree, "state": {index: whole(kept) for index, kept in tree["state"].items()}}


def cut_like(tensor: Tensor, model: Tensor) -> Tensor:
    """The part of a whole tensor that this rank holds, where `model` is cut."""
    if not isinstance(model, DTensor) or tensor.shape != model.shape:
        return tensor
    # Every rank has the whole tensor: each takes its own part and nothing is sent.
    return distribute_tensor(
        tensor.to(model.device), model.device_mesh, model.placements, src_data_rank=None
    )


def cut_state(tree: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What `whole_state` gave, cut like the parameters of `optimizer`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    cut = {
        index: {name: cut_like(tensor, parameters[index]) for name, tensor in kept.items()}
        for index, kept in tree["state"].items()
    }
    return {**tree, "state": cut}


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies on this rank."""
    part: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part
