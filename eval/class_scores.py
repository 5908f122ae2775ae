"""Scores of a classification that are no plain means: F1 by class, AUROC, average precision.

Each is given as credits [N], one for each example: their mean is the score, and their spread
around it tells its variance, for they are the score plus the influence of the example on it (the
infinitesimal jackknife; Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans). So
the interval of any of them is that of a mean, clustered as any other.

N examples, C classes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def class_table(gold: Sequence[str], said: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return precision, recall and F1 of each class in percent, and `count`, its examples.

    The classes are those that are right somewhere or said somewhere. What would be divided by
    nothing is 0.
    """
    names, right, wanted, given = _counts(gold, said)
    both = np.maximum(wanted + given, 1)
    columns = {
        "precision": 100 * right / np.maximum(given, 1),
        "recall": 100 * right / np.maximum(wanted, 1),
        "f1": 200 * right / both,
        "count": wanted,
    }
    return {
        name: {column: float(values[index]) for column, values in columns.items()}
        for index, name in enumerate(names)
    }


def f1_credits(gold: Sequence[str], said: Sequence[str]) -> Values:
    """Return the credits [N] of macro-F1, the mean F1 over the classes of `class_table`."""
    names, right, wanted, given = _counts(gold, said)
    index = {name: row for row, name in enumerate(names)}
    rows, columns = (np.array([index[name] for name in side]) for side in (gold, said))
    size = wanted + given  # [C], never 0: each class is somewhere
    f1 = 2 * right / size
    # F1 is a ratio of two means over examples: 2 hits to the size of the class.
    hits = np.where(rows == columns, 2 / size[rows], 0.0)
    share = f1[rows] / size[rows] + f1[columns] / size[columns]
    credits: Values = f1.mean() + (hits - share) * len(rows) / len(names)
    return credits


def auroc_credits(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> Values:
    """Return the credits [N] of the area under the ROC curve.

    Args:
        positive: [N] True: the example is of the positive class; both classes occur.
        scores: [N] higher is more positive; ties count half.
    """
    of_positive, of_negative = np.sort(scores[positive]), np.sort(scores[~positive])
    won = np.empty(len(scores))
    won[positive] = _below(of_negative, scores[positive])
    won[~positive] = 1 - _below(of_positive, scores[~positive])
    area = won[positive].mean()
    class_size = np.where(positive, len(of_positive), len(of_negative))
    credits: Values = area + (won - area) * len(scores) / class_size
    return credits


def precision_credits(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> Values:
    """Return the credits [N] of average precision: the mean precision at each positive example.

    Args: as `auroc_credits`; examples of equal scores share a threshold.
    """
    levels, level = np.unique(-scores, return_inverse=True)  # falling scores
    hits = np.bincount(level, positive, len(levels))
    above = np.bincount(level, minlength=len(levels)).cumsum()  # examples at or above a level
    precision = hits.cumsum() / above
    total = hits.sum()
    average = (hits * precision).sum() / total
    # An example changes the precision of every level at or below its own.
    gained = (hits / above)[::-1].cumsum()[::-1]
    lost = (hits * precision / above)[::-1].cumsum()[::-1]
    own = np.where(positive, precision[level] - average + gained[level], 0.0) - lost[level]
    credits: Values = average + own * len(scores) / total
    return credits


def _counts(
    gold: Sequence[str], said: Sequence[str]
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the classes and, of each, how often it is said rightly, is right, is said [C]."""
    names = sorted({*gold, *said})
    index = {name: row for row, name in enumerate(names)}

    def count(labels: Sequence[str]) -> NDArray[np.int64]:
        return np.bincount([index[label] for label in labels], minlength=len(names))

    hits = [one for one, other in zip(gold, said, strict=True) if one == other]
    return names, count(hits), count(gold), count(said)


def _below(others: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of sorted `others` below each score, ties counted half."""
    sides = [np.searchsorted(others, scores, side) for side in ("left", "right")]
    return (sides[0] + sides[1]) / 2 / len(others)
