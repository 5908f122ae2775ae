"""The attention behind one prediction: weights of its first token over words and regions.

T tokens, R regions, L = T + R, H heads, K head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semvlp.eval.network import Network
from semvlp.eval.task import Pass
from semvlp.model.layers.attention import Attention
from semvlp.model.layers.attention_weights import Call, watched
from semvlp.model.layers.block import Block
from semvlp.model.packing import PairRegions


@dataclass(frozen=True, slots=True, eq=False)
class Attended:
    """Attention of the token that the head reads, mean over heads and blocks."""

    tokens: Tensor
    """[T] 0..1"""
    regions: Tensor
    """[R] 0..1"""


def attended(
    network: Network, text: Sequence[int], regions: PairRegions, modes: Sequence[Pass]
) -> Attended:
    """Return the attention of one pair, mean over the passes `modes`.

    It is that of the blocks `attended_blocks`. Single-stream: self-attention over words and
    regions, which add up to 1. Two-stream: self-attention over the words and cross-attention over
    the regions, 1 each.
    """
    passes = [_one_pass(network, text, regions, mode) for mode in modes]
    return Attended(
        torch.stack([tokens for tokens, _ in passes]).mean(0),
        torch.stack([weights for _, weights in passes]).mean(0),
    )


def attended_blocks(network: Network) -> dict[int, Block]:
    """Return the blocks whose attention is shown, by their numbers from 1.

    They are those that have a cross-attention slot, or the last one where none has.
    """
    encoder = network.model.semvlp.encoder
    blocks = [block for block in encoder.blocks if isinstance(block, Block)]
    first = encoder.num_lower if encoder.num_lower < len(blocks) else len(blocks) - 1
    return dict(enumerate(blocks[first:], start=first + 1))


def _one_pass(
    network: Network, text: Sequence[int], regions: PairRegions, mode: Pass
) -> tuple[Tensor, Tensor]:
    config, upper = network.model.config, list(attended_blocks(network).values())
    # The pair head wants two pairs. A pair sees nothing of the other one.
    copies = 2 if config.task_head == "pair" else 1
    with network.inference(), watched(upper) as (within, across):
        network.logits([text] * copies, [regions] * copies, mode)
        count, images = len(text), config.num_image_tokens
        image = slice(count, count + images + len(regions[0]))
        if mode == "single":
            weights = _mean(within, slice(0, image.stop))
            return weights[:count], weights[count + images :]
        if not across:
            return _mean(within, slice(0, count)), torch.zeros(len(regions[0]))
        # With weights of its own each direction gets its keys alone, not as a part of the row.
        alone = config.cross_attention == "separate"
        keys = slice(0, image.stop - count) if alone else image
        return _mean(within, slice(0, count)), _mean(across, keys)[images:]


def _mean(calls: Sequence[Call], seen: slice) -> Tensor:
    return torch.stack([_weights(*call, seen) for call in calls]).mean(0)


def _weights(module: Attention, queries: Tensor, keys: Tensor, seen: slice) -> Tensor:
    """Return the attention of row 0 of `queries` over rows `seen` of `keys`, mean over heads."""
    query = module.query(queries[:1]).view(module.num_heads, -1, 1)  # [H, K, 1]
    key = module.key(keys[seen]).view(-1, module.num_heads, query.shape[1]).transpose(0, 1)
    logits = (key @ query).squeeze(2) / query.shape[1] ** 0.5  # [H, L]
    weights: Tensor = logits.float().softmax(1).mean(0).cpu()
    return weights
