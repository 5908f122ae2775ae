"""The weights of attention, which its kernels do not give: computed beside them where asked for.

N pairs, T text tokens, R regions, L rows of the longest pair, H heads, K head width, D width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from semvlp.model.layers.attention import Attention
from semvlp.model.layers.block import Block
from semvlp.model.packing import Mode, PackedBatch, to_padded
from semvlp.shapes import shapes

Call = tuple[Attention, Tensor, Tensor]
"""A module, the rows its queries come from, and those of its keys."""


@contextmanager
def watched(blocks: Sequence[Block]) -> Iterator[tuple[Sequence[Call], Sequence[Call]]]:
    """Record what self-attention and cross-attention of some blocks are called with, inside."""
    within: list[Call] = []
    across: list[Call] = []
    handles: list[RemovableHandle] = []
    for block in blocks:
        tied = block.cross_attention is None
        # A tied module is called for its block's cross-attention after the self-attention.
        hook = _recorder([within, across] if tied else [within])
        handles.append(block.self_attention.register_forward_pre_hook(hook))
        if block.cross_attention is not None:
            handles.append(block.cross_attention.register_forward_pre_hook(_recorder([across])))
    try:
        yield within, across
    finally:
        for handle in handles:
            handle.remove()


@shapes
def self_attentions(
    calls: Sequence[Call], batch: PackedBatch, mode: Mode
) -> tuple[Float[Tensor, "N H L L"], ...]:
    """Return the weights [N, H, L, L] of each recorded self-attention over `batch`."""
    seen, same = _pairs(batch)
    seen = seen if mode == "single" else seen & same
    return tuple(
        _weights(module.query(rows), module.key(rows), module.num_heads, batch, seen)
        for module, rows, _ in calls
    )


@shapes
def cross_attentions(
    blocks: Sequence[Block], calls: Sequence[Call], batch: PackedBatch
) -> tuple[Float[Tensor, "N H L L"], ...]:
    """Return the weights [N, H, L, L] of each recorded cross-attention of `blocks`."""
    seen, same = _pairs(batch)
    weights = []
    for block, (module, queries, keys) in zip(blocks, calls, strict=True):
        other = block.region_cross_attention
        if other is None:
            query, key = module.query(queries), module.key(keys)
        else:  # With weights of its own each direction is called with its own rows.
            query, key = (
                torch.cat(both).index_select(0, batch.row_sources)
                for both in (
                    (module.query(queries), other.query(keys)),
                    (other.key(queries), module.key(keys)),
                )
            )
        weights.append(_weights(query, key, module.num_heads, batch, seen & ~same))
    return tuple(weights)


def _recorder(calls_in_turn: Sequence[list[Call]]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """Return a hook that records the first call of a module in the first list, and so on."""
    lists = iter(calls_in_turn)

    def record(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        assert isinstance(module, Attention)
        hidden, context = arguments[0], arguments[2] if len(arguments) > 2 else None
        next(lists).append((module, hidden, hidden if context is None else context))

    return record


def _pairs(batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Tell of any two rows of a pair, [N, L, L]: both are there; both are of one modality."""
    rows = torch.arange(int(batch.lengths.max()), device=batch.device)  # [L]
    lengths, tokens = (
        values.to(batch.device)[:, None] for values in (batch.lengths, batch.text_lengths)
    )
    real, is_text = rows < lengths, rows < tokens  # [N, L]
    return real[:, :, None] & real[:, None], is_text[:, :, None] == is_text[:, None]


def _weights(
    query: Tensor, key: Tensor, num_heads: int, batch: PackedBatch, seen: Tensor
) -> Tensor:
    """Return softmax weights of queries [N L, D] over keys, zeros where nothing is seen."""
    query, key = (
        to_padded(rows.view(len(rows), num_heads, -1), batch.lengths)[0].transpose(1, 2)
        for rows in (query, key)
    )  # [N, H, L, K]
    logits = (query @ key.transpose(2, 3)).float() / query.shape[3] ** 0.5
    hidden = ~seen[:, None]
    lowest = torch.finfo(logits.dtype).min
    weights: Tensor = logits.masked_fill(hidden, lowest).softmax(3).masked_fill(hidden, 0.0)
    return weights
