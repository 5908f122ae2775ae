"""A row for the whole image before the regions of each pair.

N pairs, R regions of all pairs, F feature size.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from semvlp.model.packing import PackedBatch, starts_of, to_device
from semvlp.shapes import shapes


@shapes
def with_image_tokens(batch: PackedBatch) -> tuple[PackedBatch, Int[Tensor, "R"]]:
    """Put a row for the whole image before the regions of each pair.

    Its feature is the mean of the regions that are not masked, so it tells nothing of those that
    are; its box is the image.

    Returns:
        The larger batch, and [R] int64: the indices of the regions of `batch` in its regions.
    """
    counts, device = batch.region_lengths, batch.device
    pair = to_device(torch.arange(len(counts)).repeat_interleave(counts), device)  # [R]
    indices = torch.arange(len(pair), device=device) + pair + 1
    tokens = to_device(starts_of(counts) + torch.arange(len(counts)), device)  # [N]
    mask = batch.region_mask
    visible = torch.ones_like(pair, dtype=torch.bool) if mask is None else ~mask
    features = batch.region_features.float()
    means = _means(features, pair, visible, len(counts))  # [N, F]
    whole = batch.region_boxes.new_zeros(len(counts), 4)
    whole[:, 2:].fill_(1)

    def interleave(images: Tensor, regions: Tensor) -> Tensor:
        row = regions.new_empty(len(images) + len(regions), *regions.shape[1:])
        return row.index_copy(0, tokens, images).index_copy(0, indices, regions)

    larger = batch.replace(
        region_features=interleave(means, features),
        region_boxes=interleave(whole, batch.region_boxes),
        region_lengths=counts + 1,
        region_mask=None if mask is None else interleave(mask.new_zeros(len(counts)), mask),
    )
    return larger, indices


def _means(features: Tensor, pair: Tensor, visible: Tensor, num_pairs: int) -> Tensor:
    """Return the mean [N, F] of each pair's visible features [R, F]; zeros where none is."""
    weights = visible.to(features.dtype)  # [R]
    sums = features.new_zeros(num_pairs, features.shape[1])
    sums = sums.index_add(0, pair, features * weights[:, None])
    counts = features.new_zeros(num_pairs).index_add(0, pair, weights)
    return sums / counts.clamp(min=1)[:, None]
