"""The order of samples is a pure function: bijective, pinned to fixed integers, well mixed."""

import numpy as np
import pytest

from semvlp.shards.stream import order

# Pinned integers: a change here changes the order of every run that is resumed.
GOLDEN_KEYS = {
    (0, 0): 13932772642666305074,
    (1, 0): 5354816265436943141,
    (1, 1): 7873770998351027303,
}
GOLDEN_SMALL = [7, 1, 6, 9, 8, 0, 4, 3, 2, 5]
GOLDEN_LARGE = [145515, 2248310, 253273, 1595531, 3053728, 2986092, 1579263, 2577428]
GOLDEN_PHILOX = [16460501902711737671, 16237970835374509480, 637757863462963358]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100, 300, 4095, 4096, 4097, 5000])
def test_permute_is_a_bijection(n: int) -> None:
    key = order.key(3, n)
    assert sorted(order.permute(index, n, key) for index in range(n)) == list(range(n))


@pytest.mark.parametrize("n", [1, 10, 4095, 4096, 5000, 70_000])
def test_all_at_once_is_the_same_as_one_by_one(n: int) -> None:
    key = order.key(2, n)
    some = np.arange(0, n, max(n // 500, 1))
    expected = [order.permute(index, n, key) for index in some.tolist()]
    assert order.permute_all(some, n, key).tolist() == expected
    with pytest.raises(IndexError):
        order.permute_all(np.array([n]), n, key)


def test_golden_vectors() -> None:
    assert {pair: order.key(*pair) for pair in GOLDEN_KEYS} == GOLDEN_KEYS
    assert [order.permute(index, 10, order.key(7, 2)) for index in range(10)] == GOLDEN_SMALL
    assert [order.permute(index, 3_300_000, 12345) for index in range(8)] == GOLDEN_LARGE
    raw = order.generator(7, 11, "masking").bit_generator.random_raw(3)
    assert [int(value) for value in raw] == GOLDEN_PHILOX


def test_splitmix64_is_the_published_generator() -> None:
    # First outputs of SplitMix64 with seed 1234567 (Vigna's splitmix64.c): the state grows by the
    # golden gamma before each finalisation.
    gamma = 0x9E3779B97F4A7C15
    states = [(1234567 + step * gamma) % 2**64 for step in range(3)]
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [order._splitmix64(state) for state in states] == published


@pytest.mark.parametrize("index", [-1, 10])
@pytest.mark.parametrize("n", [10])
def test_an_index_outside_is_refused(index: int, n: int) -> None:
    with pytest.raises(IndexError, match=r"0\.\.9"):
        order.permute(index, n, 1)


@pytest.mark.parametrize("n", [4000, 6000])
def test_images_and_positions_are_uncorrelated(n: int) -> None:
    first = np.array([order.permute(index, n, order.key(1, 0)) for index in range(n)])
    second = np.array([order.permute(index, n, order.key(1, 1)) for index in range(n)])
    # A correlation of independent sequences has a standard deviation of 1/sqrt(n) = 0.016.
    assert abs(np.corrcoef(first, np.arange(n))[0, 1]) < 0.06
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.06
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06


def test_large_permutation_fills_cells_evenly() -> None:
    n, cells = 8000, 20
    counts = np.zeros((cells, cells))
    key = order.key(5, 0)
    for index in range(n):
        counts[index * cells // n, order.permute(index, n, key) * cells // n] += 1
    expected = n / cells**2
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    # 361 degrees of freedom: mean 361, standard deviation 27; five of them each way.
    assert 226 < chi_squared < 496


def test_generators_depend_on_seed_position_and_purpose_alone() -> None:
    def numbers(*arguments: int | str) -> list[float]:
        return order.generator(*arguments).random(4).tolist()  # type: ignore[arg-type]

    assert numbers(1, 2, "caption") == numbers(1, 2, "caption")
    distinct = [numbers(1, 2, "caption"), numbers(2, 2, "caption"), numbers(1, 3, "caption")]
    distinct += [numbers(1, 2, "masking"), numbers(12, 3, "caption"), numbers(1, 23, "caption")]
    assert len({tuple(row) for row in distinct}) == len(distinct)


def test_generator_numbers_are_uniform_over_positions() -> None:
    first = [order.generator(0, position, "masking").random() for position in range(1000)]
    # Standard error of the mean of 1,000 uniform numbers: 0.009.
    assert abs(np.mean(first) - 0.5) < 0.045
    assert len(set(first)) == 1000


def test_reused_generators_draw_the_same_numbers() -> None:
    reused = order.Generators()
    for seed, position in [(0, 0), (3, 2**40), (3, 1)]:
        ours, theirs = reused(seed, position, "text"), order.generator(seed, position, "text")
        # An odd number of 32-bit draws leaves half a word, which the next must not begin with.
        assert (
            ours.integers(0, 9, 7, np.uint32).tolist()
            == theirs.integers(0, 9, 7, np.uint32).tolist()
        )
        assert ours.random(5).tolist() == theirs.random(5).tolist()
