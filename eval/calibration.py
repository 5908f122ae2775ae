"""Calibration: whether answers are right as often as their probabilities say.

N examples; confidence is the probability of the answer that was given, credit how right it is.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp.eval.metrics import of_examples
from semvlp.eval.task import Example

BINS = 15
COVERAGES = range(10, 101, 10)


def expected_error(confidence: NDArray[np.floating], credit: NDArray[np.floating]) -> float:
    """Return the expected calibration error in percent (Guo et al. 2017, arXiv:1706.04599).

    It is the distance of mean credit from mean confidence within each of 15 bins of equal width,
    mean over the examples.

    Args:
        confidence: [N] 0..1
        credit: [N] 0..1
    """
    gaps = np.bincount(_bins(confidence), confidence - credit, BINS)
    return float(100 * np.abs(gaps).sum() / len(credit))


def calibration(
    examples: Sequence[Example], confidence: NDArray[np.floating], credit: NDArray[np.floating]
) -> dict[str, list[dict[str, Any]]]:
    """Return the reliability curve (`bins`) and the accuracy by coverage (`coverage`).

    A bin has its `count`, its mean `confidence` and its `accuracy`; coverage is the share of
    examples that are answered where the least confident are left to people. All are in percent,
    accuracies with their `interval`. Empty bins are left out.

    Args: as `expected_error`.
    """
    bins, order = _bins(confidence), np.argsort(-confidence, kind="stable")
    inside = [np.flatnonzero(bins == number) for number in range(BINS)]
    most = {share: order[: max(1, round(len(order) * share / 100))] for share in COVERAGES}

    def accuracy(rows: NDArray[np.integer]) -> dict[str, Any]:
        credits = of_examples([examples[row] for row in rows], credit[rows])
        return {"accuracy": credits.percent, "interval": list(credits.interval())}

    return {
        "bins": [
            {
                "count": len(rows),
                "confidence": float(100 * confidence[rows].mean()),
                **accuracy(rows),
            }
            for rows in inside
            if len(rows)
        ],
        "coverage": [
            {
                "coverage": share,
                "least_confidence": float(100 * confidence[rows[-1]]),
                **accuracy(rows),
            }
            for share, rows in most.items()
        ],
    }


def _bins(confidence: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the bin of each example; its upper end belongs to it."""
    bins: NDArray[np.int64] = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return bins
