"""How a rank's share of a step is cut into parts: evenly, or by what a forward pass may take."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from semvlp.train.train_config import TrainConfig


def cut(rows: Sequence[int], config: TrainConfig) -> list[slice]:
    """Runs of the things of a step, which take so many `rows` of a packed batch each."""
    if config.part_rows:
        return list(filled(rows, config.part_rows))
    return list(evenly(len(rows), config.accumulate))


def evenly(count: int, parts: int) -> Iterator[slice]:
    """Cut `count` things into `parts` runs whose lengths differ by one at most."""
    bounds = [count * part // parts for part in range(parts + 1)]
    return (slice(low, high) for low, high in pairwise(bounds))


def filled(rows: Sequence[int], most: int) -> Iterator[slice]:
    """Runs as long as they can be with at most `most` rows; one thing may take more by itself."""
    first = total = 0
    for index, size in enumerate(rows):
        if index > first and total + size > most:
            yield slice(first, index)
            first, total = index, 0
        total += size
    yield slice(first, len(rows))
