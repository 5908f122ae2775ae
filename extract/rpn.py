"""The region proposal network: torchvision's, with the anchors and rules of a network config.

B images, N anchors, P proposals, h x w the feature map. Boxes are xyxy in pixels of the resized
image.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import (
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)

from semvlp.extract.box_rules import best_proposals, decode, proposal_rule
from semvlp.extract.networks import PLAIN, NetworkConfig


class Anchors(nn.Module):
    """Anchor boxes around the cells of a feature map.

    torchvision's own generator guesses the stride from the image's size, which is wrong unless
    images are padded.
    """

    cell: Tensor

    def __init__(self, cell: Tensor, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer("cell", cell, persistent=False)

    def forward(self, images: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """[cells * anchors, 4] for each image, rows of the map outermost."""
        height, width = feature_maps[0].shape[-2:]
        y, x = torch.meshgrid(
            torch.arange(height, device=self.cell.device) * self.stride,
            torch.arange(width, device=self.cell.device) * self.stride,
            indexing="ij",
        )
        corners = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
        anchors = (corners + self.cell).view(-1, 4)
        return [anchors] * len(images.image_sizes)


def cell_anchors(config: NetworkConfig, stride: int) -> Tensor:
    """The anchors [sizes * ratios, 4] of the first cell."""
    if (config.variant or PLAIN).anchors == "caffe":
        return caffe_anchors(config.anchor_sizes, config.anchor_ratios, stride)
    return _exact_anchors(config.anchor_sizes, config.anchor_ratios)


def _exact_anchors(sizes: tuple[int, ...], ratios: tuple[float, ...]) -> Tensor:
    """detectron2's `DefaultAnchorGenerator` with offset 0: around 0, sizes outside."""
    shapes = torch.tensor(
        [(size / ratio**0.5, size * ratio**0.5) for size in sizes for ratio in ratios]
    )
    return torch.cat([-shapes, shapes], dim=1) / 2


def caffe_anchors(sizes: tuple[float, ...], ratios: tuple[float, ...], stride: int) -> Tensor:
    """py-faster-rcnn lib/rpn/generate_anchors.py, which maskrcnn_benchmark kept.

    A window of stride x stride pixels gets a ratio, its sides rounded, and is then enlarged; the
    last pixel is part of a box. Ratios outside.
    """
    centre = (stride - 1) / 2
    cells = []
    for ratio in ratios:
        width = np.round(np.sqrt(stride * stride / ratio))
        height = np.round(width * ratio)
        for size in sizes:
            x, y = (width * size / stride - 1) / 2, (height * size / stride - 1) / 2
            cells.append([centre - x, centre - y, centre + x, centre + y])
    return torch.tensor(cells, dtype=torch.float32)


class Proposer(RegionProposalNetwork):  # type: ignore[misc]
    """Proposals by the rule of a network whose boxes hold their last pixel; it does not learn."""

    config: NetworkConfig

    def propose(self, images: ImageList, features: Tensor, scales: list[float]) -> list[Tensor]:
        """[P, 4] for each image from features [B, C, h, w]; `scales` are resized over original."""
        objectness, deltas = self.head([features])
        anchors = self.anchor_generator(images, [features])
        logits, codes = concat_box_prediction_layers(objectness, deltas)
        rule = proposal_rule(self.config)
        boxes = decode(codes, torch.cat(anchors), weights=(1.0,) * 4, rule=rule.boxes)
        counts = [len(each) for each in anchors]
        parts = zip(
            torch.split(boxes.view(-1, 4), counts),
            torch.split(logits.flatten(), counts),
            images.image_sizes,
            scales,
            strict=True,
        )
        return [
            best_proposals(part, scores, size, rule, scale=scale)
            for part, scores, size, scale in parts
        ]


def region_proposal_network(config: NetworkConfig, channels: int, stride: int) -> Proposer:
    """The network of a config on a feature map of `channels`, with random weights."""
    anchors = Anchors(cell_anchors(config, stride), stride)
    found = Proposer(
        anchors,
        _head(config, channels, len(anchors.cell)),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2 * config.num_candidates, "testing": config.num_candidates},
        post_nms_top_n={"training": 2 * config.num_proposals, "testing": config.num_proposals},
        nms_thresh=config.rpn_nms,
    )
    found.config = config
    return found


def _head(config: NetworkConfig, channels: int, num_anchors: int) -> RPNHead:
    """torchvision's, whose hidden layer is as wide as its input unless it is replaced."""
    width = config.variant.rpn_width if config.variant else channels
    head = RPNHead(width, num_anchors)
    if width != channels:
        head.conv[0][0] = nn.Conv2d(channels, width, 3, padding=1)
        nn.init.normal_(head.conv[0][0].weight, std=0.01)
        nn.init.zeros_(head.conv[0][0].bias)
    return head
