"""Networks that only find give what the networks that can learn give, but for rounding."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from semvlp.extract.detectors.on_torchvision.backbones import (
    ResNetC4,
    SmallBackbone,
    every,
    fuse_conv_bn,
    unstride,
)
from semvlp.extract.detectors.on_torchvision.fpn import ResNetFPN
from semvlp.extract.networks import NETWORKS, SMALL, Variant


def lively(network: nn.Module) -> nn.Module:
    """With norms that do something in every channel, and outputs in range."""
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            scale = 0.2 if float(module.weight.detach().mean()) != 1 else 1.0
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5 * scale, scale)
            module.bias.data.normal_(std=0.1)
    return network.eval()


def difference(one: Tensor, other: Tensor) -> float:
    """Largest difference over the largest value."""
    assert one.shape == other.shape
    return float((one - other).abs().max() / one.abs().max())


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, nn.BatchNorm2d])
@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_convolution_does_what_the_norm_did(norm: type[nn.Module], bias: bool) -> None:
    both = lively(nn.Sequential(nn.Conv2d(3, 5, 3, bias=bias), norm(5)))
    x = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected = both(x)
        assert difference(expected, both[0](x)) > 0.01
    fuse_conv_bn(both[0], both[1])
    with torch.inference_mode():
        assert difference(expected, both[0](x)) < 1e-5


def test_a_stage_without_its_stride_sees_every_second_cell() -> None:
    first, shortcut = nn.Conv2d(4, 6, 1, stride=2), nn.Conv2d(4, 8, 1, stride=2)
    x = torch.randn(3, 4, 7, 7)
    expected = first(x), shortcut(x)
    step = unstride(first, shortcut)
    assert step == 2
    for convolution, before in zip((first, shortcut), expected, strict=True):
        torch.testing.assert_close(convolution(every(step, x)), before)


def test_a_stage_that_strides_elsewhere_keeps_its_stride() -> None:
    first, shortcut = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 8, 1, stride=2)
    assert unstride(first, shortcut) == 1
    assert shortcut.stride == (2, 2)
    x = torch.randn(3, 4, 7, 7)
    assert torch.equal(every(1, x), x)


@pytest.mark.parametrize(
    "variant",
    [
        Variant(),
        Variant(stride_in="3x3"),
        Variant(stem_pool="ceil", res5="dilated"),
    ],
)
def test_a_resnet_that_only_finds_gives_the_same(variant: Variant) -> None:
    config = replace(NETWORKS["resnet50_c4"], variant=variant)
    learning = lively(ResNetC4(config))
    finding = copy.deepcopy(learning)
    finding.fuse_for_inference()
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in finding.modules())
    images, pooled = torch.randn(1, 3, 50, 70), torch.rand(3, 1024, 14, 14)
    with torch.inference_mode():
        assert difference(learning(images)[0], finding(images)[0]) < 1e-4
        features = learning.region_features(pooled)
        assert difference(features, finding.region_features(pooled)) < 1e-4
        # The bound is one that another answer would miss.
        assert difference(features, learning.region_features(pooled.flip(0))) > 1e-2


def test_a_feature_pyramid_that_only_finds_gives_the_same() -> None:
    learning = lively(ResNetFPN(NETWORKS["resnet50_fpn"]))
    finding = copy.deepcopy(learning)
    finding.fuse_for_inference()
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in finding.modules())
    images = torch.randn(1, 3, 50, 70)
    with torch.inference_mode():
        maps = learning(images)
        for before, after in zip(maps, finding(images), strict=True):
            assert difference(before, after) < 1e-4
        # The bound is one that another answer would miss.
        assert difference(maps[0], learning(images.flip(1))[0]) > 1e-2


def test_the_small_network_is_left_as_it_is() -> None:
    backbone = SmallBackbone(SMALL)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    backbone.fuse_for_inference()
    after = backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
