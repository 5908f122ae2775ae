"""PackedBatch: the texts and regions of N pairs in one row, without padding.

N pairs, T text tokens of all pairs, R regions of all pairs, L = T + R, F feature size,
M rows of the longest pair.
The packed row is t1 r1 t2 r2 ...: the tokens of a pair, then its regions.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from semvlp.distributed import pins_memory
from semvlp.shapes import shapes

Mode = Literal["single", "two"]
"""Segments of the packed row: one a pair (single), or one a modality of a pair (two)."""

# features [R, F], boxes [R, 4] xyxy in pixels, width and height of the image in pixels
PairRegions = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]], int, int]

# Detectors clip boxes to the image they saw; rescaling to the original size adds this much.
BOX_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedBatch:
    """N pairs of a text and an image's regions.

    The lengths stay on the CPU whatever the device of the rest, so that laying out
    attention never waits for a GPU.

    Raises:
        ValueError: tensors that do not fit together.
    """

    input_ids: Tensor
    """[T] int64, the tokens of the first pair, then of the second, ..."""
    region_features: Tensor
    """[R, F] float16, as they are stored, or float32; the network computes in float32 from both."""
    region_boxes: Tensor
    """[R, 4] float32, xyxy as fractions of width and height, 0..1."""
    text_lengths: Tensor
    """[N] int64, at least 1: the first token of a pair is its [CLS]."""
    region_lengths: Tensor
    """[N] int64, may be 0."""
    region_mask: Tensor | None = None
    """[R] bool, True = hidden from the model: it sees zeros instead of the feature, and the learned
    mask embedding."""

    def __post_init__(self) -> None:
        for name in ("text_lengths", "region_lengths"):
            object.__setattr__(self, name, getattr(self, name).cpu())
        _check(self)

    @property
    def num_pairs(self) -> int:
        return len(self.text_lengths)

    @property
    def device(self) -> torch.device:
        return self.input_ids.device

    @cached_property
    def lengths(self) -> Tensor:
        """Return the tokens plus regions of each pair, [N] int64 on the CPU."""
        return self.text_lengths + self.region_lengths

    @cached_property
    def text_starts(self) -> Tensor:
        """Return the row of each pair's first token, [N] int64 on the CPU."""
        return starts_of(self.lengths)

    @cached_property
    def region_starts(self) -> Tensor:
        """Return the row of each pair's first region, [N] int64 on the CPU."""
        return self.text_starts + self.text_lengths

    @cached_property
    def text_positions(self) -> Tensor:
        """Return the position of each token in its own text, from 0, [T] int64."""
        return to_device(_count_up(self.text_lengths), self.device)

    @cached_property
    def first_tokens(self) -> Tensor:
        """Return the index of each pair's [CLS] in `input_ids`, [N] int64."""
        return to_device(starts_of(self.text_lengths), self.device)

    @cached_property
    def text_rows(self) -> Tensor:
        """Return the row of each token in the packed row, [T] int64."""
        return to_device(row_indices(self.text_starts, self.text_lengths), self.device)

    @cached_property
    def region_rows(self) -> Tensor:
        """Return the row of each region in the packed row, [R] int64."""
        return to_device(row_indices(self.region_starts, self.region_lengths), self.device)

    @cached_property
    def row_sources(self) -> Tensor:
        """Return the index of each row in all tokens followed by all regions, [L] int64."""
        rows = torch.cat([self.text_rows, self.region_rows])
        return torch.empty_like(rows).index_copy_(
            0, rows, torch.arange(len(rows), device=rows.device)
        )

    def to(self, device: torch.device | str) -> Self:
        """Return the batch with its contents on `device`; the lengths stay on the CPU."""
        contents = ("input_ids", "region_features", "region_boxes", "region_mask")
        values = {name: getattr(self, name) for name in contents}
        return self.replace(
            **{
                name: to_device(value, device)
                for name, value in values.items()
                if value is not None
            }
        )

    def replace(self, **fields: Any) -> Self:
        """Return the batch with some fields replaced."""
        return dataclasses.replace(self, **fields)


def pack(texts: Sequence[Sequence[int]], regions: Sequence[PairRegions]) -> PackedBatch:
    """Pack pairs: token ids with [CLS] first, and (features, boxes in pixels, width, height).

    Features of float16 stay as they are, others become float32; a pair may have no regions
    (features of shape [0, F]).

    Raises:
        ValueError: other numbers of texts and images, an empty text, arrays of another shape, or
            a box outside its image.
    """
    if not texts or len(texts) != len(regions):
        raise ValueError(
            f"texts and regions must be as many and at least one, got {len(texts)} and "
            f"{len(regions)}"
        )
    boxes = [_fractions(index, *pair) for index, pair in enumerate(regions)]
    features = np.concatenate([np.asarray(pair[0]) for pair in regions])
    if features.dtype != np.float16:
        features = features.astype(np.float32, copy=False)
    return PackedBatch(
        input_ids=torch.tensor([token for text in texts for token in text], dtype=torch.int64),
        region_features=torch.from_numpy(features),
        region_boxes=torch.from_numpy(np.concatenate(boxes)),
        text_lengths=torch.tensor([len(text) for text in texts], dtype=torch.int64),
        region_lengths=torch.tensor([len(pair[0]) for pair in regions], dtype=torch.int64),
    )


@shapes
def to_padded(
    values: Shaped[Tensor, "T *S"], lengths: Int[Tensor, "N"]
) -> tuple[Shaped[Tensor, "N M *S"], Bool[Tensor, "N M"]]:
    """Split [T, ...] by `lengths` [N]: zero-padded [N, M, ...] and a mask, True = no padding.

    With lengths on the CPU nothing waits for a GPU.
    """
    mask = _real(lengths)
    padded = values.new_zeros(mask.numel(), *values.shape[1:])
    padded = padded.index_copy(0, _true_indices(mask, values.device), values)
    return padded.view(*mask.shape, *values.shape[1:]), to_device(mask, values.device)


@shapes
def from_padded(
    padded: Shaped[Tensor, "N M *S"], lengths: Int[Tensor, "N"]
) -> Shaped[Tensor, "T *S"]:
    """Undo `to_padded`: [N, M, ...] to [T, ...]."""
    return padded.flatten(0, 1).index_select(0, _true_indices(_real(lengths), padded.device))


@shapes
def starts_of(lengths: Int[Tensor, "N"]) -> Int[Tensor, "N"]:
    """Return the first row [N] of each segment when they follow each other with these lengths."""
    return lengths.cumsum(0) - lengths


@shapes
def row_indices(starts: Int[Tensor, "N"], lengths: Int[Tensor, "N"]) -> Int[Tensor, "T"]:
    """Return the rows of these segments, one after another: s1 s1+1 .. s1+l1-1 s2 s2+1 ..."""
    return starts.repeat_interleave(lengths) + _count_up(lengths)


@shapes
def to_device(values: Shaped[Tensor, "*S"], device: torch.device | str) -> Shaped[Tensor, "*S"]:
    """Copy `values` to `device`, page-locked on the way, or copying would wait for all its work."""
    target = torch.device(device)
    pinned = pins_memory(target)
    if pinned and values.device.type == "cpu":
        # Of the caching allocator, which lends the memory to others only when the copy is done.
        values = values.pin_memory()
    return values.to(target, non_blocking=pinned)


def _real(lengths: Tensor) -> Tensor:
    longest = int(lengths.max()) if len(lengths) else 0
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def _true_indices(mask: Tensor, device: torch.device) -> Tensor:
    """Return the flat indices [T] int64 at which `mask` is True."""
    return to_device(mask.flatten().nonzero().squeeze(1), device)


def _count_up(lengths: Tensor) -> Tensor:
    """Count through each segment: 0 1 .. l1-1 0 1 .. l2-1 ..."""
    return torch.arange(int(lengths.sum())) - starts_of(lengths).repeat_interleave(lengths)


def _fractions(
    index: int,
    features: NDArray[np.floating[Any]],
    boxes: NDArray[np.floating[Any]],
    width: int,
    height: int,
) -> NDArray[np.float32]:
    """Turn boxes [R, 4], xyxy in pixels, into fractions of the image, 0..1."""
    if np.ndim(features) != 2 or np.shape(boxes) != (len(features), 4):
        raise ValueError(
            f"pair {index}: features must be [R, F] and boxes [R, 4], got {np.shape(features)} "
            f"and {np.shape(boxes)}"
        )
    if width <= 0 or height <= 0:
        raise ValueError(f"pair {index}: width and height must be positive, got {width}x{height}")
    size = np.array([width, height, width, height], np.float32)
    fractions = np.asarray(boxes, np.float32) / size
    outside = ~((fractions >= -BOX_TOLERANCE) & (fractions <= 1 + BOX_TOLERANCE)).all(axis=1)
    if outside.any():
        region = int(outside.argmax())
        raise ValueError(
            f"pair {index}: boxes must be xyxy in pixels within the {width}x{height} image, "
            f"got {np.asarray(boxes)[region].tolist()} for region {region}"
        )
    return fractions.clip(0.0, 1.0)


def _check(batch: PackedBatch) -> None:
    texts, regions = batch.text_lengths, batch.region_lengths
    num_regions = len(batch.region_features)
    if texts.ndim != 1 or texts.shape != regions.shape:
        raise ValueError(
            "text_lengths and region_lengths must be [N] for the same N pairs, got "
            f"{tuple(texts.shape)} and {tuple(regions.shape)}"
        )
    if len(texts) and int(texts.min()) < 1:
        empty = int(texts.argmin())
        raise ValueError(f"pair {empty}: a text must hold at least its [CLS] token, got none")
    if batch.input_ids.shape != (int(texts.sum()),):
        raise ValueError(
            f"input_ids must be [{int(texts.sum())}], the sum of text_lengths, got "
            f"{tuple(batch.input_ids.shape)}"
        )
    if batch.region_features.ndim != 2 or num_regions != int(regions.sum()):
        raise ValueError(
            f"region_features must be [{int(regions.sum())}, F], the sum of region_lengths, got "
            f"{tuple(batch.region_features.shape)}"
        )
    if batch.region_boxes.shape != (num_regions, 4):
        raise ValueError(
            f"region_boxes must be [{num_regions}, 4], got {tuple(batch.region_boxes.shape)}"
        )
    mask = batch.region_mask
    if mask is not None and (mask.shape != (num_regions,) or mask.dtype != torch.bool):
        raise ValueError(
            f"region_mask must be bool [{num_regions}], got {mask.dtype} {tuple(mask.shape)}"
        )
