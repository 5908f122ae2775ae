"""Pooling of regions from feature maps, by the operation and at the size a network config names.

B images, P regions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align, roi_pool

from semvlp.extract.networks import PLAIN, NetworkConfig
from semvlp.extract.pyramid import levels_of


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
