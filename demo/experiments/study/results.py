"""Means over seeds, their standard errors, and differences within a seed."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from semvlp.demo.experiments.study.run import Result
from semvlp.demo.language.kinds import LEVELS
from semvlp.names import EvalMode

Shown = EvalMode | Literal["as trained"]
"""A mode of the evaluation; `as trained` is the one that a network is meant to be used in."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds."""

    mean: float
    error: float | None
    """Its standard error; None of one value."""
    count: int

    def text(self, *, signed: bool = False) -> str:
        """Write e.g. `81.2 ± 0.4`, or with its sign `+1.5 ± 0.3`."""
        rounded = round(self.mean, 1) + 0.0  # no -0.0
        value = f"{rounded:+.1f}" if signed else f"{rounded:.1f}"
        return value if self.error is None else f"{value} ± {self.error:.1f}"


def mean_of(values: Sequence[float]) -> Mean | None:
    """Return the mean of values with its standard error; None without any."""
    if not values:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(statistics.fmean(values), error, len(values))


def accuracy(result: Result, mode: Shown, row: str) -> float:
    """Return the accuracy of one training for a kind of statement, or the mean over a level's."""
    by_kind = result.accuracy[result.trained if mode == "as trained" else mode]
    return statistics.fmean(by_kind[kind] for kind in LEVELS.get(row, (row,)))


class Results:
    """The results of one part."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._by_name: dict[str, dict[int, Result]] = {}
        for result in results:
            self._by_name.setdefault(result.name, {})[result.seed] = result

    @property
    def names(self) -> list[str]:
        """Return the names that have results."""
        return list(self._by_name)

    def all(self) -> list[Result]:
        """Return every result, by name and seed."""
        return [seeds[seed] for seeds in self._by_name.values() for seed in sorted(seeds)]

    def mean(self, name: str, mode: Shown, row: str) -> Mean | None:
        """Return the mean accuracy over the seeds."""
        seeds = self._by_name.get(name, {})
        return mean_of([accuracy(result, mode, row) for result in seeds.values()])

    def difference(
        self, name: str, other: str, row: str, mode: Shown, other_mode: Shown | None = None
    ) -> Mean | None:
        """Return the mean of `name` minus `other` within each seed that both have."""
        mine, others = self._by_name.get(name, {}), self._by_name.get(other, {})
        return mean_of(
            [
                accuracy(mine[seed], mode, row) - accuracy(others[seed], other_mode or mode, row)
                for seed in sorted(mine.keys() & others.keys())
            ]
        )
