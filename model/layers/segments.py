"""Who attends to whom in a packed row, in the form that each attention path takes.

L rows of queries, S rows of keys, N segments, Q and S queries and keys of the longest of a group.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.nn.attention import SDPBackend

from semvlp.model.packing import row_indices, starts_of, to_device
from semvlp.shapes import shapes

AttentionPath = Literal["varlen", "sdpa"]
"""Flash attention over segments of any lengths, or padded groups of segments of like lengths."""

# More groups pad less, but a tiny network then waits for calls rather than for products.
SEGMENTS_PER_GROUP, MAX_GROUPS = 4, 4


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """N pieces of a packed row, one after another or in any order."""

    starts: Tensor
    """[N] int64, first row of each piece, on the CPU."""
    lengths: Tensor
    """[N] int64, may be 0, on the CPU."""

    @shapes
    def take(self, index: Int[Tensor, "M"]) -> "Segments":
        """Return some of the pieces, in another order."""
        return Segments(self.starts[index], self.lengths[index])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Group:
    """N segments of queries and of keys, padded to common lengths and attended in one call."""

    query_rows: Tensor
    """[N, Q] int64, the row that fills each padded query; any row where it is padding."""
    key_rows: Tensor
    """[N, S] int64, likewise for keys."""
    attend_mask: Tensor | None
    """[N, 1, 1, S] bool, True = may be attended to; None where no key is padding."""
    has_keys: Tensor | None
    """[N, 1, 1, 1] bool, False = there is nothing to attend to; None where all have keys."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PaddedLayout:
    """Segments for scaled_dot_product_attention: between these gathers rows are padded."""

    groups: tuple[Group, ...]
    query_rows: Tensor
    """[P] int64, those of all groups, one after another."""
    key_rows: Tensor
    """int64, those of all groups, one after another."""
    slots: Tensor
    """[L] int64, where each row stands among the padded queries of all groups."""
    kernels: tuple[SDPBackend, ...]
    """The kernels that may be taken. They are chosen with the layout, because a backward pass that
    computes a block again must take the same one."""

    @shapes
    def query_groups(self, rows: Shaped[Tensor, "P *S"]) -> list[Shaped[Tensor, "N Q *S"]]:
        """Shape [P, ...], one for each of `query_rows`, as [N, Q, ...] of each group."""
        return _in_grids(rows, [group.query_rows for group in self.groups])

    @shapes
    def key_groups(self, rows: Shaped[Tensor, "P *S"]) -> list[Shaped[Tensor, "N Q *S"]]:
        """Shape [P, ...], one for each of `key_rows`, as [N, S, ...] of each group."""
        return _in_grids(rows, [group.key_rows for group in self.groups])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class VarlenLayout:
    """Segments for varlen_attn: segment i of the queries attends to segment i of the keys.

    No segment is empty: flash kernels differ in what they do then, above all in the gradient.
    """

    cu_seqlens_q: Tensor
    """[N + 1] int32, first row of each segment of queries, and L."""
    cu_seqlens_k: Tensor
    """[N + 1] int32, likewise for the keys in the order of `key_rows`."""
    max_seqlen_q: int
    max_seqlen_k: int
    key_rows: Tensor | None
    """[S] int64, the row of each key; None where the keys are the rows as they lie."""
    has_keys: Tensor | None
    """[L, 1, 1] bool, False = has no keys but a stand-in; None where all have keys."""


AttentionLayout = PaddedLayout | VarlenLayout
"""Built once a batch and mode, shared by all blocks."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TwoWayLayout:
    """Cross-attention with weights of its own for each direction: two streams, taken apart."""

    text_rows: Tensor
    """[T] int64 rows of the packed row."""
    region_rows: Tensor
    """[R] int64 rows of the packed row."""
    row_sources: Tensor
    """[L] int64, where each row is in all tokens followed by all regions."""
    to_regions: AttentionLayout
    """Tokens [T] to their regions [R]."""
    to_text: AttentionLayout
    """Regions [R] to their tokens [T]."""


def attention_layout(
    pairs: Sequence[tuple[Segments, Segments]],
    device: torch.device | str = "cpu",
    path: AttentionPath = "sdpa",
) -> AttentionLayout:
    """Lay out attention of segment i of the queries to segment i of the keys.

    Args:
        pairs: (queries, keys); the queries of all of them cover every row exactly once. Segments
            of different pairs are never padded to each other.
    """
    return _varlen_layout(pairs, device) if path == "varlen" else _padded_layout(pairs, device)


def two_way_layout(
    text: Segments,
    regions: Segments,
    device: torch.device | str = "cpu",
    path: AttentionPath = "sdpa",
) -> TwoWayLayout:
    """Lay out attention of text i to regions i in one call, and of regions i to it in another.

    Args:
        text: pieces that together with `regions` cover every row exactly once.
        regions: as many pieces, which may be empty.
    """
    rows = [row_indices(stream.starts, stream.lengths) for stream in (text, regions)]
    apart = [Segments(starts_of(stream.lengths), stream.lengths) for stream in (text, regions)]
    return TwoWayLayout(
        text_rows=to_device(rows[0], device),
        region_rows=to_device(rows[1], device),
        row_sources=to_device(torch.cat(rows).argsort(), device),
        to_regions=attention_layout([(apart[0], apart[1])], device, path),
        to_text=attention_layout([(apart[1], apart[0])], device, path),
    )


def _varlen_layout(
    pairs: Sequence[tuple[Segments, Segments]], device: torch.device | str
) -> VarlenLayout:
    queries, keys = _joined([pair[0] for pair in pairs]), _joined([pair[1] for pair in pairs])
    order = queries.starts.argsort(stable=True)
    order = order[queries.lengths[order] > 0]
    queries, keys = queries.take(order), keys.take(order)
    same = torch.equal(queries.starts, keys.starts) and torch.equal(queries.lengths, keys.lengths)
    empty = keys.lengths == 0
    keys = Segments(keys.starts.masked_fill(empty, 0), keys.lengths.clamp(min=1))
    has_keys = (~empty).repeat_interleave(queries.lengths)[:, None, None]
    key_rows = None if same else to_device(row_indices(keys.starts, keys.lengths), device)
    return VarlenLayout(
        cu_seqlens_q=_bounds(queries.lengths, device),
        cu_seqlens_k=_bounds(keys.lengths, device),
        max_seqlen_q=max(queries.lengths.tolist(), default=0),
        max_seqlen_k=max(keys.lengths.tolist(), default=0),
        key_rows=key_rows,
        has_keys=_unless_all(has_keys, device),
    )


def _joined(segments: Sequence[Segments]) -> Segments:
    return Segments(
        torch.cat([piece.starts for piece in segments]),
        torch.cat([piece.lengths for piece in segments]),
    )


def _bounds(lengths: Tensor, device: torch.device | str) -> Tensor:
    """Return where each segment begins and the last one ends: 0 l1 l1+l2 ..., int32."""
    bounds = torch.cat([starts_of(lengths), lengths.sum()[None]])
    return to_device(bounds.to(torch.int32), device)


def _padded_layout(
    pairs: Sequence[tuple[Segments, Segments]], device: torch.device | str
) -> PaddedLayout:
    alike = [part for queries, keys in pairs for part in _of_like_lengths(queries, keys)]
    queries = [_padded_rows(segments) for segments, _ in alike]
    keys = [_padded_rows(segments) for _, segments in alike]
    rows = torch.cat([grid.flatten() for grid, _ in queries])
    real = torch.cat([mask.flatten() for _, mask in queries])
    slots = torch.empty(int(real.sum()), dtype=torch.int64)
    slots[rows[real]] = real.nonzero().flatten()
    query_rows = to_device(rows, device)
    key_rows = to_device(torch.cat([grid.flatten() for grid, _ in keys]), device)
    query_grids = _in_grids(query_rows, [grid for grid, _ in queries])
    key_grids = _in_grids(key_rows, [grid for grid, _ in keys])
    return PaddedLayout(
        groups=tuple(
            _group(query_grid, key_grid, real_keys, device)
            for query_grid, key_grid, (_, real_keys) in zip(
                query_grids, key_grids, keys, strict=True
            )
        ),
        query_rows=query_rows,
        key_rows=key_rows,
        slots=to_device(slots, device),
        kernels=_kernels(),
    )


def _kernels() -> tuple[SDPBackend, ...]:
    """List the kernels that the caller allows, without cuDNN.

    Its gradient under a mask is NaN on H100 and H200 (pytorch/pytorch#196678).
    """
    settings = torch.backends.cuda
    allowed = {
        SDPBackend.FLASH_ATTENTION: settings.flash_sdp_enabled(),  # type: ignore[no-untyped-call]
        SDPBackend.EFFICIENT_ATTENTION: settings.mem_efficient_sdp_enabled(),  # type: ignore[no-untyped-call]
        SDPBackend.MATH: settings.math_sdp_enabled(),  # type: ignore[no-untyped-call]
    }
    return tuple(kernel for kernel, enabled in allowed.items() if enabled) or (SDPBackend.MATH,)


def _in_grids(rows: Tensor, grids: Sequence[Tensor]) -> list[Tensor]:
    """Split rows [P, ...] into the shapes of `grids`: [N, Q, ...] each."""
    pieces = rows.split([grid.numel() for grid in grids])  # type: ignore[no-untyped-call]
    return [
        piece.view(*grid.shape, *rows.shape[1:]) for piece, grid in zip(pieces, grids, strict=True)
    ]


def _of_like_lengths(queries: Segments, keys: Segments) -> Iterator[tuple[Segments, Segments]]:
    """Yield the segments in a few groups of like lengths, which need less padding."""
    lengths = queries.lengths + keys.lengths
    order = lengths.argsort(stable=True)
    varied = int(lengths.min()) < int(lengths.max())
    count = min(max(len(order) // SEGMENTS_PER_GROUP, 1), MAX_GROUPS) if varied else 1
    for index in order.tensor_split(count):
        yield queries.take(index), keys.take(index)


def _padded_rows(segments: Segments) -> tuple[Tensor, Tensor]:
    """Return the row of each padded slot [N, longest], at least one wide; True = no padding."""
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
        query_rows=query_rows,
        key_rows=key_rows,
        attend_mask=_unless_all(attend_mask[:, None, None, :], device),
        has_keys=_unless_all(has_keys[:, None, None, None], device),
    )


def _unless_all(mask: Tensor, device: torch.device | str) -> Tensor | None:
    return None if bool(mask.all()) else to_device(mask, device)
