"""The region proposal network: torchvision's, with the anchors and rules of a network config.

B images, N anchors or regions, K classes, P proposals, h x w a feature map. Boxes are xyxy in
pixels of the resized image. In Caffe and maskrcnn_benchmark a box's last pixel is part of it:
`pixel` is the size of one pixel of the convention there, 1, or the scale where boxes were meant in
pixels of the original image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import (
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)
from torchvision.ops import batched_nms, clip_boxes_to_image, nms

from semvlp.errors import ConfigError
from semvlp.extract.networks import PLAIN, BoxConvention, NetworkConfig

Size = tuple[int, int]
"""Height and width of the resized image."""


def region_proposal_network(
    config: NetworkConfig, channels: int, strides: Sequence[int]
) -> "Proposer":
    """Return the network of a config on feature maps of `channels`, with random weights."""
    cells = cell_anchors(config, strides)
    proposer = Proposer(
        Anchors(cells, strides),
        _head(config, channels, len(cells[0])),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2 * config.num_candidates, "testing": config.num_candidates},
        post_nms_top_n={"training": 2 * config.num_proposals, "testing": config.num_proposals},
        nms_thresh=config.rpn_nms,
    )
    proposer.config = config
    return proposer


def _head(config: NetworkConfig, channels: int, num_anchors: int) -> RPNHead:
    """Return torchvision's head; its hidden layer is as wide as its input unless replaced."""
    width = config.variant.rpn_width if config.variant else channels
    head = RPNHead(width, num_anchors)
    if width != channels:
        head.conv[0][0] = nn.Conv2d(channels, width, 3, padding=1)
        nn.init.normal_(head.conv[0][0].weight, std=0.01)
        nn.init.zeros_(head.conv[0][0].bias)
    return head


class Proposer(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's, with what it lacks: an order of sure proposals, and the rules of Caffe."""

    config: NetworkConfig

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the best proposals of each image, likeliest first, and their logits.

        Takes decoded anchors [B, N, 4] of all maps and their logits. As in detectron2, logits order
        them: torchvision's probabilities are equal where a network is sure.
        """
        logits = objectness.detach().view(len(proposals), -1)
        counts = torch.tensor(num_anchors_per_level, device=logits.device)
        levels = torch.arange(len(counts), device=logits.device).repeat_interleave(counts)
        candidates = self._get_top_n_idx(logits, num_anchors_per_level)
        survivors = [
            self._survivors(boxes[at], scores[at], levels[at], size)
            for boxes, scores, at, size in zip(
                proposals, logits, candidates, image_shapes, strict=True
            )
        ]
        return [boxes for boxes, _ in survivors], [scores for _, scores in survivors]

    def _survivors(
        self, boxes: Tensor, scores: Tensor, levels: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return what non-maximum suppression on each map leaves of an image's candidates.

        As in detectron2 (structures/boxes.py, `nonempty`) a box of any width is one: torchvision
        would leave out what is thinner than a thousandth of a pixel.
        """
        boxes = clip_boxes_to_image(boxes, size)
        whole = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes, scores, levels = boxes[whole], scores[whole], levels[whole]
        kept = batched_nms(boxes, scores, levels, self.nms_thresh)[: self.post_nms_top_n()]
        return boxes[kept], scores[kept]

    def propose(self, images: ImageList, maps: list[Tensor], scales: list[float]) -> list[Tensor]:
        """Return [P, 4] for each image where boxes hold their last pixel; it cannot learn.

        Takes a map [B, C, h, w] and resized over original size of the images.
        """
        objectness, deltas = self.head(maps)
        anchors = self.anchor_generator(images, maps)
        logits, codes = concat_box_prediction_layers(objectness, deltas)
        rule = proposal_rule(self.config)
        boxes = decode(
            codes, torch.cat(anchors), weights=(1.0,) * 4, convention=rule.box_convention
        )
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


class ProposalRule(NamedTuple):
    """The choice of an image's proposals from its anchors."""

    box_convention: BoxConvention
    min_size: int
    """In pixels of the original image."""
    num_candidates: int
    num_proposals: int
    iou: float


def proposal_rule(config: NetworkConfig) -> ProposalRule:
    """Return the rule of a network's region proposals."""
    variant = config.variant or PLAIN
    return ProposalRule(
        box_convention=variant.box_convention,
        min_size=variant.min_size,
        num_candidates=config.num_candidates,
        num_proposals=config.num_proposals,
        iou=config.rpn_nms,
    )


def best_proposals(
    boxes: Tensor, scores: Tensor, size: Size, rule: ProposalRule, *, scale: float
) -> Tensor:
    """Return the proposals [P, 4], best first, of decoded anchors [N, 4] with objectness [N].

    Caffe leaves small ones out before it takes the likeliest (py-faster-rcnn
    lib/rpn/proposal_layer.py). Only Caffe's overlap counts the last pixel.
    """
    boxes = clip(boxes, size, convention=rule.box_convention)
    if rule.min_size:
        sides = boxes[:, 2:] - boxes[:, :2]
        whole = (sides > 0).all(1) & (sides + 1 > rule.min_size * scale).all(1)
        boxes, scores = boxes[whole], scores[whole]
    scores, order = scores.sort(descending=True, stable=True)
    boxes, scores = boxes[order[: rule.num_candidates]], scores[: rule.num_candidates]
    whole_pixels = boxes
    if rule.box_convention == "caffe":
        whole_pixels = boxes + _last_pixel("caffe", 1.0, boxes)
    return boxes[nms(whole_pixels, scores, rule.iou)[: rule.num_proposals]]


class Anchors(nn.Module):
    """Anchor boxes around the cells of feature maps.

    torchvision's own generator guesses the stride from the image's size, which is wrong unless
    images are padded.
    """

    def __init__(self, cells: Sequence[Tensor], strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        for level, cell in enumerate(cells):
            self.register_buffer(f"cell{level}", cell, persistent=False)

    def forward(self, images: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return [cells * anchors, 4] for each image: map after map, their rows outermost."""
        levels = zip(feature_maps, self.buffers(), self.strides, strict=True)
        anchors = torch.cat([_around_cells(each, cell, stride) for each, cell, stride in levels])
        return [anchors] * len(images.image_sizes)


def _around_cells(feature_map: Tensor, cell: Tensor, stride: int) -> Tensor:
    height, width = feature_map.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=cell.device) * stride,
        torch.arange(width, device=cell.device) * stride,
        indexing="ij",
    )
    corners = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
    return (corners + cell).view(-1, 4)


def cell_anchors(config: NetworkConfig, strides: Sequence[int]) -> list[Tensor]:
    """Return the anchors [sizes * ratios, 4] of the first cell of each feature map.

    A single map has all sizes, each map of a feature pyramid one.

    Raises:
        ConfigError: there are several maps, but not as many sizes.
    """
    sizes = [config.anchor_sizes] if len(strides) == 1 else [(x,) for x in config.anchor_sizes]
    if len(sizes) != len(strides):
        raise ConfigError(
            f"anchor_sizes must be {len(strides)} numbers, one for each feature map of "
            f"{config.backbone}, found {len(sizes)}"
        )
    if (config.variant or PLAIN).anchors == "caffe":
        levels = zip(sizes, strides, strict=True)
        return [caffe_anchors(each, config.anchor_ratios, stride) for each, stride in levels]
    return [_exact_anchors(each, config.anchor_ratios) for each in sizes]


def _exact_anchors(sizes: tuple[int, ...], ratios: tuple[float, ...]) -> Tensor:
    """Return detectron2's anchors (`DefaultAnchorGenerator`, offset 0): around 0, sizes outside."""
    shapes = torch.tensor(
        [(size / ratio**0.5, size * ratio**0.5) for size in sizes for ratio in ratios]
    )
    return torch.cat([-shapes, shapes], dim=1) / 2


def caffe_anchors(sizes: tuple[float, ...], ratios: tuple[float, ...], stride: int) -> Tensor:
    """Return the anchors of py-faster-rcnn (lib/rpn/generate_anchors.py) and maskrcnn_benchmark.

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


def decode(
    deltas: Tensor,
    boxes: Tensor,
    *,
    weights: tuple[float, ...],
    convention: BoxConvention,
    pixel: float = 1.0,
) -> Tensor:
    """Return the boxes [N, K, 4] that `deltas` [N, K * 4] make of `boxes` [N, 4].

    maskrcnn_benchmark takes the last pixel off again (modeling/box_coder.py); Caffe does not
    (py-faster-rcnn lib/fast_rcnn/bbox_transform.py; bua/caffe/modeling/box_regression.py).
    """
    coder = BoxCoder(weights)
    decoded: Tensor = coder.decode_single(deltas, boxes + _last_pixel(convention, pixel, boxes))
    decoded = decoded.view(len(boxes), -1, 4)
    if convention == "maskrcnn_benchmark":
        decoded = decoded - _last_pixel(convention, pixel, boxes)
    return decoded


def clip(boxes: Tensor, size: Size, *, convention: BoxConvention, pixel: float = 1.0) -> Tensor:
    """Cut boxes [..., 4] at the border, or at the border's last pixel."""
    last = 0.0 if convention == "exclusive" else pixel
    inside = clip_boxes_to_image(boxes, (size[0] - last, size[1] - last))
    return inside  # type: ignore[no-any-return]


def _last_pixel(convention: BoxConvention, pixel: float, like: Tensor) -> Tensor:
    """Return the offsets [4] that make the last pixel part of a box, or take it off again."""
    width = 0.0 if convention == "exclusive" else pixel
    return torch.tensor([0.0, 0.0, width, width], dtype=like.dtype, device=like.device)
