"""Weights of a known network, from its published file or from one of our own."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from semvlp.errors import InputError
from semvlp.extract.checkpoints import read_weights
from semvlp.extract.families import State, family_of, to_ours, unwrapped
from semvlp.extract.faster_rcnn import trunk_of
from semvlp.extract.networks import NETWORKS, NetworkConfig
from semvlp.extract.rpn import cell_anchors


def read_published(path: Path, network: str) -> State:
    """The tensors of the file `path` under our names, for the network `network` of `NETWORKS`.

    Raises:
        InputError: a file that cannot be read, weights of another network or of no known family,
            or constants that are not the network's.
    """
    state, source = unwrapped(read_weights(path)), str(path)
    family = family_of(state, source)
    if family is None:
        return state
    if network not in family.networks:
        raise InputError(
            f"{source} holds weights of {family.name}, which are for the network "
            f"{' or '.join(family.networks)}, not for {network}; `semvlp detector list` shows "
            "which --detector has it"
        )
    return to_ours(state, family, constants_of(NETWORKS[network]), source)


def constants_of(config: NetworkConfig) -> dict[str, Tensor]:
    """What a network's config says and some checkpoints store too."""
    cells = cell_anchors(config, trunk_of(config).strides)
    return {
        "mean": torch.tensor(config.pixel_mean),
        "std": torch.tensor(config.pixel_std),
        **{f"cell.{level}": cell for level, cell in enumerate(cells)},
    }


def count_labels(state: State, source: str) -> tuple[int, int]:
    """Object classes and attributes that the weights know, background and "none" left out.

    Raises:
        InputError: there is no class predictor.
    """
    if "predictor.objects.bias" not in state:
        raise InputError(f"{source}: predictor.objects.bias is missing")
    attributes = state.get("predictor.attributes.bias")
    return len(state["predictor.objects.bias"]) - 1, 0 if attributes is None else len(
        attributes
    ) - 1


def object_labels(count: int) -> tuple[str, ...]:
    """Names of object classes: COCO's where there are 80, numbers elsewhere."""
    categories = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    names = tuple(name for name in categories if name not in ("__background__", "N/A"))
    return names if len(names) == count else numbered("object", count)


def attribute_labels(count: int) -> tuple[str, ...]:
    """Numbers, because no published file names its attributes."""
    return numbered("attribute", count)


def numbered(kind: str, count: int) -> tuple[str, ...]:
    """`object 0`, `object 1`, ...: classes without names."""
    return tuple(f"{kind} {index}" for index in range(count))
