"""Layers of the detectors: image -> feature maps, and pooled region -> feature vector.

Batch norms that no longer learn are fused with the convolutions before them, to find faster: a
frozen norm is a factor and an offset for each channel, and inside the convolution they cost no pass
over a map of their own. The results differ by rounding (1e-6 of the largest feature).

B images, P regions, F feature size, H height and W width of the image.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models import resnet
from torchvision.ops import FrozenBatchNorm2d

from semvlp.extract.networks import FPN_SUFFIX, PLAIN, NetworkConfig


class Backbone(nn.Module):
    """Both halves of a network around the pooling of regions."""

    strides: tuple[int, ...]
    """Strides of the feature maps, finest first."""
    region_maps = 1
    """Number of them, from the finest on, from which regions are pooled."""
    channels: int
    """Channels of each feature map."""
    memory_format = torch.contiguous_format
    """Layout of its weights where it no longer learns."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map [B, 3, H, W] to [B, channels, ceil(H / stride), ceil(W / stride)] for each stride."""
        raise NotImplementedError

    def region_features(self, pooled: Tensor) -> Tensor:
        """Map [P, channels, pool_size, pool_size] to [P, F], never negative."""
        raise NotImplementedError

    def fuse_for_inference(self) -> None:
        """Make the layers faster, now that they will learn no more."""


class SmallBackbone(Backbone):
    """A feature pyramid for small drawings: objects of 10 pixels and up, fast on one CPU core.

    Group norm instead of batch norm, so that an image's features never depend on other images, in
    training neither.
    """

    strides = (4,)
    channels = 64

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.stem = nn.Sequential(_layer(3, 24, stride=2), _layer(24, 48, stride=2), Residual(48))
        self.stage8 = nn.Sequential(_layer(48, 64, stride=2), Residual(64))
        self.stage16 = nn.Sequential(_layer(64, 64, stride=2), Residual(64))
        self.lateral4 = nn.Conv2d(48, self.channels, 1)
        self.lateral8 = nn.Conv2d(64, self.channels, 1)
        self.region_conv = nn.Conv2d(self.channels, 64, 3, stride=2, padding=1)
        side = (config.pool_size + 1) // 2
        self.region_fc = nn.Linear(64 * side * side, config.feature_size)

    def forward(self, images: Tensor) -> list[Tensor]:
        at4 = self.stem(images)
        at8 = self.stage8(at4)
        at16 = self.stage16(at8)
        at8 = self.lateral8(at8) + _upsampled(at16, at8)
        return [self.lateral4(at4) + _upsampled(at8, at4)]

    def region_features(self, pooled: Tensor) -> Tensor:
        hidden = self.region_conv(pooled).relu()
        return self.region_fc(hidden.flatten(1)).relu()  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Two convolutions around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _layer(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.GroupNorm(8, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.second(self.first(x))).relu()  # type: ignore[no-any-return]


class ResNetBackbone(Backbone):
    """torchvision's ResNets as detectron2 has them (detectron2/modeling/backbone/resnet.py).

    Frozen batch norm, strides where the variant has them.
    """

    memory_format = torch.channels_last

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        net = _resnet(config.backbone.removesuffix(FPN_SUFFIX))
        variant = config.variant or PLAIN
        if variant.stride_in == "1x1":
            for stage in (net.layer2, net.layer3, net.layer4):
                stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
        if variant.res5 == "dilated":
            # torchvision would leave the first block undilated.
            first = net.layer4[0]
            first.conv1.stride = first.conv2.stride = first.downsample[0].stride = (1, 1)
            for block in net.layer4:
                block.conv2.dilation = block.conv2.padding = (2, 2)
        self.stem_pool = variant.stem_pool
        self.conv1, self.bn1 = net.conv1, net.bn1
        self.layer1, self.layer2 = net.layer1, net.layer2
        self.layer3, self.layer4 = net.layer3, net.layer4
        self._scale_random_weights()

    def stem(self, images: Tensor) -> Tensor:
        """Map [B, 3, H, W] to [B, 64, ceil(H / 4), ceil(W / 4)]."""
        x = self.bn1(self.conv1(images)).relu()
        if self.stem_pool == "ceil":
            return F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)

    def fuse_for_inference(self) -> None:
        fuse_conv_bn(self.conv1, self.bn1)
        self.bn1 = nn.Identity()
        for module in list(self.modules()):
            if isinstance(module, resnet.Bottleneck):
                _fuse_block(module)

    def _scale_random_weights(self) -> None:
        """Keep random weights in range, which batch norm does not do while it is frozen."""
        self.bn1.weight.fill_(1 / 64)
        for module in self.modules():
            if isinstance(module, resnet.Bottleneck):
                module.bn3.weight.fill_(0.2)


class ResNetC4(ResNetBackbone):
    """ResNet stages 1 to 3 as backbone, stage 4 on each region, its mean as the feature.

    As in detectron2's C4 networks (detectron2/modeling/roi_heads/roi_heads.py).
    """

    strides = (16,)
    channels = 1024
    region_step = 0
    """Step between the pooled cells the region stage sees, once `fuse_for_inference` took its
    stride out; 0 before."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.layer3(self.layer2(self.layer1(self.stem(images))))]

    def region_features(self, pooled: Tensor) -> Tensor:
        if self.region_step:
            pooled = every(self.region_step, pooled)
        return self.layer4(pooled).mean(dim=(2, 3))  # type: ignore[no-any-return]

    def fuse_for_inference(self) -> None:
        super().fuse_for_inference()
        self.region_step = unstride(self.layer4[0].conv1, self.layer4[0].downsample[0])


@torch.no_grad()
def fuse_conv_bn(convolution: nn.Conv2d, norm: Any) -> None:
    """Make `convolution` do what the batch norm `norm` does after it."""
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )


def unstride(first: nn.Conv2d, shortcut: nn.Conv2d) -> int:
    """Take the stride out of the 1x1 convolutions a stage begins with, and return it.

    The stage then wants its input with that step: three of four pooled cells are never looked at.
    """
    if first.kernel_size != (1, 1) or first.stride != shortcut.stride:
        return 1
    step = first.stride[0]
    first.stride = shortcut.stride = (1, 1)
    return step


def every(step: int, maps: Tensor) -> Tensor:
    """Take every `step`-th cell: [P, C, H, W] -> [P, C, H / step, W / step], channels innermost."""
    return maps[:, :, ::step, ::step].contiguous(memory_format=torch.channels_last)


def _resnet(name: str) -> resnet.ResNet:
    if name == "resnext152":
        return resnet.ResNet(
            resnet.Bottleneck,
            [3, 8, 36, 3],
            groups=32,
            width_per_group=8,
            norm_layer=FrozenBatchNorm2d,
        )
    if name == "resnext101":
        return resnet.resnext101_32x8d(weights=None, norm_layer=FrozenBatchNorm2d)
    return getattr(resnet, name)(weights=None, norm_layer=FrozenBatchNorm2d)


def _fuse_block(block: resnet.Bottleneck) -> None:
    for number in (1, 2, 3):
        fuse_conv_bn(getattr(block, f"conv{number}"), getattr(block, f"bn{number}"))
        setattr(block, f"bn{number}", nn.Identity())
    if block.downsample is not None:
        fuse_conv_bn(*block.downsample)
        block.downsample = block.downsample[:1]


def _layer(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(8, channels_out),
        nn.ReLU(),
    )


def _upsampled(coarse: Tensor, fine: Tensor) -> Tensor:
    return F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
