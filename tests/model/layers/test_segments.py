"""The bookkeeping behind both attention paths: every row once, in the right company."""

import pytest
import torch

from semvlp.model.layers.segments import (
    PaddedLayout,
    Segments,
    VarlenLayout,
    attention_layout,
    two_way_layout,
)


def segments(*spans: tuple[int, int]) -> Segments:
    """Pieces (first row, length)."""
    starts, lengths = zip(*spans, strict=True)
    return Segments(torch.tensor(starts), torch.tensor(lengths))


# t t t r r | t r r r | t t
TEXT = segments((0, 3), (5, 1), (9, 2))
REGIONS = segments((3, 2), (6, 3), (11, 0))


def varlen(*pairs: tuple[Segments, Segments]) -> VarlenLayout:
    layout = attention_layout(pairs, path="varlen")
    assert isinstance(layout, VarlenLayout)
    return layout


def test_self_attention_moves_no_key() -> None:
    layout = varlen((TEXT, TEXT), (REGIONS, REGIONS))
    assert layout.cu_seqlens_q.tolist() == [0, 3, 5, 6, 9, 11]
    assert layout.cu_seqlens_k.tolist() == layout.cu_seqlens_q.tolist()
    assert layout.cu_seqlens_q.dtype == layout.cu_seqlens_k.dtype == torch.int32
    assert layout.key_rows is None
    assert layout.has_keys is None
    assert layout.max_seqlen_q == layout.max_seqlen_k == 3


def test_cross_attention_orders_the_keys_as_the_queries_lie() -> None:
    layout = varlen((TEXT, REGIONS), (REGIONS, TEXT))
    assert layout.cu_seqlens_q.tolist() == [0, 3, 5, 6, 9, 11]
    assert layout.key_rows is not None
    # The last text has no regions: row 0 stands in, and what it gives is discarded.
    assert layout.key_rows.tolist() == [3, 4, 0, 1, 2, 6, 7, 8, 5, 0]
    assert layout.cu_seqlens_k.tolist() == [0, 2, 5, 8, 9, 10]
    assert layout.has_keys is not None
    assert layout.has_keys.flatten().tolist() == [True] * 9 + [False] * 2
    assert (layout.max_seqlen_q, layout.max_seqlen_k) == (3, 3)


def test_keys_that_are_some_rows_of_another_tensor_are_picked() -> None:
    first = segments((0, 1), (1, 1))
    layout = varlen((first, segments((4, 2), (9, 1))))
    assert layout.key_rows is not None
    assert layout.key_rows.tolist() == [4, 5, 9]


def test_nothing_to_cut() -> None:
    layout = varlen((segments((0, 0)), segments((0, 0))))
    assert layout.cu_seqlens_q.tolist() == layout.cu_seqlens_k.tolist() == [0]
    assert (layout.max_seqlen_q, layout.max_seqlen_k) == (0, 0)


@pytest.mark.parametrize(("count", "groups"), [(7, 1), (8, 2), (16, 4), (200, 4)])
def test_segments_of_like_lengths_are_padded_together(count: int, groups: int) -> None:
    lengths = torch.arange(count).roll(3) + 1
    pieces = Segments(lengths.cumsum(0) - lengths, lengths)
    layout = attention_layout([(pieces, pieces)])
    assert isinstance(layout, PaddedLayout)
    assert len(layout.groups) == groups
    assert sum(len(group.query_rows) for group in layout.groups) == count
    padded = torch.cat([group.query_rows.flatten() for group in layout.groups])
    assert padded.tolist() == layout.query_rows.tolist() == layout.key_rows.tolist()
    assert padded[layout.slots].tolist() == list(range(int(lengths.sum())))
    # Sorted and cut into G, the padding shrinks to about one part in G.
    padding = len(padded) / lengths.sum() - 1
    assert padding < 1.3 / groups


def test_equal_lengths_stay_in_one_group() -> None:
    lengths = torch.full((32,), 4)
    pieces = Segments(lengths.cumsum(0) - lengths, lengths)
    layout = attention_layout([(pieces, pieces)])
    assert isinstance(layout, PaddedLayout)
    assert [len(group.query_rows) for group in layout.groups] == [32]
    assert layout.groups[0].attend_mask is None


def test_two_way_takes_the_row_apart_and_puts_it_together() -> None:
    layout = two_way_layout(TEXT, REGIONS)
    assert layout.text_rows.tolist() == [0, 1, 2, 5, 9, 10]
    assert layout.region_rows.tolist() == [3, 4, 6, 7, 8]
    streams = torch.cat([layout.text_rows, layout.region_rows])
    assert streams[layout.row_sources].tolist() == list(range(11))
