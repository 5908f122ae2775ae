"""A model whose training several processes share: whole on each of them, or cut among them.

A checkpoint holds whole tensors, so that any number of ranks goes on from it. What takes tensors
that `fully_shard` has cut also takes whole ones, and leaves them as they are.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from semvlp.distributed import World, joined
from semvlp.names import Precision
from semvlp.train.train_config import Parallel, TrainConfig

PATIENCE = timedelta(hours=2)  # the first rank may draw a report while the others wait


def training_world(config: TrainConfig) -> AbstractContextManager[World]:
    """Join the processes of a training; see `semvlp.distributed.joined`."""
    return joined(config.device, patience=PATIENCE, setting="train.device")


def parallelize(
    loss_module: nn.Module,
    model: PreTrainedModel,
    world: World,
    parallel: Parallel,
    precision: Precision = "fp32",
) -> nn.Module:
    """Return the module `loss_module` around `model`, its gradients averaged over the ranks.

    `ddp` keeps the whole model on every rank (Li et al. 2020); `fsdp` cuts weights, gradients
    and optimiser state among them, block by block, and gathers a block while it is used (Zhao
    et al. 2023, in PyTorch's second form, `fully_shard`).
    """
    if world.size == 1:
        return loss_module
    if parallel == "ddp":
        # A single-stream step leaves the cross-attention without gradients, and these must stay
        # none: zeros in their place would move the weights by AdamW's momentum.
        return DistributedDataParallel(
            loss_module, find_unused_parameters=True, gradient_as_bucket_view=True
        )
    cut(model, init_device_mesh(world.device.type, (world.size,)), precision)
    return loss_module


def cut(model: PreTrainedModel, mesh: DeviceMesh, precision: Precision) -> None:
    """Cut the weights of a model among the ranks of `mesh`, each block by itself.

    With `bf16` a block is gathered in bfloat16, half as much to send, and its gradients are summed
    in float32. Autocast would cast what was gathered in float32, and keep the copy of every block.
    """
    half = torch.bfloat16 if precision == "bf16" else None
    # What goes from block to block stays float32, as under autocast alone.
    policy = MixedPrecisionPolicy(
        half, reduce_dtype=half and torch.float32, cast_forward_inputs=False
    )
    for block in blocks_of(model):
        if half:
            # Normalisation is float32 under autocast, and so are its few weights.
            for norm in (piece for piece in block.modules() if isinstance(piece, nn.LayerNorm)):
                fully_shard(norm, mesh=mesh, reshard_after_forward=False)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh)


def blocks_of(model: PreTrainedModel) -> list[nn.Module]:
    """Return the repeated layers of a model, as transformers has it declare them."""
    names = model._no_split_modules or ()
    return [module for module in model.modules() if type(module).__name__ in names]


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Let every rank hold all weights inside, to run the model as often as it likes.

    Entered on all ranks together; changes nothing where the weights are not cut. Where they are
    gathered in bfloat16, the model runs under autocast, as in training.
    """
    pieces = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for piece in pieces:
        piece.set_reshard_after_forward(False, recurse=False)
        piece.unshard()
    weights = list(model.parameters())
    half = any(weight.dtype == torch.bfloat16 for weight in weights)
    try:
        with torch.autocast(weights[0].device.type, torch.bfloat16, enabled=bool(pieces) and half):
            yield
    finally:
        for piece in pieces:
            piece.reshard()
            # The root keeps its weights between forward and backward, as `fully_shard` set it.
            piece.set_reshard_after_forward(piece is not model, recurse=False)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put each tensor together on the CPU; one that stands under two names stays one.

    Called on all ranks together.
    """
    put: dict[int, Tensor] = {}
    for tensor in tensors.values():
        if id(tensor) not in put:
            full = tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
            put[id(tensor)] = full.detach()
    return {name: put[id(tensor)] for name, tensor in tensors.items()}


def whole_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put the state of an optimiser together; called on all ranks together."""
    tree = optimizer.state_dict()
    return {**tree, "state": {index: whole(kept) for index, kept in tree["state"].items()}}


def cut_like(tensor: Tensor, model: Tensor) -> Tensor:
    """Return the part of a whole tensor that this rank holds, where `model` is cut."""
    if not isinstance(model, DTensor) or tensor.shape != model.shape:
        return tensor
    # Every rank has the whole tensor: each takes its own part and nothing is sent.
    return distribute_tensor(
        tensor.to(model.device), model.device_mesh, model.placements, src_data_rank=None
    )


def cut_state(tree: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Cut what `whole_state` gave like the parameters of `optimizer`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    cut = {
        index: {name: cut_like(tensor, parameters[index]) for name, tensor in kept.items()}
        for index, kept in tree["state"].items()
    }
    return {**tree, "state": cut}


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that lies on this rank."""
    own: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return own
