"""Box arithmetic where a box's last pixel is part of it, as in Caffe and maskrcnn_benchmark.

N anchors or regions, K classes, P proposals. Boxes are xyxy in pixels of the resized image. `pixel`
is the size of one pixel of the convention there: 1, or the scale where boxes were meant in pixels
of the original image.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import clip_boxes_to_image, nms

from semvlp.extract.networks import PLAIN, BoxRule, NetworkConfig

Size = tuple[int, int]
"""Height and width of the resized image."""


def decode(
    deltas: Tensor,
    boxes: Tensor,
    *,
    weights: tuple[float, ...],
    rule: BoxRule,
    pixel: float = 1.0,
) -> Tensor:
    """The boxes [N, K, 4] that `deltas` [N, K * 4] make of `boxes` [N, 4].

    maskrcnn_benchmark takes the last pixel off again (modeling/box_coder.py); Caffe does not
    (py-faster-rcnn lib/fast_rcnn/bbox_transform.py; bua/caffe/modeling/box_regression.py).
    """
    coder = BoxCoder(weights)
    decoded: Tensor = coder.decode_single(deltas, boxes + _last(rule, pixel, boxes))
    decoded = decoded.view(len(boxes), -1, 4)
    if rule == "maskrcnn_benchmark":
        decoded = decoded - _last(rule, pixel, boxes)
    return decoded


def clip(boxes: Tensor, size: Size, *, rule: BoxRule, pixel: float = 1.0) -> Tensor:
    """Boxes [..., 4] cut at the border, or at the border's last pixel."""
    last = 0.0 if rule == "exclusive" else pixel
    inside = clip_boxes_to_image(boxes, (size[0] - last, size[1] - last))
    return inside  # type: ignore[no-any-return]


class ProposalRule(NamedTuple):
    """How the proposals of an image are chosen from its anchors."""

    boxes: BoxRule
    min_size: int
    """In pixels of the original image."""
    num_candidates: int
    num_proposals: int
    iou: float


def proposal_rule(config: NetworkConfig) -> ProposalRule:
    """The rule of a network's region proposals."""
    variant = config.variant or PLAIN
    return ProposalRule(
        boxes=variant.boxes,
        min_size=variant.min_size,
        num_candidates=config.num_candidates,
        num_proposals=config.num_proposals,
        iou=config.rpn_nms,
    )


def best_proposals(
    boxes: Tensor, scores: Tensor, size: Size, rule: ProposalRule, *, scale: float
) -> Tensor:
    """The proposals [P, 4], best first, of decoded anchors [N, 4] with objectness [N].

    Caffe leaves small ones out before it takes the likeliest (py-faster-rcnn
    lib/rpn/proposal_layer.py). Only Caffe's overlap counts the last pixel.
    """
    boxes = clip(boxes, size, rule=rule.boxes)
    if rule.min_size:
        sides = boxes[:, 2:] - boxes[:, :2]
        whole = (sides > 0).all(1) & (sides + 1 > rule.min_size * scale).all(1)
        boxes, scores = boxes[whole], scores[whole]
    scores, order = scores.sort(descending=True, stable=True)
    boxes, scores = boxes[order[: rule.num_candidates]], scores[: rule.num_candidates]
    grown = boxes + _last(rule.boxes, 1.0, boxes) if rule.boxes == "caffe" else boxes
    return boxes[nms(grown, scores, rule.iou)[: rule.num_proposals]]


def _last(rule: BoxRule, pixel: float, like: Tensor) -> Tensor:
    """What makes the last pixel part of a box."""
    width = 0.0 if rule == "exclusive" else pixel
    return torch.tensor([0.0, 0.0, width, width], dtype=like.dtype, device=like.device)
