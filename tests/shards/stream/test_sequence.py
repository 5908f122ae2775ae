"""Which image a position visits: every image once an epoch, near ones together only where asked."""

import pickle
import random

import numpy as np
import pytest
import webdataset
from numpy.typing import NDArray

from semvlp.shards.stream.sequence import (
    CYCLE,
    WINDOW,
    ImageEpochs,
    Mixture,
    Order,
    PairEpochs,
    shares,
)

# Pinned integers: a change here changes the order of every run that is resumed.
GOLDEN_FULL = [10, 2, 5, 18, 9, 21]
GOLDEN_BLOCK = [4, 2, 0, 1, 3, 21]
GOLDEN_PAIRS = [[10, 6, 11, 12, 13, 2], [0, 0, 1, 0, 0, 0]]
GOLDEN_MIXTURE = [[0, 1, 0, 0, 0, 0], [0, 0, 1, 2, 3, 4]]

SIZES = (5, 0, 7, 1, 5, 4)


def images(
    sizes: tuple[int, ...] = SIZES, order: Order = "block", block_shards: int = 2
) -> ImageEpochs:
    return ImageEpochs(sizes, seed=7, order=order, block_shards=block_shards)


def pairs() -> PairEpochs:
    return PairEpochs(images(), np.arange(sum(SIZES)) % 4, seed=7)


def test_golden_vectors() -> None:
    first = np.arange(6)
    assert images(order="full").at(first).indices.tolist() == GOLDEN_FULL
    assert images().at(first).indices.tolist() == GOLDEN_BLOCK
    schedule = pairs().at(first)
    assert schedule.texts is not None
    assert [schedule.indices.tolist(), schedule.texts.tolist()] == GOLDEN_PAIRS
    mixed = Mixture([3, 1], seed=7).at(first)
    assert [part.tolist() for part in mixed] == GOLDEN_MIXTURE


@pytest.mark.parametrize("order", ["full", "block", "sequential"])
@pytest.mark.parametrize("block_shards", [1, 2, 4, 99])
def test_every_epoch_has_every_image_once(order: Order, block_shards: int) -> None:
    visited = images(order=order, block_shards=block_shards).at(np.arange(5 * 22))
    for epoch in range(5):
        assert sorted(visited.indices[visited.epochs == epoch].tolist()) == list(range(22))


def test_any_cut_of_the_positions_gives_the_same() -> None:
    whole = images().at(np.arange(100)).indices
    for size in (1, 3, 7, 50):
        cuts = [images().at(np.arange(i, min(i + size, 100))).indices for i in range(0, 100, size)]
        np.testing.assert_array_equal(np.concatenate(cuts), whole)


def test_a_block_visits_its_shards_before_the_next_begins() -> None:
    sizes = (50,) * 12
    visited = images(sizes, block_shards=4).at(np.arange(600)).indices // 50
    blocks = [set(visited[start : start + 200].tolist()) for start in (0, 200, 400)]
    assert [len(block) for block in blocks] == [4, 4, 4]
    assert set.union(*blocks) == set(range(12))
    # Within a block the shards are mixed: the first 50 visits are of all four.
    assert set(visited[:50].tolist()) == blocks[0]
    again = images(sizes, block_shards=4).at(np.arange(600, 1200)).indices // 50
    assert [set(again[start : start + 200].tolist()) for start in (0, 200, 400)] != blocks


def test_every_epoch_has_every_pair_once() -> None:
    counts = np.maximum(np.arange(22) % 4, 1)
    everything = {(image, text) for image in range(22) for text in range(counts[image])}
    assert len(pairs()) == len(everything)
    for epoch in range(3):
        schedule = pairs().at(np.arange(len(pairs())) + epoch * len(pairs()))
        assert schedule.texts is not None
        visited = list(zip(schedule.indices.tolist(), schedule.texts.tolist(), strict=True))
        assert len(visited) == len(everything)
        assert set(visited) == everything
        assert set(schedule.epochs.tolist()) == {epoch}


def test_the_pairs_of_an_image_stay_within_a_window() -> None:
    count = 3 * WINDOW + 10
    epochs = PairEpochs(images((count,), order="full"), np.full(count, 5), seed=1)
    visited = epochs.at(np.arange(len(epochs))).indices
    windows_of: dict[int, list[int]] = {}
    for position, index in enumerate(visited.tolist()):
        windows_of.setdefault(index, []).append(position // (5 * WINDOW))
    assert all(len(set(windows)) == 1 for windows in windows_of.values())
    # Neighbours are of different images: the pairs are mixed.
    assert (visited[1:] == visited[:-1]).mean() < 0.01


def test_shares_are_exact_in_every_cycle() -> None:
    mixture = Mixture([0.5, 0.3, 0.2], seed=1)
    counts = shares([0.5, 0.3, 0.2], CYCLE)
    assert sum(counts) == CYCLE
    for cycle in range(3):
        datasets, own = mixture.at(np.arange(cycle * CYCLE, (cycle + 1) * CYCLE))
        assert np.bincount(datasets).tolist() == counts
        for dataset, count in enumerate(counts):
            expected = np.arange(cycle * count, (cycle + 1) * count)
            np.testing.assert_array_equal(own[datasets == dataset], expected)


def test_a_mixture_is_mixed() -> None:
    sources, _ = Mixture([1, 1], seed=3).at(np.arange(CYCLE))
    # Of 4,095 neighbours half differ; the standard deviation is 32.
    assert abs(int((sources[1:] != sources[:-1]).sum()) - 2048) < 160


@pytest.mark.parametrize("epochs", [images(), pairs()])
def test_a_copy_for_another_process_gives_the_same(epochs: ImageEpochs | PairEpochs) -> None:
    epochs.at(np.arange(10))
    copy = pickle.loads(pickle.dumps(epochs))
    np.testing.assert_array_equal(copy.at(np.arange(60)).indices, epochs.at(np.arange(60)).indices)


def distinct(indices: NDArray[np.int64], shard: int, batch: int) -> float:
    """Shards that the images of a batch come from, on average."""
    rows = indices[: len(indices) // batch * batch].reshape(-1, batch) // shard
    return float(np.mean([len(set(row.tolist())) for row in rows]))


def buffered(count: int, size: int, seed: int) -> NDArray[np.int64]:
    """Visits through webdataset's shuffle buffer, over files in random order."""
    shards = np.random.default_rng(seed).permutation(count // SHARD)
    stream = iter((shards[:, None] * SHARD + np.arange(SHARD)).reshape(-1).tolist())
    shuffled = webdataset.filters.shuffle(size, initial=size, rng=random.Random(seed))
    return np.array(list(shuffled(stream)))


SHARD = 2000


def test_blocks_mix_better_than_a_buffer_and_full_order_best() -> None:
    count = 60 * SHARD
    orders: tuple[Order, ...] = ("full", "block")
    visited = {}
    for order in orders:
        epochs = ImageEpochs((SHARD,) * 60, seed=5, order=order, block_shards=16)
        visited[order] = distinct(epochs.at(np.arange(count)).indices, SHARD, 256)
    # 256 draws among 60 shards meet 59.2 of them on average, among 16 all.
    assert abs(visited["full"] - 60 * (1 - (59 / 60) ** 256)) < 0.5
    assert 15 < visited["block"] < 17
    assert distinct(buffered(count, 1000, 5), SHARD, 256) < 5
