"""Weights of a known network, published or our own, and the names of its classes."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors.detector import Detector, OpenVocabulary
from semvlp.extract.detectors.on_torchvision.faster_rcnn import backbone_of
from semvlp.extract.detectors.on_torchvision.rpn import cell_anchors
from semvlp.extract.networks import NETWORKS, NetworkConfig
from semvlp.extract.weights.checkpoint import read_weights
from semvlp.extract.weights.families import State, family_of, to_ours, unwrapped
from semvlp.shards.formats.labels import read_names


def read_published(path: Path, network: str) -> State:
    """Return the tensors of the file `path` under our names, for `network` of `NETWORKS`.

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
    """Return what a network's config says and some checkpoints store too."""
    cells = cell_anchors(config, backbone_of(config).strides)
    return {
        "mean": torch.tensor(config.pixel_mean),
        "std": torch.tensor(config.pixel_std),
        **{f"cell.{level}": cell for level, cell in enumerate(cells)},
    }


def count_labels(state: State, source: str) -> tuple[int, int]:
    """Count the object classes and attributes of the weights, without background and "none".

    Raises:
        InputError: there is no class predictor.
    """
    if "predictor.objects.bias" not in state:
        raise InputError(f"{source}: predictor.objects.bias is missing")
    attributes = state.get("predictor.attributes.bias")
    num_attributes = 0 if attributes is None else len(attributes) - 1
    return len(state["predictor.objects.bias"]) - 1, num_attributes


def object_labels(count: int) -> tuple[str, ...]:
    """Return the names of object classes: COCO's where there are 80, numbers elsewhere."""
    categories = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    names = tuple(name for name in categories if name not in ("__background__", "N/A"))
    return names if len(names) == count else numbered("object", count)


def attribute_labels(count: int) -> tuple[str, ...]:
    """Return numbers as names, because no published file names its attributes."""
    return numbered("attribute", count)


def numbered(kind: str, count: int) -> tuple[str, ...]:
    """Return `object 0`, `object 1`, ...: the names of classes without names."""
    return tuple(f"{kind} {index}" for index in range(count))


def name_labels(detector: Detector, files: Sequence[Path]) -> None:
    """Give a detector the names in text files, a line each: object classes, then attributes.

    One of open vocabulary looks for them; instead of a file it takes names with commas between.
    Lines stand in the order of the classes, background and "none" left out, as in bottom-up
    attention's `objects_vocab.txt` and `attributes_vocab.txt`.

    Raises:
        ConfigError: more than two files, or none where the detector must be told what to find.
        InputError: a file that cannot be read or has another number of names than the detector.
    """
    if isinstance(detector, OpenVocabulary):
        detector.look_for(tuple(name for file in files for name in _asked(file)))
        return
    if len(files) > 2:
        raise ConfigError("--labels takes one file of object classes and one of attributes")
    for path, kind in zip(files, ("object", "attribute"), strict=False):
        names, count = read_names(path), len(getattr(detector, f"{kind}_labels"))
        if len(names) != count:
            raise InputError(
                f"{path}: must name the {count} {kind} classes of the detector, a line each, "
                f"found {len(names)} lines"
            )
        setattr(detector, f"{kind}_labels", names)


def _asked(words: Path) -> tuple[str, ...]:
    """Return the names in a file, or those that stand in its place."""
    # A list of names may be longer than a path can be, of which `Path.is_file` makes an error.
    names = read_names(words) if os.path.isfile(words) else str(words).split(",")
    return tuple(name.strip() for name in names if name.strip())
