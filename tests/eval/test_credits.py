"""Intervals and paired differences against simulations, other formulas and hand-made cases."""

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import stats

from semvlp.eval.credits import Credits, difference, intervals, mean_of


def credits_of(values: object, clusters: object, most: float = 1.0) -> Credits:
    listed = np.asarray(values, float).ravel()
    return Credits(listed, list(clusters), range(len(listed)), most)  # type: ignore[call-overload]


def test_an_interval_of_independent_values_is_the_usual_one() -> None:
    values = [1.0, 0.0, 0.3, 1.0, 0.6, 0.0, 1.0, 1.0]
    usual = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert credits_of(values, range(8)).interval() == pytest.approx([100 * end for end in usual])


def test_values_of_one_image_count_as_one() -> None:
    """Copies of a value within its cluster tell nothing new."""
    values, clusters = [1.0, 0.0, 0.3, 0.5, 0.6], list("abcde")
    once = credits_of(values, clusters).interval()
    assert credits_of(values * 7, clusters * 7).interval() == pytest.approx(once)
    independent = credits_of(values * 7, range(35)).interval()
    assert once[0] < independent[0] < independent[1] < once[1]


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Images of unlike difficulty, four questions each: 95 % of the intervals hold the mean."""
    random, held = np.random.default_rng(0), 0
    for _ in range(400):
        values = answers_to(random.uniform(0, 1, 80), random)
        low, high = credits_of(values, np.repeat(np.arange(80), 4)).interval()
        held += low <= 50.0 <= high
    assert 0.92 <= held / 400 <= 0.98


def answers_to(chances: NDArray[np.float64], random: Generator) -> NDArray[np.float64]:
    """Answer four questions about each image [80, 4]."""
    return (random.uniform(size=(80, 4)) < chances[:, None]).astype(float)


def test_an_interval_is_that_of_resampled_images() -> None:
    random = np.random.default_rng(1)
    sizes = random.integers(1, 12, 200)
    chances = np.repeat(random.uniform(0, 1, 200), sizes)
    values, images = (
        (random.uniform(size=len(chances)) < chances) * 1.0,
        np.repeat(range(200), sizes),
    )
    sums = np.bincount(images, values)

    def mean(sums: NDArray[np.float64], sizes: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        return 100 * sums.sum(axis) / sizes.sum(axis)

    resampled = stats.bootstrap(
        (sums, sizes), mean, paired=True, method="percentile", n_resamples=2000, random_state=0
    ).confidence_interval
    assert credits_of(values, images).interval() == pytest.approx(list(resampled), abs=0.5)


def test_the_end_of_an_interval_is_a_score_that_there_can_be() -> None:
    assert credits_of([1.0] * 9 + [0.0], range(10)).interval()[1] == 100
    assert credits_of([0.2, 4.0, 5.0, 6.0], range(4), 6.0).interval()[1] == 600
    one = credits_of([1.0, 1.0, 0.0], "aaa").interval()
    assert one == (0, 100), "one cluster alone tells nothing"


def test_all_right_is_not_certainly_all_right() -> None:
    """As many independent trials without a miss: Clopper and Pearson."""
    exact = stats.binomtest(20, 20).proportion_ci(0.95, "exact")
    low, high = credits_of([1.0] * 40, [*range(20)] * 2).interval()
    assert (low, high) == pytest.approx((100 * exact.low, 100))
    assert credits_of([0.0] * 20, range(20)).interval()[1] == pytest.approx(100 - low)


def test_a_difference_of_independent_pairs_is_the_paired_t_test() -> None:
    first, other = (
        [1.0, 0.0, 0.3, 1.0, 0.6, 0.0, 1.0, 1.0],
        [1.0, 0.3, 0.6, 1.0, 0.3, 1.0, 1.0, 0.9],
    )
    usual = stats.ttest_rel(other, first)
    paired = difference(credits_of(first, range(8)), credits_of(other, range(8)))
    assert paired.mean == pytest.approx(100 * (np.mean(other) - np.mean(first)))
    assert paired.interval == pytest.approx([100 * end for end in usual.confidence_interval()])
    assert paired.p == pytest.approx(usual.pvalue)
    assert (paired.better, paired.worse) == (3, 2)


def test_equal_networks_differ_as_often_as_the_p_value_says() -> None:
    random, differing = np.random.default_rng(2), 0
    images = np.repeat(np.arange(80), 4)
    for _ in range(400):
        chances = random.uniform(0, 1, 80)
        first, other = (credits_of(answers_to(chances, random), images) for _ in range(2))
        differing += difference(first, other).p < 0.05
    assert 0.03 <= differing / 400 <= 0.07


def test_pairing_says_more_than_two_intervals() -> None:
    """Hard images are hard for both; one of them is right a little more often."""
    random, images = np.random.default_rng(3), np.repeat(np.arange(80), 4)
    first = answers_to(random.uniform(0, 1, 80), random)
    other = np.maximum(first, random.uniform(size=first.shape) < 0.05)
    ours, theirs = credits_of(first, images), credits_of(other, images)
    assert ours.interval()[1] > theirs.interval()[0]
    assert difference(ours, theirs).interval[0] > 0
    assert difference(ours, theirs).p < 0.02


def test_the_same_answers_may_still_differ_elsewhere() -> None:
    same = credits_of([1.0, 0.0] * 10, range(20))
    paired = difference(same, same)
    assert (paired.mean, paired.p, paired.better, paired.worse) == (0, 1, 0, 0)
    assert -20 < paired.interval[0] < -10
    all_better = difference(credits_of([0.0] * 20, range(20)), credits_of([1.0] * 20, range(20)))
    assert all_better.p == pytest.approx(stats.binomtest(20, 20).pvalue)


def test_units_that_only_one_has_count_in_their_cluster() -> None:
    """GQA's consistency is over the questions that are answered rightly, which are not the same."""
    first = Credits([1.0, 0.5, 1.0], ["a", "b", "c"], ["a1", "b1", "c1"])
    other = Credits([0.5, 0.5, 0.0], ["a", "a", "c"], ["a1", "a2", "c1"])
    paired = difference(first, other)
    assert paired.mean == pytest.approx(100 * (1 / 3 - 2.5 / 3))
    assert (paired.better, paired.worse) == (0, 2)


def test_a_mean_of_parts_weighs_parts_alike() -> None:
    random = np.random.default_rng(4)
    large, small = random.uniform(size=90), random.uniform(size=10)
    mean = mean_of([credits_of(large, range(90)), credits_of(small, range(90, 100))])
    assert mean.percent == pytest.approx(50 * (large.mean() + small.mean()))
    error = np.sqrt(large.var() / 90 + small.var() / 10) / 2
    low, high = mean.interval()
    assert (high - low) / 2 == pytest.approx(100 * 1.98 * error, rel=0.02)


def test_intervals_are_named_after_their_score() -> None:
    named = intervals({"accuracy": credits_of([1.0, 0.0, 1.0], range(3))})
    assert list(named) == ["accuracy_interval"]
    assert len(named["accuracy_interval"]) == 2


def test_the_mean_of_nothing_is_not_defined() -> None:
    with pytest.raises(ValueError, match="mean of nothing"):
        _ = Credits([], [], []).percent
