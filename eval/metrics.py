"""Pure metrics: accuracy, consistency, answer distribution, recall of rankings.

Q queries (captions), K candidates (images). Rates are percent.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import SemVLPError
from semvlp.eval.credits import Credits
from semvlp.eval.task import Example, Rank

RECALLS = (1, 5, 10)


def percent(values: Iterable[float]) -> float:
    """Return the mean of values in 0..1 as percent; their order does not matter."""
    listed = np.sort(np.fromiter(values, np.float64))
    if not len(listed):
        raise ValueError("the mean of nothing is not defined")
    return float(100 * listed.mean())


def of_examples(
    examples: Sequence[Example], values: Sequence[float] | NDArray[np.floating]
) -> Credits:
    """Return the credits of examples, clustered by image, or by what `Example.meta` says."""
    clusters = [example.meta.get("cluster", example.images) for example in examples]
    return Credits(values, clusters, [example.example_id for example in examples])


def by_subset(examples: Sequence[Example], values: Sequence[float]) -> dict[str, Credits]:
    """Return the credits of each subset that examples name."""
    parts = defaultdict(list)
    for example, value in zip(examples, values, strict=True):
        if example.meta.get("subset") is not None:
            parts[example.meta["subset"]].append((example, value))
    return {name: of_examples(*zip(*parts[name], strict=True)) for name in sorted(parts)}


def consistency(
    groups: Sequence[Hashable], values: Sequence[float] | NDArray[np.floating]
) -> Credits:
    """Return the credits of groups: 1 to those that are right in every member, else 0.

    Each group is a cluster of its own (lil-lab/nlvr metrics.py).
    """
    whole: dict[Hashable, bool] = {}
    for group, value in zip(groups, values, strict=True):
        whole[group] = whole.get(group, True) and value == 1
    return Credits([*whole.values()], [*whole], [*whole])


def by_part(examples: Sequence[Example], values: Sequence[float]) -> dict[str, dict[str, Credits]]:
    """Return the credits by table and row, which are those of `Example.meta`."""
    tables: dict[str, defaultdict[str, list[tuple[Example, float]]]] = {}
    for example, value in zip(examples, values, strict=True):
        for table, rows in example.meta.get("parts", {}).items():
            for row in rows:
                tables.setdefault(table, defaultdict(list))[row].append((example, value))
    return {
        table: {row: of_examples(*zip(*pairs, strict=True)) for row, pairs in sorted(rows.items())}
        for table, rows in tables.items()
    }


def distribution(gold: Mapping[str, Sequence[str]], given: Mapping[str, Sequence[str]]) -> float:
    """Return the chi-square distance of answers from gold answers; lower is better.

    Groups weigh by their size and only answers that occur in the gold answers count, as in GQA's
    eval.py (Hudson & Manning 2019), which also divides by 100.
    """
    total = 0.0
    for group in sorted(gold):
        expected, observed = Counter(gold[group]), Counter(given[group])
        distance = sum((observed[answer] - n) ** 2 / n for answer, n in sorted(expected.items()))
        total += distance * len(gold[group])
    return total / sum(map(len, gold.values())) / 100


def text_to_image(scores: NDArray[np.floating], image_of: NDArray[np.integer]) -> list[Rank]:
    """Rank each caption's own image among all images.

    Args:
        scores: [Q, K] one row for each caption, higher fits better.
        image_of: [Q] column of each caption's image.

    Raises:
        SemVLPError: a score that is NaN, which any sorting would put first, or +inf; -inf says
            that a pair is not on the shortlist.
    """
    _check_finite(scores)
    right = scores[np.arange(len(scores)), image_of][:, None]
    return _ranks((scores >= right).sum(1) - 1, (scores == right).sum(1) - 1)


def image_to_text(scores: NDArray[np.floating], image_of: NDArray[np.integer]) -> list[Rank]:
    """Rank each image's best own caption among all captions of other images.

    Args and Raises: as `text_to_image`.
    """
    _check_finite(scores)
    own = scores[np.arange(len(scores)), image_of]
    best = np.full(scores.shape[1], -np.inf, dtype=scores.dtype)
    np.maximum.at(best, image_of, own)
    own_at_best = np.zeros(scores.shape[1], dtype=np.int64)
    np.add.at(own_at_best, image_of, own == best[image_of])
    return _ranks((scores >= best).sum(0) - own_at_best, (scores == best).sum(0) - own_at_best)


def recalls(ranks: Sequence[Rank], prefix: str) -> dict[str, float]:
    """Return `{prefix}_r1`, `_r5`, `_r10`: the share of ranks from 1 to 1, 5 and 10."""
    return {f"{prefix}_r{k}": percent(rank.rank <= k for rank in ranks) for k in RECALLS}


def _ranks(above: NDArray[np.integer], ties: NDArray[np.integer]) -> list[Rank]:
    return [Rank(int(a) + 1, int(t)) for a, t in zip(above, ties, strict=True)]


def _check_finite(scores: NDArray[np.floating]) -> None:
    bad = int((np.isnan(scores) | (scores == np.inf)).sum())
    if bad:
        raise SemVLPError(
            f"scores must be finite to be ranked, but {bad} of {scores.size} are not; "
            "the model's weights are damaged or its precision is too low"
        )
