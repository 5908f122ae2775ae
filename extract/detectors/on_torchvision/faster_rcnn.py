"""Faster R-CNN with an attribute head, composed of torchvision's detection parts.

B images, P proposals, C object classes, A attributes, F feature size, H x W a resized image.
Boxes are xyxy in pixels of the resized image. Background is the last of C + 1 object classes and
"none" the last of A + 1 attributes, everywhere.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads

from semvlp.extract.detectors.batched import (
    REGIONS_AT_ONCE,
    Execution,
    GivenRegions,
    RawDetections,
    with_given,
)
from semvlp.extract.detectors.on_torchvision.backbones import Backbone, ResNetC4, SmallBackbone
from semvlp.extract.detectors.on_torchvision.fpn import ResNetFPN, pool_regions
from semvlp.extract.detectors.on_torchvision.rpn import clip, decode, region_proposal_network
from semvlp.extract.networks import FPN_SUFFIX, PLAIN, NetworkConfig

# Regions of an image that a step learns from.
REGIONS_PER_IMAGE = 64
# Where the loss of a box turns from a square to a line, torchvision's for region proposals too.
SMOOTH_L1_BETA = 1 / 9


class Target(NamedTuple):
    """The N annotated objects of one image."""

    boxes: Tensor
    """[N, 4]."""
    labels: Tensor
    """[N] int64 object classes from 0."""
    attributes: Tensor
    """[N, A + 1] the attribute distribution to learn; a row of zeros is not learned from."""


class FasterRCNN(nn.Module):
    """The network: `detect` finds, `losses` learns."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: NetworkConfig, *, num_objects: int, num_attributes: int) -> None:
        super().__init__()
        self.config = config
        # The backbone is `trunk` in the tensor names of every detector that was written, and so in
        # the hash of its weights.
        self.trunk = backbone_of(config)(config)
        self.variant = config.variant or PLAIN
        self.rpn = region_proposal_network(config, self.trunk.channels, self.trunk.strides)
        self.predictor = Predictor(config, num_objects, num_attributes)
        self.sampler = _sampler(self.variant.box_weights)
        self.register_buffer("mean", _per_channel(config.pixel_mean), persistent=False)
        self.register_buffer("std", _per_channel(config.pixel_std), persistent=False)

    def detect(
        self,
        images: Tensor,
        scales: list[float],
        execution: Execution,
        given: Sequence[GivenRegions | None] = (),
    ) -> list[RawDetections]:
        """Detect in RGB images [B, 3, H, W] of 0..255 of one shape, or describe `given` boxes.

        `scales` are resized over original size, where the network's rules need them.
        """
        with execution.convolutions():
            maps = self.trunk(self._normalised(images))
        maps = [each.float() for each in maps]

        def propose() -> list[Tensor]:
            if self.variant.box_convention == "exclusive":
                return self.rpn(_image_list(images), _numbers(maps))[0]  # type: ignore[no-any-return]
            return self.rpn.propose(_image_list(images), maps, scales)

        proposals = with_given(given or [None] * len(images), propose, like=maps[0])
        with execution.convolutions():
            regions = self._region_features(maps, proposals)
        counts = [len(boxes) for boxes in proposals]
        size = (images.shape[-2], images.shape[-1])
        return [
            self._raw_detections(boxes, part, size, scale)
            for boxes, part, scale in zip(
                proposals, torch.split(regions, counts), scales, strict=True
            )
        ]

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Return Faster R-CNN's losses and that of attributes on RGB images [B, 3, H, W] uint8."""
        maps = self.trunk(self._normalised(images))
        # torchvision's sampler wants classes from 1 and makes background 0.
        entries = [{"boxes": each.boxes, "labels": each.labels + 1} for each in targets]
        proposals, rpn_losses = self.rpn(_image_list(images), _numbers(maps), entries)
        proposals, matched, classes, deltas = self.sampler.select_training_samples(
            proposals, entries
        )
        num_objects = self.predictor.num_objects
        labels = (torch.cat(classes) - 1) % (num_objects + 1)
        attributes = torch.cat(
            [
                _rows_or_zeros(each.attributes, rows)
                for each, rows in zip(targets, matched, strict=True)
            ]
        )
        regions = self._region_features(maps, proposals)
        return {
            "loss_rpn_objectness": rpn_losses["loss_objectness"],
            "loss_rpn_box": rpn_losses["loss_rpn_box_reg"],
            **self.predictor.losses(regions, labels, torch.cat(deltas), attributes),
        }

    def _normalised(self, images: Tensor) -> Tensor:
        if self.config.channel_order == "bgr":
            images = images.flip(1)
        return (images - self.mean) / self.std

    def _region_features(self, maps: list[Tensor], proposals: list[Tensor]) -> Tensor:
        """Return [P of all images, F]; so many regions at once that their maps fit in memory."""
        # [P, 5] the number of an image before a box in it.
        rows = torch.cat(
            [
                torch.cat([boxes.new_full((len(boxes), 1), index), boxes], dim=1)
                for index, boxes in enumerate(proposals)
            ]
        )
        maps = maps[: self.trunk.region_maps]
        strides = self.trunk.strides[: self.trunk.region_maps]
        parts = [
            self.trunk.region_features(pool_regions(maps, part, strides, self.config)).float()
            for part in torch.split(rows, REGIONS_AT_ONCE)
        ]
        return torch.cat(parts)

    def _raw_detections(
        self, proposals: Tensor, features: Tensor, size: tuple[int, int], scale: float
    ) -> RawDetections:
        object_logits, deltas = self.predictor(features)
        variant = self.variant
        # Caffe regresses regions in pixels of the original image.
        pixel = scale if variant.box_convention == "caffe" else 1.0
        boxes = decode(
            deltas.flatten(1),
            proposals,
            weights=variant.box_weights,
            convention=variant.box_convention,
            pixel=pixel,
        )
        given = (
            object_logits[:, :-1] if variant.attribute_given == "object class" else object_logits
        )
        return RawDetections(
            proposals=proposals,
            boxes=clip(boxes, size, convention=variant.box_convention, pixel=pixel),
            object_scores=object_logits.softmax(-1),
            attribute_scores=self.predictor.attribute_logits(features, given.argmax(-1)).softmax(
                -1
            )[:, :-1],
            features=features,
        )


def backbone_of(config: NetworkConfig) -> type[Backbone]:
    """Return the kind of backbone a network config names."""
    if config.backbone.endswith(FPN_SUFFIX):
        return ResNetFPN
    return SmallBackbone if config.backbone == "small" else ResNetC4


class Predictor(nn.Module):
    """Region feature -> object class, box, and attribute given the object class.

    The attribute head of Bottom-Up and Top-Down (Anderson et al. 2018, section 3.1; layers
    cls_embedding, fc_attr, attr_score of its reference code): the feature beside an embedding of
    the object class, one hidden layer, attributes. It learns from the true class; where it is used,
    it takes the likeliest class, background among them.
    """

    def __init__(self, config: NetworkConfig, num_objects: int, num_attributes: int) -> None:
        super().__init__()
        self.num_objects, self.num_attributes = num_objects, num_attributes
        self.objects = nn.Linear(config.feature_size, num_objects + 1)
        self.boxes = nn.Linear(config.feature_size, num_objects * 4)
        if num_attributes:
            width = config.feature_size + config.attribute_embedding
            self.class_embedding = nn.Embedding(num_objects + 1, config.attribute_embedding)
            self.attribute_hidden = nn.Linear(width, config.attribute_hidden)
            self.attributes = nn.Linear(config.attribute_hidden, num_attributes + 1)
        nn.init.normal_(self.objects.weight, std=0.01)
        nn.init.normal_(self.boxes.weight, std=0.001)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map [P, F] to object logits [P, C + 1] and box deltas [P, C, 4]."""
        return self.objects(features), self.boxes(features).view(-1, self.num_objects, 4)

    def attribute_logits(self, features: Tensor, labels: Tensor) -> Tensor:
        """Map [P, F] and object classes [P] to [P, A + 1]; without attributes "none" alone."""
        if not self.num_attributes:
            return features.new_zeros(len(features), 1)
        known = torch.cat([features, self.class_embedding(labels)], dim=-1)
        return self.attributes(self.attribute_hidden(known).relu())  # type: ignore[no-any-return]

    def losses(
        self, features: Tensor, labels: Tensor, deltas: Tensor, attributes: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of sampled regions [P, F] with their targets, one row a region."""
        object_logits, predicted = self(features)
        at = torch.where(labels < self.num_objects)[0]
        box_loss = F.smooth_l1_loss(
            predicted[at, labels[at]], deltas[at], beta=SMOOTH_L1_BETA, reduction="sum"
        )
        return {
            "loss_object": F.cross_entropy(object_logits, labels),
            "loss_box": box_loss / max(len(labels), 1),
            "loss_attribute": attribute_loss(
                self.attribute_logits(features[at], labels[at]), attributes[at]
            ),
        }


def attribute_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of logits [P, A + 1] with distributions `targets` [P, A + 1].

    It is the mean over the rows that there is something to learn from; 0 without any.
    """
    annotated = (targets.sum(-1) > 0).sum().clamp(min=1)
    return -(targets * logits.log_softmax(-1)).sum() / annotated


def _sampler(box_weights: tuple[float, ...]) -> RoIHeads:
    """Return torchvision's region head without layers: it samples regions and codes boxes."""
    return RoIHeads(
        None,
        None,
        None,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=REGIONS_PER_IMAGE,
        positive_fraction=0.25,
        bbox_reg_weights=box_weights,
        score_thresh=0.0,
        nms_thresh=0.5,
        detections_per_img=100,
    )


def _image_list(images: Tensor) -> ImageList:
    return ImageList(images, [(images.shape[-2], images.shape[-1])] * len(images))


def _numbers(maps: list[Tensor]) -> dict[str, Tensor]:
    """Return feature maps under the names torchvision wants."""
    return {str(level): each for level, each in enumerate(maps)}


def _rows_or_zeros(values: Tensor, index: Tensor) -> Tensor:
    """Return `values[index]`; zeros for an image without objects, where every index is 0."""
    return values[index] if len(values) else values.new_zeros(len(index), values.shape[1])


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)
