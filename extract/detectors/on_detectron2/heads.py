"""Parts of bottom-up networks, in the registries of detectron2: `MODEL...NAME` names one.

B images, N anchors, P proposals, C object classes, A attributes, F feature size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
)
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import ResNet, build_resnet_backbone
from detectron2.modeling.backbone.resnet import BasicStem
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import Res5ROIHeads, StandardROIHeads
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from semvlp.extract.detectors.on_torchvision.faster_rcnn import attribute_loss
from semvlp.extract.detectors.on_torchvision.rpn import (
    ProposalRule,
    best_proposals,
    caffe_anchors,
    decode,
)


class CeilStem(BasicStem):  # type: ignore[misc]
    """Caffe's stem: its max-pooling is not padded, and cuts the last window at the border."""

    def forward(self, images: Tensor) -> Tensor:
        """Map [B, 3, H, W] to [B, 64, H / 4, W / 4]."""
        return F.max_pool2d(self.conv1(images).relu(), kernel_size=3, stride=2, ceil_mode=True)


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_bottom_up_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Build detectron2's ResNet with the stem that `MODEL.RESNETS.STEM_POOL` names."""
    backbone = build_resnet_backbone(cfg, input_shape)
    if cfg.MODEL.RESNETS.STEM_POOL == "ceil":
        stem = backbone.stem
        backbone.stem = CeilStem(stem.in_channels, stem.out_channels, cfg.MODEL.RESNETS.NORM)
    return backbone


@ANCHOR_GENERATOR_REGISTRY.register()
class CaffeAnchorGenerator(DefaultAnchorGenerator):  # type: ignore[misc]
    """The rounded anchors of Caffe's Faster R-CNN and maskrcnn_benchmark."""

    def generate_cell_anchors(
        self, sizes: Sequence[float], aspect_ratios: Sequence[float]
    ) -> Tensor:
        """Return [sizes * ratios, 4] around the first cell."""
        return caffe_anchors(tuple(sizes), tuple(aspect_ratios), self.strides[0])


@PROPOSAL_GENERATOR_REGISTRY.register()
class BottomUpRPN(RPN):  # type: ignore[misc]
    """detectron2's RPN; where boxes hold their last pixel, it proposes by their rule."""

    scales: Sequence[float] = ()
    """Resized over original size of the images of the next call; 1 where there are none."""

    @configurable  # type: ignore[untyped-decorator]
    def __init__(self, *, rule: ProposalRule, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rule = rule

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Return the arguments of `__init__`, as detectron2's `@configurable` wants them."""
        rule = ProposalRule(
            box_convention=cfg.MODEL.BOX_RULE,
            min_size=cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE,
            num_candidates=cfg.MODEL.RPN.PRE_NMS_TOPK_TEST,
            num_proposals=cfg.MODEL.RPN.POST_NMS_TOPK_TEST,
            iou=cfg.MODEL.RPN.NMS_THRESH,
        )
        return {**super().from_config(cfg, input_shape), "rule": rule}

    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Return the proposals of each image.

        Takes of each feature map anchors [N], logits [B, N] and deltas [B, N, 4].
        """
        if self.rule.box_convention == "exclusive" or self.training:
            return super().predict_proposals(  # type: ignore[no-any-return]
                anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes
            )
        (cells,), (logits,), (deltas,) = anchors, pred_objectness_logits, pred_anchor_deltas
        results = []
        for index, size in enumerate(image_sizes):
            boxes = decode(
                deltas[index],
                cells.tensor,
                weights=(1.0,) * 4,
                convention=self.rule.box_convention,
            ).view(-1, 4)
            scale = self.scales[index] if self.scales else 1.0
            best = best_proposals(boxes, logits[index], size, self.rule, scale=scale)
            results.append(Instances(size, proposal_boxes=Boxes(best)))
        return results


class AttributePredictor(nn.Module):
    """Region feature and object class -> attribute logits, "none" last.

    The head of Bottom-Up and Top-Down (Anderson et al. 2018, section 3.1) under the names of
    facebookresearch/grid-feats-vqa (grid_feats/roi_heads.py, AttributePredictor).
    """

    def __init__(
        self, *, features: int, num_objects: int, num_attributes: int, embedding: int, hidden: int
    ) -> None:
        super().__init__()
        self.obj_embed = nn.Embedding(num_objects + 1, embedding)
        self.fc = nn.Sequential(nn.Linear(features + embedding, hidden), nn.ReLU())
        self.attr_score = nn.Linear(hidden, num_attributes + 1)

    @classmethod
    def of(cls, cfg: CfgNode, features: int) -> "AttributePredictor | None":
        """Build a config's head on `features` numbers a region; None where it has no attributes."""
        head = cfg.MODEL.ROI_ATTRIBUTE_HEAD
        if not head.NUM_CLASSES:
            return None
        return cls(
            features=features,
            num_objects=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            num_attributes=head.NUM_CLASSES,
            embedding=head.EMBEDDING,
            hidden=head.HIDDEN,
        )

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Map [P, F] and object classes [P] to [P, A + 1]."""
        known = torch.cat([features, self.obj_embed(labels)], dim=-1)
        return self.attr_score(self.fc(known))  # type: ignore[no-any-return]

    def loss(self, features: Tensor, sampled: list[Instances]) -> Tensor:
        """Return the loss of sampled regions [P, F] that hold an object, given its true class."""
        labels = torch.cat([each.gt_classes for each in sampled])
        targets = torch.cat([self._targets(each) for each in sampled])
        # The last class is background.
        at = torch.where(labels < self.obj_embed.num_embeddings - 1)[0]
        return attribute_loss(self(features[at], labels[at]), targets[at])

    def _targets(self, sampled: Instances) -> Tensor:
        """Return [P, A + 1], zeros in an image without objects, whose targets are not set."""
        if sampled.has("gt_attributes"):
            return sampled.gt_attributes  # type: ignore[no-any-return]
        boxes: Tensor = sampled.proposal_boxes.tensor
        return boxes.new_zeros(len(sampled), self.attr_score.out_features)


@ROI_HEADS_REGISTRY.register()
class AttributeRes5ROIHeads(Res5ROIHeads):  # type: ignore[misc]
    """C4 region heads with an attribute head; they learn boxes and attributes, no masks.

    Targets may have `gt_attributes` [N, A + 1], the distribution to learn, "none" last; a row of
    zeros is not learned from. `MODEL.RESNETS.RES5_DILATION` 2 takes the stride out of res5, as
    bottom-up attention has it.
    """

    attribute_predictor: AttributePredictor | None

    @configurable  # type: ignore[untyped-decorator]
    def __init__(self, *, attribute_predictor: AttributePredictor | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attribute_predictor = attribute_predictor

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Return the arguments of `__init__`, as detectron2's `@configurable` wants them."""
        features = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS * 8
        return {
            **super().from_config(cfg, input_shape),
            "attribute_predictor": AttributePredictor.of(cfg, features),
        }

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Return what `Res5ROIHeads.forward` does; in training losses with `loss_attribute`."""
        if not self.training:
            return super().forward(  # type: ignore[no-any-return]
                images, features, proposals, targets
            )
        sampled = self.label_and_sample_proposals(proposals, targets)
        maps = [features[name] for name in self.in_features]
        boxes = [each.proposal_boxes for each in sampled]
        regions = self._shared_roi_transform(maps, boxes).mean(dim=(2, 3))
        losses = self.box_predictor.losses(self.box_predictor(regions), sampled)
        if self.attribute_predictor is not None:
            losses["loss_attribute"] = self.attribute_predictor.loss(regions, sampled)
        return [], losses

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        stage, channels = super()._build_res5_block(cfg)
        if cfg.MODEL.RESNETS.RES5_DILATION == 2:
            stage[0].conv1.stride = stage[0].conv2.stride = stage[0].shortcut.stride = (1, 1)
            for block in stage:
                block.conv2.dilation = block.conv2.padding = (2, 2)
        return stage, channels


@ROI_HEADS_REGISTRY.register()
class AttributeStandardROIHeads(StandardROIHeads):  # type: ignore[misc]
    """Region heads of feature pyramids with an attribute head; see `AttributeRes5ROIHeads`."""

    attribute_predictor: AttributePredictor | None

    @configurable  # type: ignore[untyped-decorator]
    def __init__(self, *, attribute_predictor: AttributePredictor | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attribute_predictor = attribute_predictor

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Return the arguments of `__init__`, as detectron2's `@configurable` wants them."""
        arguments: dict[str, Any] = super().from_config(cfg, input_shape)
        features = arguments["box_head"].output_shape.channels
        return {**arguments, "attribute_predictor": AttributePredictor.of(cfg, features)}

    def _forward_box(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        if not self.training:
            return super()._forward_box(features, proposals)  # type: ignore[no-any-return]
        maps = [features[name] for name in self.box_in_features]
        regions = self.box_head(self.box_pooler(maps, [each.proposal_boxes for each in proposals]))
        losses: dict[str, Tensor] = self.box_predictor.losses(
            self.box_predictor(regions), proposals
        )
        if self.attribute_predictor is not None:
            losses["loss_attribute"] = self.attribute_predictor.loss(regions, proposals)
        return losses
