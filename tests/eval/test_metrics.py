"""Pure metrics against hand-made cases and slow definitions."""

import numpy as np
import pytest

from semvlp.errors import SemVLPError
from semvlp.eval import metrics as scores
from semvlp.eval.task import Rank


def test_percent() -> None:
    assert scores.percent([True, False, False, True]) == 50
    with pytest.raises(ValueError, match="mean of nothing"):
        scores.percent([])


def test_percent_ignores_the_order() -> None:
    values = np.random.default_rng(0).random(1000)
    assert scores.percent(values) == scores.percent(values[::-1])


def test_consistency_needs_the_whole_group() -> None:
    consistency = scores.consistency(["a", "b", "a", "c"], [1.0, 1.0, 0.0, 1.0])
    assert consistency.percent == pytest.approx(100 * 2 / 3)
    assert list(consistency.clusters) == ["a", "b", "c"]


def test_distribution_is_the_weighted_chi_square() -> None:
    gold = {"color": ["red", "red", "blue"], "place": ["left"]}
    given = {"color": ["red", "red", "red"], "place": ["left"]}
    # color: (3 - 2)^2 / 2 + (0 - 1)^2 / 1 = 1.5, three of four questions.
    assert scores.distribution(gold, given) == pytest.approx(1.5 * 3 / 4 / 100)
    assert scores.distribution(gold, gold) == 0


def _slow_rank(right: float, wrong: list[float]) -> Rank:
    return Rank(1 + sum(other >= right for other in wrong), sum(other == right for other in wrong))


@pytest.mark.parametrize("levels", [3, 1000])
def test_ranks_follow_their_definition(levels: int) -> None:
    """With 3 levels nearly every query ties; with 1000 hardly any does."""
    random = np.random.default_rng(levels)
    image_of = np.array([0, 0, 1, 2, 2, 2, 3, 3])
    matrix = random.integers(0, levels, (8, 4)).astype(np.float32)
    for query, rank in enumerate(scores.text_to_image(matrix, image_of)):
        wrong = [matrix[query, k] for k in range(4) if k != image_of[query]]
        assert rank == _slow_rank(matrix[query, image_of[query]], wrong)
    for image, rank in enumerate(scores.image_to_text(matrix, image_of)):
        best = matrix[image_of == image, image].max()
        assert rank == _slow_rank(best, list(matrix[image_of != image, image]))


def test_constant_scores_rank_last() -> None:
    """A model that says the same of everything must not look good."""
    matrix, image_of = np.zeros((6, 3), np.float32), np.array([0, 0, 1, 1, 2, 2])
    assert scores.text_to_image(matrix, image_of) == [Rank(3, 2)] * 6
    assert scores.image_to_text(matrix, image_of) == [Rank(5, 4)] * 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_must_be_finite(bad: float) -> None:
    matrix, image_of = np.zeros((2, 2), np.float32), np.array([0, 1])
    matrix[1, 0] = bad
    for rank in (scores.text_to_image, scores.image_to_text):
        with pytest.raises(SemVLPError, match="1 of 4 are not"):
            rank(matrix, image_of)


def test_recalls() -> None:
    ranks = [Rank(1, 0), Rank(5, 0), Rank(6, 0), Rank(11, 0)]
    assert scores.recalls(ranks, "ir") == {"ir_r1": 25, "ir_r5": 50, "ir_r10": 75}
