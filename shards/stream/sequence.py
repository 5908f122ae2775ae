"""The image, and the text of it, that each position of the global sequence visits.

A pure function of sizes and seed: nothing here opens a file, and what is kept are tables of the
epoch in use. P positions asked for at once.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import ConfigError
from semvlp.shards.stream.order import draw, key, permutation, permute_all

Order = Literal["full", "block", "sequential"]
"""`full` mixes all images; `block` those of some shards at a time, where random access is slow;
`sequential` is the order of the plan."""

WINDOW = 1024
"""Images whose pairs are mixed with one another, so that each is read once and kept that long."""
CYCLE = 4096
"""Positions within which each of several data sets has exactly its share."""


Numbers = NDArray[np.int64]


class Schedule(NamedTuple):
    """The visits at some positions of a data set; [P] each."""

    epochs: Numbers
    indices: Numbers
    """The images."""
    texts: Numbers | None = None
    """Which text of each, captions before questions, where pairs are visited."""


class Epochs(Protocol):
    """The endless epochs of one data set."""

    def __len__(self) -> int:
        """Count the positions of one epoch."""

    def at(self, positions: Numbers) -> Schedule: ...


class ImageEpochs:
    """Epochs that visit every image once.

    Raises:
        ConfigError: `block_shards` is not positive.
    """

    def __init__(
        self, shard_sizes: Sequence[int], *, seed: int, order: Order, block_shards: int
    ) -> None:
        if block_shards < 1:
            raise ConfigError(f"block_shards must be 1 or more, got {block_shards}")
        self._sizes = np.array(shard_sizes, np.int64)
        self._firsts = np.cumsum(self._sizes) - self._sizes
        self._total = sum(shard_sizes)
        self._seed, self._order, self._block_shards = seed, order, block_shards
        self._blocks: tuple[int, list[_Block]] = (-1, [])

    def __len__(self) -> int:
        return self._total

    def at(self, positions: Numbers) -> Schedule:
        epochs, offsets = np.divmod(positions, self._total)
        return Schedule(epochs, _by_group(epochs, offsets, self.of_epoch))

    def of_epoch(self, epoch: int, offsets: Numbers) -> Numbers:
        """Return the images at some offsets in one epoch."""
        if self._order == "full":
            return permute_all(offsets, self._total, key(self._seed, epoch))
        if self._order == "block":
            if self._blocks[0] != epoch:
                self._blocks = epoch, self._make_blocks(epoch)
            blocks = self._blocks[1]
            starts = [block.start for block in blocks]
            numbers = np.searchsorted(starts, offsets, "right") - 1
            return _by_group(numbers, offsets, lambda number, own: blocks[number].at(own))
        return offsets

    def _make_blocks(self, epoch: int) -> list["_Block"]:
        shards = permutation(len(self._sizes), draw(self._seed, epoch, "shards"))
        blocks, start = [], 0
        for first in range(0, len(shards), self._block_shards):
            own = shards[first : first + self._block_shards]
            name = draw(self._seed, epoch, f"block {first}")
            block = _Block(start, self._firsts[own], self._sizes[own], name)
            if block.total:
                blocks.append(block)
            start += block.total
        return blocks


class _Block:
    """Some shards whose images are mixed with one another."""

    def __init__(self, start: int, firsts: Numbers, sizes: Numbers, key: int) -> None:
        self.start, self.total = start, int(sizes.sum())
        self._key, self._ends = key, np.cumsum(sizes)
        self._shifts = firsts - (self._ends - sizes)

    def at(self, offsets: Numbers) -> Numbers:
        """Return the images at some offsets in the epoch."""
        shuffled = permute_all(offsets - self.start, self.total, self._key)
        return shuffled + self._shifts[np.searchsorted(self._ends, shuffled, "right")]


class PairEpochs:
    """Epochs that visit every text of every image once; an image without texts counts as one.

    The pairs of WINDOW images that follow one another are mixed: a reader that keeps as many images
    reads each once an epoch.
    """

    def __init__(self, images: ImageEpochs, texts: Numbers, *, seed: int) -> None:
        self._images, self._seed = images, seed
        self._texts = np.maximum(texts, 1)
        self._total = int(self._texts.sum())
        self._table: tuple[int, Numbers, Numbers] | None = None

    def __len__(self) -> int:
        return self._total

    def at(self, positions: Numbers) -> Schedule:
        epochs, offsets = np.divmod(positions, self._total)
        pairs = _by_group(epochs, offsets, self._of_epoch)
        return Schedule(epochs, pairs[:, 0], pairs[:, 1])

    def _of_epoch(self, epoch: int, offsets: Numbers) -> Numbers:
        """Return image and text, [P, 2]."""
        images, ends = self._table_of(epoch)
        windows = np.searchsorted(ends, offsets, "right") // WINDOW

        def mixed(window: int, own: Numbers) -> Numbers:
            start = int(ends[window * WINDOW - 1]) if window else 0
            end = int(ends[min((window + 1) * WINDOW, len(ends)) - 1])
            name = draw(self._seed, epoch, f"window {window}")
            return start + permute_all(own - start, end - start, name)

        offsets = _by_group(windows, offsets, mixed)
        rows = np.searchsorted(ends, offsets, "right")
        indices = images[rows]
        return np.stack([indices, offsets - (ends[rows] - self._texts[indices])], axis=1)

    def _table_of(self, epoch: int) -> tuple[Numbers, Numbers]:
        """Return the images in order, and the number of pairs up to the end of each."""
        if self._table is None or self._table[0] != epoch:
            images = self._images.of_epoch(epoch, np.arange(len(self._images)))
            self._table = epoch, images, np.cumsum(self._texts[images])
        return self._table[1:]


class Mixture:
    """The data set of each position, and its position there: exact shares in each CYCLE.

    Raises:
        ConfigError: a weight that is not positive, or too small for one place of a cycle.
    """

    def __init__(self, weights: Sequence[float], *, seed: int) -> None:
        self._counts = np.array(shares(weights, CYCLE))
        self._seed = seed
        self._table: tuple[int, Numbers, Numbers] | None = None

    def at(self, positions: Numbers) -> tuple[Numbers, Numbers]:
        """Return the data set of each position, and the position in its own epochs."""
        cycles, slots = np.divmod(positions, CYCLE)
        datasets = _by_group(cycles, slots, lambda cycle, own: self._table_of(cycle)[0][own])
        ranks = _by_group(cycles, slots, lambda cycle, own: self._table_of(cycle)[1][own])
        return datasets, cycles * self._counts[datasets] + ranks

    def _table_of(self, cycle: int) -> tuple[Numbers, Numbers]:
        """Return the data set of each slot, and how many before it have the same; [CYCLE] each."""
        if self._table is None or self._table[0] != cycle:
            shuffled = permutation(CYCLE, draw(self._seed, cycle, "mixture"))
            datasets = np.searchsorted(np.cumsum(self._counts), shuffled, "right")
            ranks = np.empty(CYCLE, np.int64)
            for dataset, count in enumerate(self._counts):
                ranks[datasets == dataset] = np.arange(count)
            self._table = cycle, datasets, ranks
        return self._table[1:]


def _by_group(
    groups: Numbers, values: Numbers, function: Callable[[int, Numbers], Numbers]
) -> Numbers:
    """Put `function(group, values of that group)` of each group where its values stand."""
    distinct = np.unique(groups).tolist()
    if len(distinct) == 1:
        return function(distinct[0], values)
    parts = [(groups == group, function(group, values[groups == group])) for group in distinct]
    result = np.empty((len(values), *parts[0][1].shape[1:]), np.int64)
    for mask, part in parts:
        result[mask] = part
    return result


def shares(weights: Sequence[float], total: int) -> list[int]:
    """Split `total` into whole numbers in proportion to the weights, by largest remainders.

    Raises:
        ConfigError: a weight that is not positive, or whose share is less than one.
    """
    if not weights or not all(0 < weight < float("inf") for weight in weights):
        raise ConfigError(f"weights must be positive numbers, got {list(weights)}")
    exact = [weight * total / sum(weights) for weight in weights]
    counts = [int(share) for share in exact]
    remainders = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for index in remainders[: total - sum(counts)]:
        counts[index] += 1
    if min(counts) < 1:
        raise ConfigError(f"each weight must be at least 1/{total} of all, got {list(weights)}")
    return counts
