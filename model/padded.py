"""Padded inputs, as Hugging Face has them, to a PackedBatch.

B examples of I images, N = B I pairs, T tokens of the longest text, R regions of the image that
has most, F feature size. Masks say 1 or True where something is, 0 where padding is.
"""

from collections.abc import Sequence
from typing import TypedDict

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from semvlp.model.packing import PackedBatch, PairRegions, pack, to_padded
from semvlp.shapes import shapes


class PaddedInputs(TypedDict):
    """What a model is called with, by keyword; `labels` come beside it."""

    input_ids: Tensor
    """[B, T] int64"""
    attention_mask: Tensor
    """[B, T] int64"""
    region_features: Tensor
    """[B, R, F] float16 or float32, [B, I, R, F] where an example has several images."""
    region_boxes: Tensor
    """[B, R, 4] or [B, I, R, 4] float32, xyxy as fractions of width and height, 0..1."""
    region_attention_mask: Tensor
    """[B, R] or [B, I, R] int64"""


def pad(
    texts: Sequence[Sequence[int]], regions: Sequence[PairRegions], *, images: int = 1
) -> PaddedInputs:
    """Pad B texts and the regions of their B I images, those of an example side by side.

    Raises:
        ValueError: as `pack`.
    """
    batch = pack([ids for ids in texts for _ in range(images)], regions)
    ids, text_mask = to_padded(batch.input_ids, batch.text_lengths)
    features, region_mask = to_padded(batch.region_features, batch.region_lengths)
    boxes, _ = to_padded(batch.region_boxes, batch.region_lengths)
    # [N, ...] to [B, I, ...]
    features, boxes, region_mask = (
        values.view(-1, images, *values.shape[1:]) if images > 1 else values
        for values in (features, boxes, region_mask)
    )
    return PaddedInputs(
        input_ids=ids[::images],
        attention_mask=text_mask[::images].long(),
        region_features=features,
        region_boxes=boxes,
        region_attention_mask=region_mask.long(),
    )


@shapes
def pack_padded(
    input_ids: Int[Tensor, "B T"] | None,
    attention_mask: Shaped[Tensor, "B T"] | None,
    region_features: Float[Tensor, "B *I R F"] | None,
    region_boxes: Float[Tensor, "B *I R 4"] | None,
    region_attention_mask: Shaped[Tensor, "B *I R"] | None,
) -> PackedBatch:
    """Pack inputs as `PaddedInputs` has them; a mask that is missing says that nothing is padding.

    Raises:
        ValueError: ids, features or boxes are missing, or tensors do not fit together.
    """
    if input_ids is None or region_features is None or region_boxes is None:
        raise ValueError(
            "a model takes a PackedBatch, or input_ids, region_features and region_boxes as the "
            "processor of its checkpoint makes them"
        )
    region_mask = _real(region_attention_mask, region_features.shape[:-1], region_features.device)
    images = region_mask.shape[1] if region_mask.ndim == 3 else 1
    text_mask = _real(attention_mask, input_ids.shape, input_ids.device)
    text_mask = text_mask.repeat_interleave(images, dim=0)  # [N, T]
    return PackedBatch(
        input_ids=input_ids.repeat_interleave(images, dim=0)[text_mask],
        region_features=region_features[region_mask],
        region_boxes=region_boxes[region_mask],
        text_lengths=text_mask.sum(1),
        region_lengths=region_mask.sum(-1).flatten(),
    )


def _real(mask: Tensor | None, shape: torch.Size, device: torch.device) -> Tensor:
    return torch.ones(shape, dtype=torch.bool, device=device) if mask is None else mask.bool()
