"""Attention within the segments of a packed row: nothing outside a segment is seen.

L rows of the packed row, H heads, K head width, D = H K width, N segments of a group,
Q and S queries and keys of its longest segment.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from semvlp.model.config import SemVLPConfig


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """N pieces of a packed row."""

    starts: Tensor
    """[N] int64, first row of each piece, on the CPU."""
    lengths: Tensor
    """[N] int64, may be 0, on the CPU."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Group:
    """N segments of queries and of keys, padded to common lengths and attended in one call."""

    num_segments: int
    query_rows: Tensor
    """[N Q] int64, the row that fills each padded query; any row where it is padding."""
    key_rows: Tensor
    """[N S] int64, likewise for keys."""
    attend_mask: Tensor | None
    """[N, 1, 1, S] bool, True = may be attended to; None where no key is padding."""
    has_keys: Tensor | None
    """[N, 1, 1, 1] bool, False = there is nothing to attend to; None where all have keys."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Cuts:
    """Who attends to whom in a packed row: built once a batch and mode, shared by all blocks.

    Padding exists only between these index tensors. A kernel for segments of different lengths
    would need none of them, only the segments they were made from.
    """

    groups: tuple[Group, ...]
    slots: Tensor
    """[L] int64, where each row stands among the padded queries of all groups."""

    @classmethod
    def between(
        cls, pairs: Sequence[tuple[Segments, Segments]], device: torch.device | str = "cpu"
    ) -> "Cuts":
        """Cut so that segment i of the queries attends to segment i of the keys.

        Args:
            pairs: one (queries, keys) for each group; the queries of all groups cover every row
                exactly once. Segments of like lengths belong in one group: less padding.
        """
        queries = [_padded_rows(segments) for segments, _ in pairs]
        keys = [_padded_rows(segments) for _, segments in pairs]
        rows = torch.cat([grid.flatten() for grid, _ in queries])
        real = torch.cat([mask.flatten() for _, mask in queries])
        slots = torch.empty(int(real.sum()), dtype=torch.int64)
        slots[rows[real]] = real.nonzero().flatten()
        return cls(
            groups=tuple(
                _group(query_grid, key_grid, real_keys, device)
                for (query_grid, _), (key_grid, real_keys) in zip(queries, keys, strict=True)
            ),
            slots=slots.to(device, non_blocking=True),
        )


def segment_attention(
    query: Tensor, key: Tensor, value: Tensor, cuts: Cuts, *, dropout: float = 0.0
) -> Tensor:
    """Softmax attention [L, H, K] of each segment's queries over its own keys.

    A query whose segment has no keys gets zeros.

    Args:
        query, key, value: [L, H, K], the heads of every row.
        dropout: probability that an attention weight is dropped.
    """
    mixed = [_attend(query, key, value, group, dropout) for group in cuts.groups]
    return torch.cat(mixed).index_select(0, cuts.slots)


class Attention(nn.Module):
    """Multi-head attention over a packed row: self-attention or cross-attention, as it is cut."""

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, cuts: Cuts) -> Tensor:
        """[L, D] to [L, D]."""
        query, key, value = (
            linear(hidden).view(len(hidden), self.num_heads, -1)  # [L, H, K]
            for linear in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = segment_attention(query, key, value, cuts, dropout=dropout)
        output: Tensor = self.output(mixed.flatten(1))
        return output


def _attend(query: Tensor, key: Tensor, value: Tensor, group: Group, dropout: float) -> Tensor:
    """Attention of one group: rows [L, H, K] to padded queries [N Q, H, K]."""

    def padded(rows: Tensor, index: Tensor) -> Tensor:
        filled = rows.index_select(0, index)
        return filled.view(group.num_segments, -1, *rows.shape[1:]).transpose(1, 2)  # [N, H, -, K]

    mixed = functional.scaled_dot_product_attention(
        padded(query, group.query_rows),
        padded(key, group.key_rows),
        padded(value, group.key_rows),
        attn_mask=group.attend_mask,
        dropout_p=dropout,
    )
    if group.has_keys is not None:
        mixed = mixed.masked_fill(~group.has_keys, 0.0)
    return mixed.transpose(1, 2).flatten(0, 1)


def _padded_rows(segments: Segments) -> tuple[Tensor, Tensor]:
    """Row of each padded slot [N, longest], at least one slot wide, and True where it is real."""
    longest = max(1, int(segments.lengths.max()))
    offsets = torch.arange(longest)
    real = offsets < segments.lengths[:, None]
    return torch.where(real, segments.starts[:, None] + offsets, 0), real


def _group(
    query_rows: Tensor, key_rows: Tensor, real_keys: Tensor, device: torch.device | str
) -> Group:
    has_keys = real_keys.any(dim=1)
    # A softmax over nothing is NaN, so segments without keys attend to padding and are zeroed.
    attend_mask = real_keys.clone()
    attend_mask[~has_keys, 0] = True
    return Group(
        num_segments=len(key_rows),
        query_rows=query_rows.flatten().to(device, non_blocking=True),
        key_rows=key_rows.flatten().to(device, non_blocking=True),
        attend_mask=_unless_all(attend_mask[:, None, None, :], device),
        has_keys=_unless_all(has_keys[:, None, None, None], device),
    )


def _unless_all(mask: Tensor, device: torch.device | str) -> Tensor | None:
    return None if bool(mask.all()) else mask.to(device, non_blocking=True)
