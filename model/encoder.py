"""The shared stack of blocks: single-stream and two-stream are two ways to cut the same row.

L rows of the packed row, D width; N pairs, T tokens and R regions of all of them.
"""

from typing import cast, get_args

import torch
from torch import Tensor, nn

from semvlp.model.attention import network_path
from semvlp.model.block import Block
from semvlp.model.config import SemVLPConfig
from semvlp.model.packing import Mode, PackedBatch, to_device
from semvlp.model.segments import (
    AttentionLayout,
    AttentionPath,
    Segments,
    TwoWayCuts,
    cut,
    two_way_cuts,
)
from semvlp.model.two_stream_cache import CachedPairs


class Encoder(nn.Module):
    """Blocks of which the upper `cross_layers` have a socket for cross-attention."""

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.config = config
        self.num_lower = config.num_hidden_layers - config.cross_layers
        self.blocks = nn.ModuleList(
            Block(config, cross=index >= self.num_lower)
            for index in range(config.num_hidden_layers)
        )

    def forward(
        self, hidden: Tensor, batch: PackedBatch, mode: Mode, rows: Tensor | None = None
    ) -> Tensor:
        """The packed row [L, D] of `batch` through all blocks; only `rows` [M] where given."""
        path = self._path(hidden)
        self_cuts = self_attention_cuts(batch, mode, path)
        cross_cuts = self._cross_cuts(*_modalities(batch), hidden, path) if mode == "two" else None
        *lower, last = self.blocks
        for block in lower:
            hidden = block(hidden, self_cuts, cross_cuts)
        hidden = last(hidden, self_cuts, cross_cuts, rows)
        return hidden

    def lower(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """The two-stream pass [L, D] to [L, D] as far as no text has seen an image.

        That is up to the first cross-attention, the self-attention before it included.
        """
        cuts = self_attention_cuts(batch, "two", self._path(hidden))
        for block in self._all()[: self.num_lower]:
            hidden = block(hidden, cuts, None)
        for block in self._all()[self.num_lower : self.num_lower + 1]:
            hidden = block.self_attend(hidden, cuts)
        return hidden

    def upper(self, pairs: CachedPairs) -> Tensor:
        """The rest of the two-stream pass, for the first token of each pair alone: [N, D].

        What a text or an image brings along to the first cross-attention is computed once for all
        its pairs. Of the last block only what the first tokens need is computed.
        """
        blocks, path = self._all()[self.num_lower :], self._path(pairs.kept)
        if not blocks:
            return pairs.first_tokens()
        if len(blocks) == 1:
            return _first_tokens(blocks[0], pairs.rows(), pairs, path, met=False)
        words, things = pairs.words, pairs.things
        self_attend = cut([(words, words), (things, things)], pairs.kept.device, path)
        cross_attend = self._cross_cuts(words, things, pairs.kept, path)
        row = _meet(blocks[0], pairs, cross_attend, path)
        for block in blocks[1:-1]:
            row = block(row, self_attend, cross_attend)
        return _first_tokens(blocks[-1], row, pairs, path, met=True)

    def _cross_cuts(
        self, text: Segments, regions: Segments, rows: Tensor, path: AttentionPath
    ) -> AttentionLayout | TwoWayCuts:
        """The text of a pair sees its regions, its regions see the text."""
        if self.config.cross_attention == "separate":
            return two_way_cuts(text, regions, rows.device, path)
        return cut([(text, regions), (regions, text)], rows.device, path)

    def _path(self, rows: Tensor) -> AttentionPath:
        return network_path(self.config, rows, training=self.training)

    def _all(self) -> list[Block]:
        return [cast(Block, block) for block in self.blocks]


def _meet(
    block: Block,
    pairs: CachedPairs,
    cross_attend: AttentionLayout | TwoWayCuts,
    path: AttentionPath,
) -> Tensor:
    """The block of the first cross-attention, whose self-attention is in the lower half: [L, D].

    With shared weights the queries and keys of a kept row serve all its pairs.
    """
    if isinstance(cross_attend, TwoWayCuts):
        return block.apply_feed_forward(block.cross_attend(pairs.rows(), cross_attend))
    both = [(pairs.words, pairs.seen), (pairs.things, pairs.told)]
    cuts = cut(both, pairs.kept.device, path)
    return block.apply_feed_forward(block.cross_attend(pairs.kept, cuts, places=pairs.places()))


def _first_tokens(
    block: Block, row: Tensor, pairs: CachedPairs, path: AttentionPath, *, met: bool
) -> Tensor:
    """The last block [L, D] to [N, D]: first tokens attend to their texts and to their regions.

    `met` is False where the row comes from the lower half and has its self-attention behind it.
    """
    words, things = pairs.words, pairs.things
    num_tokens = int(words.lengths.sum())
    tokens = Segments(torch.arange(len(words.lengths)), torch.ones_like(words.lengths))
    regions = Segments(things.starts - num_tokens, things.lengths)
    first, seen = row.index_select(0, to_device(words.starts, row.device)), row[num_tokens:]
    if met:
        first = block.self_attend(first, cut([(tokens, words)], row.device, path), row)
        seen = block.self_attend(seen, cut([(regions, regions)], row.device, path))
    return block.apply_feed_forward(
        block.cross_attend(first, cut([(tokens, regions)], row.device, path), seen)
    )


def self_attention_cuts(
    batch: PackedBatch, mode: Mode, path: AttentionPath = "sdpa"
) -> AttentionLayout:
    """Single: text and regions of a pair see each other. Two: each modality sees itself.

    Raises:
        ValueError: another mode.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
    if mode == "single":
        pairs = Segments(batch.text_starts, batch.lengths)
        return cut([(pairs, pairs)], batch.device, path)
    text, regions = _modalities(batch)
    return cut([(text, text), (regions, regions)], batch.device, path)


def _modalities(batch: PackedBatch) -> tuple[Segments, Segments]:
    return (
        Segments(batch.text_starts, batch.text_lengths),
        Segments(batch.region_starts, batch.region_lengths),
    )
