"""The shared stack of blocks: single-stream and two-stream divide the same row into other segments.

L rows of the packed row, M of them that are asked for, D width; N pairs, T tokens and R regions of
all of them.
"""

from typing import cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from semvlp.model.config import SemVLPConfig
from semvlp.model.layers.attention import network_path
from semvlp.model.layers.block import Block
from semvlp.model.layers.segments import (
    AttentionLayout,
    AttentionPath,
    Segments,
    TwoWayLayout,
    attention_layout,
    two_way_layout,
)
from semvlp.model.layers.two_stream_cache import CachedPairs
from semvlp.model.packing import Mode, PackedBatch, to_device
from semvlp.shapes import shapes


class Encoder(nn.Module):
    """Blocks of which the upper `cross_layers` have a cross-attention slot."""

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.config = config
        self.num_lower = config.num_hidden_layers - config.cross_layers
        self.blocks = nn.ModuleList(
            Block(config, cross=index >= self.num_lower)
            for index in range(config.num_hidden_layers)
        )

    @shapes
    def forward(
        self,
        hidden: Float[Tensor, "L D"],
        batch: PackedBatch,
        mode: Mode,
        rows: Int[Tensor, "M"] | None = None,
    ) -> Float[Tensor, "_ D"]:
        """Pass the packed row [L, D] of `batch` through all blocks; return its `rows` [M], or all.

        Raises:
            ValueError: an unknown mode.
        """
        path = self._path(hidden)
        self_layout = self_attention_layout(batch, mode, path)
        cross_layout = (
            self._cross_layout(*_modalities(batch), hidden, path) if mode == "two" else None
        )
        *lower, last = self.blocks
        for block in lower:
            hidden = block(hidden, self_layout, cross_layout)
        hidden = last(hidden, self_layout, cross_layout, rows)
        return hidden

    @shapes
    def lower(self, hidden: Float[Tensor, "L D"], batch: PackedBatch) -> Float[Tensor, "L D"]:
        """Compute the part of the two-stream pass, [L, D] to [L, D], before any cross-attention.

        It ends with the self-attention of the first block that has a cross-attention slot, so no
        text depends on an image yet, nor an image on a text.
        """
        layout = self_attention_layout(batch, "two", self._path(hidden))
        blocks = self.all_blocks()
        for block in blocks[: self.num_lower]:
            hidden = block(hidden, layout, None)
        for block in blocks[self.num_lower : self.num_lower + 1]:
            hidden = block.self_attend(hidden, layout)
        return hidden

    @shapes
    def upper(self, pairs: CachedPairs) -> Float[Tensor, "N D"]:
        """Compute the rest of the two-stream pass, for the first token of each pair alone: [N, D].

        What a text or an image brings along to the first cross-attention is computed once for all
        its pairs. Of the last block only what the first tokens need is computed.
        """
        blocks, path = self.all_blocks()[self.num_lower :], self._path(pairs.cached_rows)
        device = pairs.cached_rows.device
        if not blocks:
            return pairs.first_tokens()
        if len(blocks) == 1:
            return _first_tokens(blocks[0], pairs.rows(), pairs, path, self_attended=True)
        text, image = pairs.text, pairs.image
        self_layout = attention_layout([(text, text), (image, image)], device, path)
        cross_layout = self._cross_layout(text, image, pairs.cached_rows, path)
        row = _first_cross_block(blocks[0], pairs, cross_layout, path)
        for block in blocks[1:-1]:
            row = block(row, self_layout, cross_layout)
        return _first_tokens(blocks[-1], row, pairs, path, self_attended=False)

    def _cross_layout(
        self, text: Segments, regions: Segments, rows: Tensor, path: AttentionPath
    ) -> AttentionLayout | TwoWayLayout:
        """Let the text of a pair attend to its regions, and its regions to the text."""
        if self.config.cross_attention == "separate":
            return two_way_layout(text, regions, rows.device, path)
        return attention_layout([(text, regions), (regions, text)], rows.device, path)

    def _path(self, rows: Tensor) -> AttentionPath:
        return network_path(self.config, rows, training=self.training)

    def all_blocks(self) -> list[Block]:
        """Return the blocks, lowest first."""
        return [cast(Block, block) for block in self.blocks]


def _first_cross_block(
    block: Block,
    pairs: CachedPairs,
    cross_layout: AttentionLayout | TwoWayLayout,
    path: AttentionPath,
) -> Tensor:
    """Compute the block of the first cross-attention, whose self-attention is cached: [L, D].

    With shared weights the queries and keys of a cached row serve all its pairs.
    """
    if isinstance(cross_layout, TwoWayLayout):
        return block.apply_feed_forward(block.cross_attend(pairs.rows(), cross_layout))
    both = [(pairs.text, pairs.cached_image), (pairs.image, pairs.cached_text)]
    layout = attention_layout(both, pairs.cached_rows.device, path)
    return block.apply_feed_forward(
        block.cross_attend(pairs.cached_rows, layout, indices=pairs.indices())
    )


def _first_tokens(
    block: Block, row: Tensor, pairs: CachedPairs, path: AttentionPath, *, self_attended: bool
) -> Tensor:
    """Compute the last block, [L, D] to [N, D]: first tokens attend to their texts and regions.

    `self_attended` is True where the row comes from the cache, after the self-attention of this
    block.
    """
    text, image, device = pairs.text, pairs.image, row.device
    num_tokens = int(text.lengths.sum())
    tokens = Segments(torch.arange(len(text.lengths)), torch.ones_like(text.lengths))
    regions = Segments(image.starts - num_tokens, image.lengths)
    first = row.index_select(0, to_device(text.starts, device))
    region_rows = row[num_tokens:]
    if not self_attended:
        first = block.self_attend(first, attention_layout([(tokens, text)], device, path), row)
        region_rows = block.self_attend(
            region_rows, attention_layout([(regions, regions)], device, path)
        )
    first = block.cross_attend(
        first, attention_layout([(tokens, regions)], device, path), region_rows
    )
    return block.apply_feed_forward(first)


def self_attention_layout(
    batch: PackedBatch, mode: Mode, path: AttentionPath = "sdpa"
) -> AttentionLayout:
    """Let text and regions of a pair attend to each other (single), or each to itself (two).

    Raises:
        ValueError: another mode.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
    if mode == "single":
        pairs = Segments(batch.text_starts, batch.lengths)
        return attention_layout([(pairs, pairs)], batch.device, path)
    text, regions = _modalities(batch)
    return attention_layout([(text, text), (regions, regions)], batch.device, path)


def _modalities(batch: PackedBatch) -> tuple[Segments, Segments]:
    return (
        Segments(batch.text_starts, batch.text_lengths),
        Segments(batch.region_starts, batch.region_lengths),
    )
