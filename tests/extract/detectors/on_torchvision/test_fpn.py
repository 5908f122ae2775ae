"""Feature pyramids: detectron2's arithmetic where torchvision's differs, without detectron2."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align
from torchvision.ops.poolers import LevelMapper

from semvlp.errors import ConfigError
from semvlp.extract.detectors.batched import Execution
from semvlp.extract.detectors.on_torchvision.backend import TorchvisionDetector
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN, Target
from semvlp.extract.detectors.on_torchvision.fpn import ResNetFPN, levels_of, pool_regions
from semvlp.extract.detectors.on_torchvision.rpn import Anchors, cell_anchors
from semvlp.extract.networks import NETWORKS, Variant

CONFIG = NETWORKS["resnet50_fpn"]
STRIDES = ResNetFPN.strides
OBJECTS, ATTRIBUTES = ("cup", "cat", "box"), ("red",)


@pytest.fixture(scope="module")
def backbone() -> ResNetFPN:
    torch.manual_seed(0)
    return ResNetFPN(CONFIG).eval()


def square(side: float) -> Tensor:
    return torch.tensor([[0.0, 0.0, side, side]])


def test_a_map_at_each_stride_of_the_image_padded_to_the_coarsest_stage(
    backbone: ResNetFPN,
) -> None:
    with torch.inference_mode():
        maps = backbone(torch.randn(2, 3, 70, 97))
    # 96 x 128; the coarsest map has every second cell of the one before it.
    shapes = [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]
    assert [tuple(each.shape) for each in maps] == [(2, 256, *shape) for shape in shapes]
    assert torch.equal(maps[4], maps[3][..., ::2, ::2])


def test_what_is_padded_is_nothing_to_the_network(backbone: ResNetFPN) -> None:
    image = torch.randn(1, 3, 60, 33)
    with torch.inference_mode():
        padded = backbone(F.pad(image, (0, 31, 0, 4)))
        for one, other in zip(backbone(image), padded, strict=True):
            assert torch.equal(one, other)


def test_the_feature_is_what_the_second_hidden_layer_gives(backbone: ResNetFPN) -> None:
    pooled = torch.randn(3, 256, 7, 7)
    first, second = backbone.head.fc6, backbone.head.fc7
    with torch.inference_mode():
        hidden = (pooled.reshape(3, 256 * 49) @ first.weight.T + first.bias).relu()
        wanted = (hidden @ second.weight.T + second.bias).relu()
        found = backbone.region_features(pooled)
    assert found.shape == (3, 1024)
    torch.testing.assert_close(found, wanted)


def literal_level(side: float) -> int:
    """Equation 1 of Lin et al. 2017, from 0 for the map of stride 4 to 3 for that of 32."""
    if side == 0:
        return 0
    return min(max(math.floor(4 + math.log2(side / 224)), 2), 5) - 2


@pytest.mark.parametrize(
    "side", [0, 1, 80, 111.9, 112, 112.1, 223.9, 224, 300, 447.9, 448, 448.1, 2000]
)
def test_a_region_is_pooled_from_the_map_of_its_size(side: float) -> None:
    assert levels_of(square(side), STRIDES[:4]).item() == literal_level(side)


def test_a_region_hair_short_of_a_level_stays_where_detectron2_has_it() -> None:
    short = square(112 * (1 - 3e-7))
    assert levels_of(short, STRIDES[:4]).item() == 0
    assert LevelMapper(2, 5)([short]).item() == 1, "else torchvision's mapper would do"


def test_regions_of_all_sizes_are_pooled_together_as_alone() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, 5, 256 // stride, 256 // stride) for stride in STRIDES[:4]]
    sides = [20.0, 500.0, 130.0, 250.0, 60.0]
    rows = torch.cat([torch.tensor([[i % 2, 3, 5, 3 + s, 5 + s]]) for i, s in enumerate(sides)])
    pooled = pool_regions(maps, rows, STRIDES[:4], CONFIG)
    for row, side, found in zip(rows, sides, pooled, strict=True):
        level = literal_level(side)
        alone = roi_align(maps[level], row[None], 7, 1 / STRIDES[level], 0, aligned=True)
        assert torch.equal(found, alone[0])
    assert {literal_level(side) for side in sides} == {0, 1, 2, 3}


def test_each_map_has_anchors_of_its_own_size() -> None:
    cells = cell_anchors(CONFIG, STRIDES)
    maps = [torch.zeros(1, 1, 64 // stride, 128 // stride) for stride in STRIDES]
    batch = ImageList(torch.zeros(1, 3, 64, 128), [(64, 128)])
    (ours,) = Anchors(cells, STRIDES)(batch, maps)
    sizes = ((32,), (64,), (128,), (256,), (512,))
    (theirs,) = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)(batch, maps)
    # torchvision's are rounded to whole pixels.
    assert ours.shape == theirs.shape == (3 * 682, 4)
    assert (ours - theirs).abs().max() <= 0.5


def test_there_must_be_a_size_for_each_map() -> None:
    with pytest.raises(ConfigError, match=r"anchor_sizes must be 5 numbers.*resnet50_fpn, found 2"):
        cell_anchors(replace(CONFIG, anchor_sizes=(32, 64)), STRIDES)


@pytest.mark.parametrize(
    "variant", [Variant(box_convention="caffe"), Variant(stem_pool="ceil"), Variant(res5="dilated")]
)
def test_a_pyramid_is_of_no_caffe_network(variant: Variant) -> None:
    with pytest.raises(ValueError, match="a feature pyramid must have exclusive boxes"):
        replace(CONFIG, variant=variant)


def detector(**settings: int) -> TorchvisionDetector:
    torch.manual_seed(0)
    config = replace(CONFIG, shorter_side=64, longer_side=96, **settings)
    network = FasterRCNN(config, num_objects=len(OBJECTS), num_attributes=len(ATTRIBUTES))
    return TorchvisionDetector(network, OBJECTS, ATTRIBUTES, Execution())


def test_candidates_are_counted_map_by_map_and_proposals_together() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    (one_each,) = detector(num_candidates=1)([image])
    sides = np.sqrt((one_each.proposals[:, 2:] - one_each.proposals[:, :2]).prod(1))
    # Anchors that random weights hardly move, cut at the border of the image.
    assert len(one_each.proposals) == len(STRIDES)
    assert sides.max() > 2 * sides.min()
    assert len(detector(num_candidates=20, num_proposals=7)([image])[0].proposals) == 7


def test_a_pyramid_learns_boxes_and_attributes() -> None:
    torch.manual_seed(0)
    network = FasterRCNN(CONFIG, num_objects=3, num_attributes=1).train()
    target = Target(
        boxes=torch.tensor([[5.0, 5.0, 40.0, 50.0]]),
        labels=torch.tensor([1]),
        attributes=torch.tensor([[1.0, 0.0]]),
    )
    losses = network.losses(torch.randint(0, 256, (1, 3, 64, 96)), [target])
    assert all(loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    for parameter in network.trunk.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
