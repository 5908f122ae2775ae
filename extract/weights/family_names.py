"""Tensor names of other systems' checkpoints and ours, one literal table for each system."""

import re
from collections.abc import Iterator

from semvlp.errors import InputError

Rules = tuple[tuple[str, str], ...]
"""(their name, our name); {} stands for the same text on both sides."""

# torchvision's names of a bottleneck, which are ours; {} is the number of the block.
_BLOCK = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample.0", "downsample.1")
# detectron2/modeling/backbone/resnet.py
_DETECTRON2_BLOCK = (
    *("conv1", "conv1.norm", "conv2", "conv2.norm", "conv3", "conv3.norm"),
    *("shortcut", "shortcut.norm"),
)


def _stages(stages: dict[str, str], block: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for theirs, ours in stages.items():
        for their_part, our_part in zip(block, _BLOCK, strict=True):
            yield f"{theirs}.{{}}.{their_part}.{{}}", f"trunk.{ours}.{{}}.{our_part}.{{}}"


_DETECTRON2_HEADS: Rules = (
    ("proposal_generator.rpn_head.conv.{}", "rpn.head.conv.0.0.{}"),
    ("proposal_generator.rpn_head.objectness_logits.{}", "rpn.head.cls_logits.{}"),
    ("proposal_generator.rpn_head.anchor_deltas.{}", "rpn.head.bbox_pred.{}"),
    ("roi_heads.box_predictor.cls_score.{}", "predictor.objects.{}"),
    ("roi_heads.box_predictor.bbox_pred.{}", "predictor.boxes.{}"),
)
_DETECTRON2_BODY: Rules = (
    ("backbone.stem.conv1.weight", "trunk.conv1.weight"),
    ("backbone.stem.conv1.norm.{}", "trunk.bn1.{}"),
    *_stages(
        {
            "backbone.res2": "layer1",
            "backbone.res3": "layer2",
            "backbone.res4": "layer3",
            "roi_heads.res5": "layer4",
        },
        _DETECTRON2_BLOCK,
    ),
    *_DETECTRON2_HEADS,
)

# facebookresearch/grid-feats-vqa grid_feats/roi_heads.py, AttributePredictor; the zoo has none.
_DETECTRON2_ATTRIBUTES: Rules = (
    ("roi_heads.attribute_predictor.obj_embed.{}", "predictor.class_embedding.{}"),
    ("roi_heads.attribute_predictor.fc.0.{}", "predictor.attribute_hidden.{}"),
    ("roi_heads.attribute_predictor.attr_score.{}", "predictor.attributes.{}"),
)
# detectron2's model zoo, and MILVLG's d2 mode
DETECTRON2: Rules = (*_DETECTRON2_BODY, *_DETECTRON2_ATTRIBUTES)
# detectron2/modeling/backbone/fpn.py, roi_heads/box_head.py
DETECTRON2_FPN: Rules = (
    ("backbone.bottom_up.stem.conv1.weight", "trunk.conv1.weight"),
    ("backbone.bottom_up.stem.conv1.norm.{}", "trunk.bn1.{}"),
    *_stages(
        {
            "backbone.bottom_up.res2": "layer1",
            "backbone.bottom_up.res3": "layer2",
            "backbone.bottom_up.res4": "layer3",
            "backbone.bottom_up.res5": "layer4",
        },
        _DETECTRON2_BLOCK,
    ),
    ("backbone.fpn_lateral2.{}", "trunk.fpn.inner_blocks.0.0.{}"),
    ("backbone.fpn_lateral3.{}", "trunk.fpn.inner_blocks.1.0.{}"),
    ("backbone.fpn_lateral4.{}", "trunk.fpn.inner_blocks.2.0.{}"),
    ("backbone.fpn_lateral5.{}", "trunk.fpn.inner_blocks.3.0.{}"),
    ("backbone.fpn_output2.{}", "trunk.fpn.layer_blocks.0.0.{}"),
    ("backbone.fpn_output3.{}", "trunk.fpn.layer_blocks.1.0.{}"),
    ("backbone.fpn_output4.{}", "trunk.fpn.layer_blocks.2.0.{}"),
    ("backbone.fpn_output5.{}", "trunk.fpn.layer_blocks.3.0.{}"),
    ("roi_heads.box_head.fc1.{}", "trunk.head.fc6.{}"),
    ("roi_heads.box_head.fc2.{}", "trunk.head.fc7.{}"),
    *_DETECTRON2_HEADS,
    *_DETECTRON2_ATTRIBUTES,
)
# airsplay/py-bottom-up-attention detectron2/modeling/roi_heads/fast_rcnn.py
BUTD: Rules = (
    *_DETECTRON2_BODY,
    ("roi_heads.box_predictor.cls_embedding.{}", "predictor.class_embedding.{}"),
    ("roi_heads.box_predictor.fc_attr.{}", "predictor.attribute_hidden.{}"),
    ("roi_heads.box_predictor.attr_score.{}", "predictor.attributes.{}"),
)
# MILVLG/bottom-up-attention.pytorch bua/caffe/modeling/fast_rcnn.py
CAFFE: Rules = (
    *_DETECTRON2_BODY,
    ("roi_heads.box_predictor.cls_embed.{}", "predictor.class_embedding.{}"),
    ("roi_heads.box_predictor.attr_linear1.{}", "predictor.attribute_hidden.{}"),
    ("roi_heads.box_predictor.attr_linear2.{}", "predictor.attributes.{}"),
)
# microsoft/scene_graph_benchmark maskrcnn_benchmark/modeling, scene_graph_benchmark/AttrRCNN.py
VINVL: Rules = (
    ("backbone.body.stem.conv1.weight", "trunk.conv1.weight"),
    ("backbone.body.stem.bn1.{}", "trunk.bn1.{}"),
    *_stages(
        {
            "backbone.body.layer1": "layer1",
            "backbone.body.layer2": "layer2",
            "backbone.body.layer3": "layer3",
            "roi_heads.box.feature_extractor.head.layer4": "layer4",
        },
        _BLOCK,
    ),
    ("rpn.head.conv.{}", "rpn.head.conv.0.0.{}"),
    ("rpn.head.cls_logits.{}", "rpn.head.cls_logits.{}"),
    ("rpn.head.bbox_pred.{}", "rpn.head.bbox_pred.{}"),
    ("roi_heads.box.predictor.cls_score.{}", "predictor.objects.{}"),
    ("roi_heads.box.predictor.bbox_pred.{}", "predictor.boxes.{}"),
    ("attribute.predictor.cls_embedding.{}", "predictor.class_embedding.{}"),
    ("attribute.predictor.fc_attr.{}", "predictor.attribute_hidden.{}"),
    ("attribute.predictor.attr_score.{}", "predictor.attributes.{}"),
)

# Not learned, and part of the network's config here; older versions stored them.
DETECTRON2_CONSTANTS = {
    "pixel_mean": "mean",
    "pixel_std": "std",
    "proposal_generator.anchor_generator.cell_anchors.0": "cell.0",
}
DETECTRON2_FPN_CONSTANTS = {
    **DETECTRON2_CONSTANTS,
    "proposal_generator.anchor_generator.cell_anchors.1": "cell.1",
    "proposal_generator.anchor_generator.cell_anchors.2": "cell.2",
    "proposal_generator.anchor_generator.cell_anchors.3": "cell.3",
    "proposal_generator.anchor_generator.cell_anchors.4": "cell.4",
}
VINVL_CONSTANTS = {"rpn.anchor_generator.cell_anchors.0": "cell.0"}


def rename(name: str, rules: Rules, source: str = "") -> str:
    """Return the name on the right side of the rule whose left side is `name`.

    Raises:
        InputError: no rule has it.
    """
    for left, right in rules:
        match = re.fullmatch(re.escape(left).replace(r"\{\}", r"(\w+)"), name)
        if match:
            return right.format(*match.groups())
    raise InputError(f"{source}: {name} is not part of a network of this family")
