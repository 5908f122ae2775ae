"""Checkpoint families of other systems: their tensor names in ours, one literal table each.

Background is the last class and "none" the last attribute in every family here.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from semvlp.errors import InputError

_Rules = tuple[tuple[str, str], ...]

# (their name, our name) for detectron2's C4 networks; {} stands for the same text on both sides.
# detectron2/modeling/backbone/resnet.py, roi_heads/roi_heads.py; the attribute head's names are
# those of facebookresearch/grid-feats-vqa (grid_feats/roi_heads.py).
DETECTRON2_C4: _Rules = (
    ("backbone.stem.conv1.weight", "trunk.conv1.weight"),
    ("backbone.stem.conv1.norm.{}", "trunk.bn1.{}"),
    *(
        (f"{theirs}.{{}}.{their_part}", f"trunk.{ours}.{{}}.{our_part}")
        for theirs, ours in (
            ("backbone.res2", "layer1"),
            ("backbone.res3", "layer2"),
            ("backbone.res4", "layer3"),
            ("roi_heads.res5", "layer4"),
        )
        for their_part, our_part in (
            ("shortcut.weight", "downsample.0.weight"),
            ("shortcut.norm.{}", "downsample.1.{}"),
            ("conv1.weight", "conv1.weight"),
            ("conv1.norm.{}", "bn1.{}"),
            ("conv2.weight", "conv2.weight"),
            ("conv2.norm.{}", "bn2.{}"),
            ("conv3.weight", "conv3.weight"),
            ("conv3.norm.{}", "bn3.{}"),
        )
    ),
    ("proposal_generator.rpn_head.conv.{}", "rpn.head.conv.0.0.{}"),
    ("proposal_generator.rpn_head.objectness_logits.{}", "rpn.head.cls_logits.{}"),
    ("proposal_generator.rpn_head.anchor_deltas.{}", "rpn.head.bbox_pred.{}"),
    ("roi_heads.box_predictor.cls_score.{}", "predictor.objects.{}"),
    ("roi_heads.box_predictor.bbox_pred.{}", "predictor.boxes.{}"),
    ("roi_heads.attribute_predictor.obj_embed.{}", "predictor.class_embedding.{}"),
    ("roi_heads.attribute_predictor.fc.0.{}", "predictor.attribute_hidden.{}"),
    ("roi_heads.attribute_predictor.attr_score.{}", "predictor.attributes.{}"),
)

# Not learned, and part of the network's config here; older detectron2 versions stored them.
_CONSTANTS = {
    "pixel_mean": "mean",
    "pixel_std": "std",
    "proposal_generator.anchor_generator.cell_anchors.0": "rpn.anchor_generator.cell",
}


def to_ours(
    state: Mapping[str, Tensor], constants: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """`state` under our names; ours pass as they are.

    Args:
        state: tensors by the name their file has for them.
        constants: the network's buffers by our name, to compare the stored ones with.
        source: the file, for messages.

    Raises:
        InputError: a tensor no table names, or a constant that is not the network's.
    """
    if "backbone.stem.conv1.weight" not in state:
        return dict(state)
    by_their_name = {theirs: constants[ours] for theirs, ours in _CONSTANTS.items()}
    learned = without_constants(state, by_their_name, source)
    return {rename(name, DETECTRON2_C4, source): tensor for name, tensor in learned.items()}


def without_constants(
    state: Mapping[str, Tensor], constants: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """`state` without what the config says too, after comparing it with the network's `constants`.

    detectron2 itself drops these unread, so that weights with other anchors load and find nothing.

    Raises:
        InputError: a stored constant that is not the network's.
    """
    for name, ours in constants.items():
        if name in state:
            _check_constant(name, state[name], ours, source)
    return {name: tensor for name, tensor in state.items() if name not in constants}


def rename(name: str, rules: _Rules, source: str = "") -> str:
    """The name on the right side of the rule whose left side is `name`."""
    for left, right in rules:
        match = re.fullmatch(re.escape(left).replace(r"\{\}", r"(\w+)"), name)
        if match:
            return right.format(*match.groups())
    raise InputError(f"{source}: {name} is not part of a C4 network of detectron2")


def _check_constant(name: str, stored: Tensor, ours: Tensor, source: str) -> None:
    stored, ours = stored.float().flatten(), ours.float().cpu().flatten()
    if stored.shape != ours.shape or (stored - ours).abs().max() > 1e-3:
        raise InputError(
            f"{source}: {name} must be {ours.tolist()}, found {stored.tolist()}; the weights are "
            "those of a network with other anchors or pixel values"
        )
