"""The cached lower half of a two-stream pass, and the pairs that are made of it.

N pairs, T rows of all texts, R rows of all images, L rows of all pairs, D width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from semvlp.model.layers.segments import Segments
from semvlp.model.packing import row_indices, starts_of, to_device
from semvlp.shapes import shapes


class LowerStates(NamedTuple):
    """Hidden states of texts or of images before the first cross-attention."""

    rows: Tensor
    """[T, D] or [R, D]: those of the first, then of the second, ..."""
    lengths: Tensor
    """int64, how many rows each has, on the CPU."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CachedPairs:
    """N pairs of a text and an image, any of which may be part of several."""

    cached_rows: Tensor
    """[T + R, D], all texts before all images."""
    cached_text: Segments
    """The text of each pair among the cached rows."""
    cached_image: Segments
    """Its regions, likewise."""
    text: Segments
    """The text of each pair where all have rows of their own, texts before regions."""
    image: Segments
    """Its regions, likewise."""

    @classmethod
    @shapes
    def of(
        cls,
        text: LowerStates,
        regions: LowerStates,
        texts: Int[Tensor, "N"] | None = None,
        images: Int[Tensor, "N"] | None = None,
    ) -> "CachedPairs":
        """Pair text `texts[i]` with image `images[i]`, both [N] int64 on the CPU.

        Without them the first text goes with the first image, and so on.
        """
        cached_text = _take(Segments(starts_of(text.lengths), text.lengths), texts)
        starts = len(text.rows) + starts_of(regions.lengths)
        cached_image = _take(Segments(starts, regions.lengths), images)
        num_tokens = cached_text.lengths.sum()
        return cls(
            cached_rows=torch.cat([text.rows, regions.rows]),
            cached_text=cached_text,
            cached_image=cached_image,
            text=Segments(starts_of(cached_text.lengths), cached_text.lengths),
            image=Segments(num_tokens + starts_of(cached_image.lengths), cached_image.lengths),
        )

    @shapes
    def indices(self) -> Int[Tensor, "L"]:
        """Return the cached row [L] that each row of the pairs is."""
        texts, images = (
            row_indices(segments.starts, segments.lengths)
            for segments in (self.cached_text, self.cached_image)
        )
        return to_device(torch.cat([texts, images]), self.cached_rows.device)

    @shapes
    def rows(self) -> Float[Tensor, "L D"]:
        """Return [L, D], rows of its own for each pair."""
        return self.cached_rows.index_select(0, self.indices())

    @shapes
    def first_tokens(self) -> Float[Tensor, "N D"]:
        """Return the first row [N, D] of each pair's text."""
        starts = to_device(self.cached_text.starts, self.cached_rows.device)
        return self.cached_rows.index_select(0, starts)


def _take(segments: Segments, index: Tensor | None) -> Segments:
    return segments if index is None else segments.take(index)
