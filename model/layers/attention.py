"""Attention within the segments of a packed row: nothing outside a segment is seen.

L rows of the packed row, M of them that are asked for, S rows of keys, H heads, K head width,
D = H K width, N segments of a group.
"""

import logging
from contextlib import nullcontext
from functools import cache
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import sdpa_kernel

from semvlp.model.config import SemVLPConfig
from semvlp.model.layers.segments import (
    AttentionLayout,
    AttentionPath,
    Group,
    PaddedLayout,
    VarlenLayout,
)
from semvlp.shapes import shapes

log = logging.getLogger(__name__)

Implementation = Literal["auto", "varlen", "sdpa"]
"""`attn_implementation`: auto takes varlen where it can run."""

# What the flash kernels of varlen_attn can do (torch/nn/attention/varlen.py): they have no dropout.
VARLEN_DTYPES = (torch.bfloat16, torch.float16)
VARLEN_CAPABILITY = (8, 0)
VARLEN_HEAD_WIDTH = 256
# On H100 and H200 varlen_attn would else take cuDNN for segments of more than 128 rows, whose
# gradients are not trusted here (model/layers/segments.py). cuDNN knows no windows, and flash reads
# one that is wider than the longest segment as none, in both directions.
NO_WINDOW = (2**30, 2**30)


def check_implementation(name: str | None) -> Implementation:
    """Return `name` if it is an implementation; None is auto.

    Raises:
        ValueError: it is another.
    """
    names = get_args(Implementation)
    if name is not None and name not in names:
        raise ValueError(f"attn_implementation must be one of {', '.join(names)}, got {name!r}")
    return cast(Implementation, name or "auto")


@shapes
def choose_path(
    implementation: str | None, rows: Shaped[Tensor, "L *S"], *, dropout: float, head_width: int
) -> AttentionPath:
    """Choose the attention path for a pass over `rows`.

    Raises:
        ValueError: `implementation` is unknown, or varlen where it cannot run.
    """
    if check_implementation(implementation) == "sdpa":
        return "sdpa"
    autocast = rows.is_cuda and torch.is_autocast_enabled("cuda")
    dtype = torch.get_autocast_dtype("cuda") if autocast else rows.dtype
    obstacle = varlen_obstacle(rows.device, dtype, dropout=dropout, head_width=head_width)
    if implementation == "varlen" and obstacle:
        raise ValueError(f"attn_implementation = 'varlen' {obstacle}; 'auto' would take sdpa")
    if obstacle and rows.is_cuda:
        _say_once(obstacle)
    return "sdpa" if obstacle else "varlen"


@shapes
def network_path(
    config: SemVLPConfig, rows: Float[Tensor, "L D"], *, training: bool
) -> AttentionPath:
    """Choose the attention path of a network, as its `attn_implementation` says.

    It may be set at any time, so every pass chooses.

    Raises:
        ValueError: as `choose_path`.
    """
    return choose_path(
        config._attn_implementation,
        rows,
        dropout=config.attention_probs_dropout_prob if training else 0.0,
        head_width=config.hidden_size // config.num_attention_heads,
    )


def varlen_obstacle(
    device: torch.device, dtype: torch.dtype, *, dropout: float, head_width: int
) -> str | None:
    """Say why varlen attention cannot run; None where it can."""
    if device.type != "cuda":
        return f"needs a CUDA device, got {device.type}"
    if torch.cuda.get_device_capability(device) < VARLEN_CAPABILITY:
        return f"needs compute capability 8.0, got {torch.cuda.get_device_name(device)}"
    if dtype not in VARLEN_DTYPES:
        return f"needs bfloat16 or float16, got {dtype}"
    if dropout:
        return f"has no dropout: attention_probs_dropout_prob must be 0 in training, got {dropout}"
    if head_width > VARLEN_HEAD_WIDTH or head_width % 8:
        return f"needs heads of a multiple of 8 and at most 256 wide, got {head_width}"
    return None


@shapes
def segment_attention(
    query: Float[Tensor, "L H K"],
    key: Float[Tensor, "S H K"],
    value: Float[Tensor, "S H K"],
    layout: AttentionLayout,
    *,
    dropout: float = 0.0,
) -> Float[Tensor, "_ H K"]:
    """Compute softmax attention of each segment's queries over its own keys.

    A query whose segment has no keys gets zeros.

    Args:
        query: [L, H, K], the heads of every row.
        key: [S, H, K], likewise.
        value: [S, H, K], likewise.
        dropout: probability that an attention weight is dropped; 0 with VarlenLayout.

    Returns:
        [L, H, K], zeros for a query whose segment has no keys.
    """
    # Indices of padding need a row to point to, and weights without rows still get a gradient.
    query, key, value = (
        rows if len(rows) else functional.pad(rows, (0, 0, 0, 0, 0, 1))
        for rows in (query, key, value)
    )
    if isinstance(layout, VarlenLayout):
        return _varlen(query, key, value, layout)
    return _in_groups(query, key, value, layout, dropout)


class Attention(nn.Module):
    """Multi-head attention over a packed row: self- or cross-attention, as the layout says."""

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_width = config.hidden_size // config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    @shapes
    def forward(
        self,
        hidden: Float[Tensor, "L D"],
        layout: AttentionLayout,
        context: Float[Tensor, "S D"] | None = None,
        indices: Int[Tensor, "M"] | None = None,
    ) -> Float[Tensor, "_ D"]:
        """Attend from `hidden` [L, D] to the keys of `layout`, rows of `context` or of `hidden`.

        Args:
            indices: [M] int64; with them the queries are those of `hidden[indices]`.

        Returns:
            [L, D], or [M, D] with `indices`.
        """
        context = hidden if context is None else context
        query, key, value = (
            linear(rows).view(len(rows), self.num_heads, self.head_width)  # [L, H, K]
            for linear, rows in ((self.query, hidden), (self.key, context), (self.value, context))
        )
        if indices is not None:
            query = query.index_select(0, indices)
        dropout = self.dropout if self.training else 0.0
        mixed = segment_attention(query, key, value, layout, dropout=dropout)
        output: Tensor = self.output(mixed.flatten(1))
        return output


def _varlen(query: Tensor, key: Tensor, value: Tensor, layout: VarlenLayout) -> Tensor:
    """Compute the attention of all segments in one kernel."""
    # It brings torch's compiler along, which those on a CPU need not wait for.
    from torch.nn.attention.varlen import varlen_attn

    if not layout.max_seqlen_q:
        return query[:0]
    if layout.key_rows is None:
        key, value = key[: len(query)], value[: len(query)]
    else:
        key, value = key.index_select(0, layout.key_rows), value.index_select(0, layout.key_rows)
    mixed: Tensor = varlen_attn(  # type: ignore[assignment]
        query,
        key,
        value,
        layout.cu_seqlens_q,
        layout.cu_seqlens_k,
        layout.max_seqlen_q,
        layout.max_seqlen_k,
        window_size=NO_WINDOW,
    )
    return mixed if layout.has_keys is None else mixed.masked_fill(~layout.has_keys, 0.0)


def _in_groups(
    query: Tensor, key: Tensor, value: Tensor, layout: PaddedLayout, dropout: float
) -> Tensor:
    """Compute the attention of all segments, a call for each group.

    Rows are laid out for all groups at once: a gradient as large as the row would else be filled
    for each group.
    """
    # The CPU's kernel for bfloat16 is several times slower backwards than the one for float32, at
    # the size of a tiny network, so a CPU computes at least in float32.
    raised = query.device.type == "cpu" and query.dtype in VARLEN_DTYPES
    dtype = torch.float32 if raised else query.dtype
    queries = layout.query_groups(query.index_select(0, layout.query_rows).to(dtype))
    keys = layout.key_groups(key.index_select(0, layout.key_rows).to(dtype))
    values = layout.key_groups(value.index_select(0, layout.key_rows).to(dtype))
    # Autocast would take the precision back.
    precision = torch.autocast("cpu", enabled=False) if raised else nullcontext()
    with precision, sdpa_kernel(list(layout.kernels)):
        mixed = [
            _padded(*padded, dropout)
            for padded in zip(queries, keys, values, layout.groups, strict=True)
        ]
    return torch.cat(mixed).index_select(0, layout.slots).to(query.dtype)


def _padded(query: Tensor, key: Tensor, value: Tensor, group: Group, dropout: float) -> Tensor:
    """Attend within one group: [N, Q, H, K] to keys and values [N, S, H, K], as [N Q, H, K]."""
    mixed = functional.scaled_dot_product_attention(
        query.transpose(1, 2),  # [N, H, Q, K]
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=group.attend_mask,
        dropout_p=dropout,
    )
    if group.has_keys is not None:
        mixed = mixed.masked_fill(~group.has_keys, 0.0)
    return mixed.transpose(1, 2).flatten(0, 1)


@cache
def _say_once(obstacle: str) -> None:
    log.warning("attention is padded (sdpa) and slower: the varlen kernel %s", obstacle)
