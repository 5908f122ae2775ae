"""The bookkeeping behind both attention paths: every row once, in the right company."""

import pytest
import torch

from semvlp.model.segments import PaddedCuts, Segments, VarlenLayout, cut, two_way_cuts


def segments(*spans: tuple[int, int]) -> Segments:
    """Pieces (first row, length)."""
    starts, lengths = zip(*spans, strict=True)
    return Segments(torch.tensor(starts), torch.tensor(lengths))


# t t t r r | t r r r | t t
TEXT = segments((0, 3), (5, 1), (9, 2))
REGIONS = segments((3, 2), (6, 3), (11, 0))


def varlen(*pairs: tuple[Segments, Segments]) -> VarlenLayout:
    cuts = cut(pairs, path="varlen")
    assert isinstance(cuts, VarlenLayout)
    return cuts


def test_self_attention_moves_no_key() -> None:
    cuts = varlen((TEXT, TEXT), (REGIONS, REGIONS))
    assert cuts.cu_seqlens_q.tolist() == [0, 3, 5, 6, 9, 11]
    assert cuts.cu_seqlens_k.tolist() == cuts.cu_seqlens_q.tolist()
    assert cuts.cu_seqlens_q.dtype == cuts.cu_seqlens_k.dtype == torch.int32
    assert cuts.key_rows is None
    assert cuts.has_keys is None
    assert cuts.max_seqlen_q == cuts.max_seqlen_k == 3


def test_cross_attention_orders_the_keys_as_the_queries_lie() -> None:
    cuts = varlen((TEXT, REGIONS), (REGIONS, TEXT))
    assert cuts.cu_seqlens_q.tolist() == [0, 3, 5, 6, 9, 11]
    assert cuts.key_rows is not None
    # The last text has no regions: row 0 stands in, and what it gives is discarded.
    assert cuts.key_rows.tolist() == [3, 4, 0, 1, 2, 6, 7, 8, 5, 0]
    assert cuts.cu_seqlens_k.tolist() == [0, 2, 5, 8, 9, 10]
    assert cuts.has_keys is not None
    assert cuts.has_keys.flatten().tolist() == [True] * 9 + [False] * 2
    assert (cuts.max_seqlen_q, cuts.max_seqlen_k) == (3, 3)


def test_keys_that_are_some_rows_of_another_tensor_are_picked() -> None:
    first = segments((0, 1), (1, 1))
    cuts = varlen((first, segments((4, 2), (9, 1))))
    assert cuts.key_rows is not None
    assert cuts.key_rows.tolist() == [4, 5, 9]


def test_nothing_to_cut() -> None:
    cuts = varlen((segments((0, 0)), segments((0, 0))))
    assert cuts.cu_seqlens_q.tolist() == cuts.cu_seqlens_k.tolist() == [0]
    assert (cuts.max_seqlen_q, cuts.max_seqlen_k) == (0, 0)


@pytest.mark.parametrize(("count", "groups"), [(7, 1), (8, 2), (16, 4), (200, 4)])
def test_segments_of_like_lengths_are_padded_together(count: int, groups: int) -> None:
    lengths = torch.arange(count).roll(3) + 1
    pieces = Segments(lengths.cumsum(0) - lengths, lengths)
    cuts = cut([(pieces, pieces)])
    assert isinstance(cuts, PaddedCuts)
    assert len(cuts.groups) == groups
    assert sum(len(group.query_rows) for group in cuts.groups) == count
    padded = torch.cat([group.query_rows.flatten() for group in cuts.groups])
    assert padded.tolist() == cuts.query_rows.tolist() == cuts.key_rows.tolist()
    assert padded[cuts.slots].tolist() == list(range(int(lengths.sum())))
    # Sorted and cut into G, the padding shrinks to about one part in G.
    padding = len(padded) / lengths.sum() - 1
    assert padding < 1.3 / groups


def test_equal_lengths_stay_in_one_group() -> None:
    lengths = torch.full((32,), 4)
    pieces = Segments(lengths.cumsum(0) - lengths, lengths)
    cuts = cut([(pieces, pieces)])
    assert isinstance(cuts, PaddedCuts)
    assert [len(group.query_rows) for group in cuts.groups] == [32]
    assert cuts.groups[0].attend_mask is None


def test_two_way_takes_the_row_apart_and_puts_it_together() -> None:
    cuts = two_way_cuts(TEXT, REGIONS)
    assert cuts.text_rows.tolist() == [0, 1, 2, 5, 9, 10]
    assert cuts.region_rows.tolist() == [3, 4, 6, 7, 8]
    streams = torch.cat([cuts.text_rows, cuts.region_rows])
    assert streams[cuts.row_sources].tolist() == list(range(11))
