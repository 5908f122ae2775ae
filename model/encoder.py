"""The shared stack of blocks: single-stream and two-stream are two ways to cut the same row.

L rows of the packed row, D width.
"""

from typing import get_args

from torch import Tensor, nn

from semvlp.model.attention import Cuts, Segments
from semvlp.model.block import Block
from semvlp.model.config import SemVLPConfig
from semvlp.model.packing import Mode, PackedBatch


class Encoder(nn.Module):
    """Blocks of which the upper `cross_layers` have a socket for cross-attention."""

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        lower = config.num_hidden_layers - config.cross_layers
        self.blocks = nn.ModuleList(
            Block(config, cross=index >= lower) for index in range(config.num_hidden_layers)
        )

    def forward(self, hidden: Tensor, batch: PackedBatch, mode: Mode) -> Tensor:
        """The packed row [L, D] of `batch` through all blocks."""
        self_cuts = self_attention_cuts(batch, mode)
        cross_cuts = cross_attention_cuts(batch) if mode == "two" else None
        for block in self.blocks:
            hidden = block(hidden, self_cuts, cross_cuts)
        return hidden


def self_attention_cuts(batch: PackedBatch, mode: Mode) -> Cuts:
    """Single: text and regions of a pair see each other. Two: each modality sees itself.

    Raises:
        ValueError: another mode.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
    if mode == "single":
        pairs = Segments(batch.text_starts, batch.lengths)
        return Cuts.between([(pairs, pairs)], batch.device)
    text, regions = _modalities(batch)
    return Cuts.between([(text, text), (regions, regions)], batch.device)


def cross_attention_cuts(batch: PackedBatch) -> Cuts:
    """The text of a pair sees its regions, its regions see the text."""
    text, regions = _modalities(batch)
    return Cuts.between([(text, regions), (regions, text)], batch.device)


def _modalities(batch: PackedBatch) -> tuple[Segments, Segments]:
    return (
        Segments(batch.text_starts, batch.text_lengths),
        Segments(batch.region_starts, batch.region_lengths),
    )
