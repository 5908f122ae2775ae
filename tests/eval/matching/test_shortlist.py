"""The shortlist of retrieval: which pairs, and what they cost."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semvlp.eval.lookup import RegionLookup
from semvlp.eval.matching.shortlist import (
    SeenWords,
    WordIndex,
    best_pairs,
    label_overlap,
    lost,
    words_of,
)
from semvlp.eval.task import Rank
from semvlp.eval.tasks.retrieval import Retrieval
from semvlp.eval.tasks.retrieval_ranks import UNSCORED, mean_log_odds, rank_answers
from semvlp.shards.open import open_store


def test_words() -> None:
    assert words_of("Two DOGS' glasses, a bus.") == {"two", "dog", "glasse", "a", "bus"}


def test_best_of_rows_and_columns() -> None:
    cheap = np.array([[3, 1, 0], [2, 2, 0], [0, 0, 0]], np.float32)
    expected = [[True, False, True], [True, True, False], [True, False, False]]
    assert best_pairs(cheap, 1).tolist() == expected
    assert best_pairs(cheap, 3).all()


def test_captions_find_images_by_labels(official: dict[str, Path], shards: Path) -> None:
    """Every region of the small store is a `thing`."""
    examples = Retrieval().read([official["retrieval"]], split="test")
    with open_store(shards) as store:
        lookup = RegionLookup(store, examples, max_regions=100)
        assert not label_overlap(examples, lookup, store.manifest).any()
        named = [type(e)(example_id=e.example_id, text="things", images=e.images) for e in examples]
        assert (label_overlap(named, lookup, store.manifest) == 1).all()


def test_rare_words_and_confident_regions_count_more() -> None:
    """Word `b` is seen in one of three images, `a` in two; texts may name a word twice."""
    seen = SeenWords(
        np.array([2, 0, 1], np.int32),
        np.array([1, 0, 0], np.int32),
        np.array([0.5, 0.25, 1], np.float32),
    )
    a, b = math.log(4 / 3) + 1, math.log(4 / 2) + 1
    expected = [[0.25 * a + 0.5 * b, 0, a], [0.5 * b, 0, 0], [0, 0, 0]]
    given = WordIndex(["a", "b"], seen).overlap(["A b, a!", "b c", "c"])
    np.testing.assert_allclose(given, expected, rtol=1e-6)


def test_what_is_lost(save: Callable[..., Path], make: type) -> None:
    """Of three captions one is never compared with its image; of two images none is lost."""
    examples = Retrieval().read([save("k.json", make.karpathy({"a": 1, "b": 2}))], split="test")
    wanted = np.array([[True, True], [True, False], [False, True]])
    assert lost(examples, wanted) == pytest.approx(
        {"ir_lost": 100 / 3, "tr_lost": 0, "pairs": 400 / 6}
    )


def test_a_lost_candidate_stands_last(save: Callable[..., Path], make: type) -> None:
    examples = Retrieval().read([save("k.json", make.karpathy({"a": 1, "b": 2}))], split="test")
    scored = np.array([[0.5, 0.1], [0.2, UNSCORED], [UNSCORED, 0.3]], np.float32)
    for matrix in (scored, mean_log_odds([scored, scored])):
        assert rank_answers(examples, matrix) == {
            0: Rank(1, 0),
            1: Rank(2, 0),
            2: Rank(1, 0),
            "a": Rank(1, 0),
            "b": Rank(1, 0),
        }
    nothing = np.full((3, 2), UNSCORED, np.float32)
    ranks = rank_answers(examples, nothing)
    assert (ranks[0], ranks["a"]) == (Rank(2, 1), Rank(3, 2))
