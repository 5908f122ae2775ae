"""Credits: what a score is the mean of, the score's 95 % interval, and the difference of two.

N units (examples, sentences, images), G clusters of units that are right and wrong together, such
as the questions about one image. The variance is that of sums over clusters (Liang and Zeger 1986,
Biometrika 73), and Student's t with G - 1 degrees gives the quantiles.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Floats = NDArray[np.float64]
# Of an interval: what lies outside on each side.
TAIL = 0.025


@dataclass(frozen=True, slots=True, eq=False)
class Credits:
    """The credit of each unit; their mean is a score, in percent 100 times it."""

    values: Sequence[float] | NDArray[np.floating]
    """[N] usually 0..1; anything else where the score is no plain mean but has this one."""
    clusters: Sequence[Hashable]
    """[N]"""
    units: Sequence[Hashable]
    """[N] each once."""
    most: float = 1.0
    """The highest mean that there can be; the lowest is 0."""

    @property
    def percent(self) -> float:
        """Return the score; the order of the units does not matter."""
        if not len(self.values):
            raise ValueError("the mean of nothing is not defined")
        return float(100 * np.sort(np.asarray(self.values, np.float64)).mean())

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the score, in percent."""
        influence = np.array([*self.influence().values()])
        mean, margin = self.percent / 100, self.most * _margin(influence / self.most)
        low, high = np.clip([mean - margin, mean + margin], 0.0, self.most).tolist()
        return 100 * low, 100 * high

    def influence(self) -> dict[Hashable, float]:
        """Return how much each cluster has moved the mean; together they are 0."""
        values = np.asarray(self.values, np.float64)
        index_of: dict[Hashable, int] = {}
        indices = [index_of.setdefault(cluster, len(index_of)) for cluster in self.clusters]
        moved = np.bincount(indices, values - values.mean()) / len(values)
        return dict(zip(index_of, moved.tolist(), strict=True))


class Difference(NamedTuple):
    """How much better one set of answers is than another to the same examples, in percent."""

    mean: float
    interval: tuple[float, float]
    """95 %"""
    p: float
    """How likely a difference as large would be if there were none; two-sided."""
    better: int
    """Units with more credit than before."""
    worse: int


def difference(first: Credits, other: Credits) -> Difference:
    """Return what `other` has more than `first`, paired by cluster.

    What makes a cluster hard is hard for both, so this says more than their two intervals.
    """
    ours, theirs = first.influence(), other.influence()
    clusters = ours.keys() | theirs.keys()
    influence = np.array([theirs.get(one, 0.0) - ours.get(one, 0.0) for one in clusters])
    most = first.most
    mean, margin = (other.percent - first.percent) / 100, most * _margin(influence / most)
    low, high = np.clip([mean - margin, mean + margin], -most, most).tolist()
    before = dict(zip(first.units, first.values, strict=True))
    pairs = [(before[u], v) for u, v in zip(other.units, other.values, strict=True) if u in before]
    return Difference(
        mean=100 * mean,
        interval=(100 * low, 100 * high),
        p=_p_value(mean, influence),
        better=int(sum(new > old for old, new in pairs)),
        worse=int(sum(new < old for old, new in pairs)),
    )


def intervals(credits: Mapping[str, Credits]) -> dict[str, list[float]]:
    """Return `NAME_interval` of each score."""
    return {f"{name}_interval": list(own.interval()) for name, own in credits.items()}


def mean_of(parts: Sequence[Credits]) -> Credits:
    """Return credits whose mean is the mean of those of several parts, whatever their sizes.

    Units of a larger part weigh less: each is the mean plus what it moves it by.
    """
    total = sum(len(part.values) for part in parts)
    means = [float(np.mean(part.values)) for part in parts]
    values = [
        np.mean(means) + (np.asarray(part.values, np.float64) - mean) * total / weight
        for part, mean in zip(parts, means, strict=True)
        for weight in (len(parts) * len(part.values),)
    ]
    return Credits(
        np.concatenate(values),
        [cluster for part in parts for cluster in part.clusters],
        [unit for part in parts for unit in part.units],
        parts[0].most,
    )


def _margin(influence: Floats) -> float:
    """Return half of the width of the 95 % interval of a mean in 0..1; influence [G]."""
    count = len(influence)
    if count < 2:
        return 1.0  # one cluster alone tells nothing
    error = _standard_error(influence)
    if not error:
        # All alike: what so many independent trials without a miss leave open (Clopper-Pearson).
        return 1 - float(TAIL ** (1 / count))
    return float(stdtrit(count - 1, 1 - TAIL)) * error


def _p_value(mean: float, influence: Floats) -> float:
    error, count = _standard_error(influence), len(influence)
    if not mean or count < 2:
        return 1.0
    # Where all clusters differ by the same, this is the sign test.
    return float(2 * stdtr(count - 1, -abs(mean) / error)) if error else 2 * float(0.5**count)


def _standard_error(influence: Floats) -> float:
    count = len(influence)
    error = np.sqrt(np.square(influence).sum() * count / max(count - 1, 1))
    # What is left of sums that cancel out.
    return 0.0 if error < 1e-12 else float(error)
