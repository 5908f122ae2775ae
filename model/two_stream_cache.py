"""What is kept between the halves of a two-stream pass, and the pairs that are made of it.

N pairs, T rows of all texts, R rows of all images, L rows of all pairs, D width.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from semvlp.model.packing import row_indices, starts_of, to_device
from semvlp.model.segments import Segments


class LowerStates(NamedTuple):
    """Texts or images in a two-stream pass as far as they have not met."""

    rows: Tensor
    """[T, D] or [R, D]: those of the first, then of the second, ..."""
    lengths: Tensor
    """int64, how many rows each has, on the CPU."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CachedPairs:
    """N pairs of a text and an image, any of which may be part of several."""

    kept: Tensor
    """[T + R, D], all texts before all images."""
    told: Segments
    """The text of each pair among the kept rows."""
    seen: Segments
    """Its regions, likewise."""
    words: Segments
    """The text of each pair where all have rows of their own, texts before regions."""
    things: Segments
    """Its regions, likewise."""

    @classmethod
    def of(
        cls,
        text: LowerStates,
        regions: LowerStates,
        texts: Tensor | None = None,
        images: Tensor | None = None,
    ) -> Self:
        """Pair text `texts[i]` with image `images[i]`, both [N] int64 on the CPU.

        Without them the first text goes with the first image, and so on.
        """
        told = _taken(Segments(starts_of(text.lengths), text.lengths), texts)
        first = len(text.rows) + starts_of(regions.lengths)
        seen = _taken(Segments(first, regions.lengths), images)
        return cls(
            kept=torch.cat([text.rows, regions.rows]),
            told=told,
            seen=seen,
            words=Segments(starts_of(told.lengths), told.lengths),
            things=Segments(told.lengths.sum() + starts_of(seen.lengths), seen.lengths),
        )

    def places(self) -> Tensor:
        """[L] the kept row that each row of the pairs is."""
        texts, images = (
            row_indices(pieces.starts, pieces.lengths) for pieces in (self.told, self.seen)
        )
        return to_device(torch.cat([texts, images]), self.kept.device)

    def rows(self) -> Tensor:
        """[L, D] with rows for each pair."""
        return self.kept.index_select(0, self.places())

    def first_tokens(self) -> Tensor:
        """[N, D] of each pair's text."""
        return self.kept.index_select(0, to_device(self.told.starts, self.kept.device))


def _taken(segments: Segments, index: Tensor | None) -> Segments:
    return segments if index is None else segments.take(index)
