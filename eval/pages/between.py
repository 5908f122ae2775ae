"""The attention between the words and the regions of one pair.

T tokens, W whole words, R regions, L = T + image tokens + R, N blocks, H heads, K head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from semvlp.eval.network import Network
from semvlp.eval.pages.attention import attended_blocks
from semvlp.eval.task import Pass
from semvlp.model.layers.attention import Attention
from semvlp.model.layers.attention_weights import Call, watched
from semvlp.model.layers.block import Block
from semvlp.model.packing import PairRegions


class Between(NamedTuple):
    """The attention between words and regions of one pair, mean over heads and blocks, or by them.

    In two-stream mode each row adds up to 1, less the attention that goes to an image token. In
    single-stream mode the attention to tokens or regions of the same kind is missing too.
    """

    to_regions: Tensor
    """[T, R] or [N, H, T, R] 0..1, from each token to each region."""
    to_words: Tensor
    """[R, T] or [N, H, R, T] 0..1, from each region to each token."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """The places of tokens, image tokens and regions in the rows of a pair."""

    num_tokens: int
    num_image_tokens: int
    num_regions: int

    @property
    def num_image_rows(self) -> int:
        return self.num_image_tokens + self.num_regions


def between(network: Network, text: Sequence[int], regions: PairRegions, mode: Pass) -> Between:
    """Return the attention [T, R] and [R, T] of one pair, mean over heads and blocks.

    See `between_by_head`.
    """
    return mean_of(between_by_head(network, text, regions, mode))


def mean_of(by_head: Between) -> Between:
    """Return the mean [T, R] and [R, T] over blocks and heads."""
    return Between(*(weights.mean((0, 1)) for weights in by_head))


def between_by_head(
    network: Network, text: Sequence[int], regions: PairRegions, mode: Pass
) -> Between:
    """Return the attention [N, H, T, R] and [N, H, R, T] between words and regions of one pair.

    It is that of the blocks `attended_blocks`. Single-stream: self-attention; two-stream:
    cross-attention, zeros where there is none.
    """
    config, upper = network.model.config, list(attended_blocks(network).values())
    rows = _Rows(len(text), config.num_image_tokens, len(regions[0]))
    # The pair head wants two pairs. A pair sees nothing of the other one.
    copies = 2 if config.task_head == "pair" else 1
    with network.inference(), watched(upper) as (within, across):
        network.logits([text] * copies, [regions] * copies, mode)
        if mode == "single":
            matrices = [_in_one_stream(call, rows) for call in within]
        else:
            matrices = [_between_two(*both, rows) for both in zip(upper, across, strict=False)]
    if not matrices:
        heads = len(upper), config.num_attention_heads
        empty = torch.zeros(*heads, rows.num_tokens, rows.num_regions)
        return Between(empty, empty.transpose(2, 3))
    return Between(*(torch.stack(same) for same in zip(*matrices, strict=True)))


def chosen(by_head: Between, block: int | None, head: int | None) -> Between:
    """Return the attention [T, R] and [R, T] of one block and head; the mean where none is named.

    Args:
        block: from 0, among those that are shown.
        head: from 0.
    """
    blocks = slice(None) if block is None else slice(block, block + 1)
    heads = slice(None) if head is None else slice(head, head + 1)
    return mean_of(Between(*(weights[blocks, heads] for weights in by_head)))


def by_words(attention: Between, words: Sequence[Sequence[int]]) -> Between:
    """Return the attention [W, R] and [R, W] between whole words and regions.

    A word gives what its pieces give on average, and gets what they get together.

    Args:
        attention: [T, R] and [R, T].
        words: the places of the pieces of each word.
    """
    belongs = torch.zeros(len(attention.to_regions), len(words))  # [T, W]
    for word, places in enumerate(words):
        belongs[list(places), word] = 1.0
    gives = (belongs / belongs.sum(0)).T  # [W, T]
    return Between(gives @ attention.to_regions, attention.to_words @ belongs)


def _in_one_stream(call: Call, rows: _Rows) -> Between:
    module, hidden, _ = call
    pair = hidden[: rows.num_tokens + rows.num_image_rows]
    weights = _weights(module, pair, pair)  # [H, L, L]
    first = rows.num_tokens + rows.num_image_tokens
    return Between(weights[:, : rows.num_tokens, first:], weights[:, first:, : rows.num_tokens])


def _between_two(block: Block, call: Call, rows: _Rows) -> Between:
    module, queries, keys = call
    other = block.region_cross_attention
    # With weights of its own each direction gets its keys alone, not as a part of the row.
    first = 0 if other is not None else rows.num_tokens
    text, image = queries[: rows.num_tokens], keys[first : first + rows.num_image_rows]
    to_image = _weights(module, text, image)
    to_words = _weights(other or module, image, text)
    images = rows.num_image_tokens
    return Between(to_image[:, :, images:], to_words[:, images:])


def _weights(module: Attention, queries: Tensor, keys: Tensor) -> Tensor:
    """Return the attention [H, queries, keys]."""
    if not len(queries) or not len(keys):
        return torch.zeros(module.num_heads, len(queries), len(keys))
    query = module.query(queries).view(len(queries), module.num_heads, -1).transpose(0, 1)
    key = module.key(keys).view(len(keys), module.num_heads, -1).transpose(0, 1)  # [H, S, K]
    logits = query @ key.transpose(1, 2) / query.shape[2] ** 0.5
    weights: Tensor = logits.float().softmax(2).cpu()
    return weights
