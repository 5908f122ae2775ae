"""Feature pyramids (Lin et al. 2017) as detectron2's model zoo has them, and pooling.

detectron2/modeling/backbone/fpn.py, poolers.py and roi_heads/box_head.py. B images, P regions,
F feature size, H and W height and width of the image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork, box_area, roi_align, roi_pool
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from semvlp.extract.detectors.on_torchvision.backbones import ResNetBackbone
from semvlp.extract.networks import PLAIN, NetworkConfig

_STAGE_CHANNELS = [256, 512, 1024, 2048]
# Side of a region that is pooled from the map of stride 2 ** 4, as in ImageNet training.
_CANONICAL_SIDE, _CANONICAL_LEVEL = 224, 4


class ResNetFPN(ResNetBackbone):
    """All four ResNet stages under a feature pyramid; two hidden layers on each region."""

    strides = (4, 8, 16, 32, 64)
    region_maps = 4
    channels = 256

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.fpn = FeaturePyramidNetwork(_STAGE_CHANNELS, self.channels, LastLevelMaxPool())
        self.head = TwoMLPHead(self.channels * config.pool_size**2, config.feature_size)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map [B, 3, H, W] to a map for each stride, padded below and right by what is 0 to it."""
        height, width = images.shape[-2:]
        coarsest = self.strides[self.region_maps - 1]
        x = self.stem(F.pad(images, (0, -width % coarsest, 0, -height % coarsest)))
        stages = {}
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = stages[name] = getattr(self, name)(x)
        return list(self.fpn(stages).values())

    def region_features(self, pooled: Tensor) -> Tensor:
        return self.head(pooled)  # type: ignore[no-any-return]


def pool_regions(
    maps: Sequence[Tensor], rows: Tensor, strides: tuple[int, ...], config: NetworkConfig
) -> Tensor:
    """Pool each region from the map that suits its size.

    Args:
        maps: [B, channels, h, w] for each of `strides`, finest first.
        rows: [P, 5] the number of an image, and a box in it.
        strides: pixels of the image between two cells of each map.
        config: the network's.

    Returns:
        [P, channels, pool_size, pool_size].
    """
    if len(maps) == 1:
        return _pool(maps[0], rows, strides[0], config)
    levels = levels_of(rows[:, 1:], strides)
    pooled = maps[0].new_zeros(len(rows), maps[0].shape[1], config.pool_size, config.pool_size)
    for level, (each, stride) in enumerate(zip(maps, strides, strict=True)):
        at = torch.where(levels == level)[0]
        pooled[at] = _pool(each, rows[at], stride, config).to(pooled.dtype)
    return pooled


def levels_of(boxes: Tensor, strides: tuple[int, ...]) -> Tensor:
    """Return for each of the boxes [P, 4] the index in `strides` of the map it is pooled from.

    As detectron2's `assign_boxes_to_levels`; torchvision's `LevelMapper` rounds elsewhere, and
    would send the boxes of exactly a level's side to another map.
    """
    finest, coarsest = (stride.bit_length() - 1 for stride in (strides[0], strides[-1]))
    side = box_area(boxes).sqrt()
    level = torch.floor(_CANONICAL_LEVEL + torch.log2(side / _CANONICAL_SIDE + 1e-8))
    return level.clamp(finest, coarsest).long() - finest


def _pool(features: Tensor, rows: Tensor, stride: int, config: NetworkConfig) -> Tensor:
    pooling, size = (config.variant or PLAIN).pooling, config.pool_size
    if pooling == "roi_pool":
        return roi_pool(features, rows, size, 1 / stride)  # type: ignore[no-any-return]
    return roi_align(  # type: ignore[no-any-return]
        features,
        rows,
        size,
        1 / stride,
        config.pool_sampling,
        aligned=pooling == "roi_align_v2",
    )
