"""What is hidden, how often, and that nothing else changes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from semvlp.train.data.masking import (
    MaskingVocabulary,
    choose,
    hide_regions,
    iou,
    mask_regions,
    mask_tokens,
)

CLS, SEP, MASK = 2, 3, 4
# Every piece from 900 on goes on with a word.
VOCABULARY = MaskingVocabulary(MASK, np.arange(5, 1000), np.arange(1000) >= 900)
# Four standard deviations of a share of 40,000 draws at 0.1.
TOLERANCE = 0.006


def text(length: int) -> np.ndarray:
    return np.concatenate([[CLS], np.full(length, 500), [SEP]]).astype(np.int64)


@given(length=st.integers(0, 30), rate=st.floats(0.01, 1), seed=st.integers(0, 999))
def test_only_chosen_inner_tokens_change(length: int, rate: float, seed: int) -> None:
    ids = text(length)
    masked = mask_tokens(ids, rate, VOCABULARY, np.random.default_rng(seed))
    untouched = np.setdiff1d(np.arange(len(ids)), masked.positions)
    assert (masked.input_ids[untouched] == ids[untouched]).all()
    assert {0, len(ids) - 1} <= set(untouched.tolist())
    assert len(masked.positions) >= min(length, 1)
    assert (ids == text(length)).all()


def test_shares_of_mask_random_and_kept() -> None:
    masked = mask_tokens(text(40_000), 1.0, VOCABULARY, np.random.default_rng(0))
    inner = masked.input_ids[1:-1]
    replaced = (inner != MASK) & (inner != 500)
    assert (inner == MASK).mean() == pytest.approx(0.8, abs=2 * TOLERANCE)
    assert replaced.mean() == pytest.approx(0.1, abs=TOLERANCE)
    assert (inner == 500).mean() == pytest.approx(0.1, abs=TOLERANCE)
    assert set(inner[replaced].tolist()) <= set(VOCABULARY.ordinary_ids.tolist())


def test_rate_of_masking() -> None:
    masked = mask_tokens(text(40_000), 0.15, VOCABULARY, np.random.default_rng(1))
    assert len(masked.positions) / 40_000 == pytest.approx(0.15, abs=2 * TOLERANCE)


def test_choose_is_fair_where_it_must_choose_one() -> None:
    random = np.random.default_rng(0)
    counts = sum(choose(4, 1e-9, random).astype(int) for _ in range(4000))
    assert counts.sum() == 4000
    assert counts / 4000 == pytest.approx(np.full(4, 0.25), abs=0.03)


def test_rate_zero_chooses_nothing() -> None:
    assert not choose(10, 0.0, np.random.default_rng(0)).any()


def test_iou_is_torchvisions() -> None:
    random = np.random.default_rng(0)
    low = random.uniform(0, 50, (2, 30, 2))
    boxes, others = np.concatenate([low, low + random.uniform(0, 50, (2, 30, 2))], 2).astype("f4")
    expected = box_iou(torch.from_numpy(boxes), torch.from_numpy(others)).numpy()
    assert iou(boxes, others) == pytest.approx(expected, abs=1e-6)


def test_iou_of_empty_boxes_is_zero() -> None:
    empty = np.array([[5, 5, 5, 5]], np.float32)
    assert iou(empty, empty).tolist() == [[0.0]]


def test_overlapping_regions_are_hidden_together() -> None:
    # The second overlaps the first by IoU 0.6, the third by 1/3, the fourth not at all.
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 6], [5, 0, 15, 10], [50, 50, 60, 60]], np.float32)
    for seed in range(50):
        alone = mask_regions(boxes, 0.15, 1.0, np.random.default_rng(seed))
        hidden = mask_regions(boxes, 0.15, 0.5, np.random.default_rng(seed))
        expected = alone.copy()
        expected[:2] = alone[:2].any()
        assert (hidden == expected).all()


def test_at_least_one_region_is_hidden_and_none_of_none() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    for seed in range(20):
        assert mask_regions(boxes, 0.01, 0.5, np.random.default_rng(seed)).sum() == 1
    assert mask_regions(boxes[:0], 0.15, 0.5, np.random.default_rng(0)).shape == (0,)


def words(*lengths: int) -> np.ndarray:
    """A text of words of so many pieces each."""
    pieces = [piece for n in lengths for piece in [500, *[900] * (n - 1)]]
    return np.array([CLS, *pieces, SEP], np.int64)


@given(
    lengths=st.lists(st.integers(1, 4), max_size=12),
    rate=st.floats(0.01, 1),
    seed=st.integers(0, 999),
)
def test_whole_words_are_masked_whole(lengths: list[int], rate: float, seed: int) -> None:
    ids = words(*lengths)
    masked = mask_tokens(ids, rate, VOCABULARY, np.random.default_rng(seed), unit="word")
    chosen = np.isin(np.arange(len(ids)), masked.positions)
    starts = 1 + np.cumsum([0, *lengths])
    for begin, length in zip(starts, lengths, strict=False):
        assert len(set(chosen[begin : begin + length].tolist())) == 1
    assert not chosen[0]
    assert not chosen[-1]
    assert chosen.any() == bool(lengths)


def test_words_are_chosen_at_the_rate_whatever_their_length() -> None:
    ids = words(*[1, 3] * 10_000)
    masked = mask_tokens(ids, 0.15, VOCABULARY, np.random.default_rng(0), unit="word")
    chosen = np.isin(1 + np.cumsum([0, *[1, 3] * 10_000])[:-1], masked.positions)
    assert chosen[::2].mean() == pytest.approx(0.15, abs=0.015)
    assert chosen[1::2].mean() == pytest.approx(0.15, abs=0.015)


def test_a_text_cut_in_the_middle_of_a_word_has_that_word() -> None:
    ids = np.array([CLS, 900, 900, 500, SEP], np.int64)
    masked = mask_tokens(ids, 1.0, VOCABULARY, np.random.default_rng(0), unit="word")
    assert masked.positions.tolist() == [1, 2, 3]


def test_chosen_regions_meet_one_fate_in_the_shares_asked_for() -> None:
    chosen = np.arange(40_000) % 2 == 0
    masked = hide_regions(chosen, 0.8, 0.1, np.random.default_rng(0))
    assert not (masked.zeroed & masked.replaced).any()
    assert not (masked.zeroed | masked.replaced)[~chosen].any()
    assert masked.zeroed[chosen].mean() == pytest.approx(0.8, abs=2 * TOLERANCE)
    assert masked.replaced[chosen].mean() == pytest.approx(0.1, abs=2 * TOLERANCE)
    assert ((masked.replacement >= 0) & (masked.replacement < 1)).all()


def test_by_default_every_chosen_region_is_hidden_altogether() -> None:
    chosen = np.arange(50) % 3 == 0
    masked = hide_regions(chosen, 1.0, 0.0, np.random.default_rng(0))
    assert (masked.zeroed == chosen).all()
    assert not masked.replaced.any()
