"""F1, AUROC and average precision: against scikit-learn and against a bootstrap."""

import numpy as np
import pytest

from semvlp.eval.class_scores import auroc_credits, class_table, f1_credits, precision_credits
from semvlp.eval.credits import Credits

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")


@pytest.mark.parametrize("count", [5, 50, 500])
def test_the_mean_of_credits_is_the_score(count: int) -> None:
    random = np.random.default_rng(count)
    positive = np.arange(count) % 3 == 0
    scores = np.round(random.random(count) + positive * 0.3, 1)  # with ties
    gold, said = ([*map(str, random.integers(0, most, count))] for most in (4, 5))
    reference = sklearn_metrics.roc_auc_score(positive, scores)
    assert auroc_credits(positive, scores).mean() == pytest.approx(reference)
    reference = sklearn_metrics.average_precision_score(positive, scores)
    assert precision_credits(positive, scores).mean() == pytest.approx(reference)
    reference = sklearn_metrics.f1_score(gold, said, average="macro", zero_division=0)
    assert f1_credits(gold, said).mean() == pytest.approx(reference)
    table = sklearn_metrics.classification_report(gold, said, output_dict=True, zero_division=0)
    for name, row in class_table(gold, said).items():
        assert row["precision"] == pytest.approx(100 * table[name]["precision"])
        assert row["recall"] == pytest.approx(100 * table[name]["recall"])
        assert row["f1"] == pytest.approx(100 * table[name]["f1-score"])
        assert row["count"] == table[name]["support"]


def test_intervals_are_those_of_a_bootstrap_of_clusters() -> None:
    random = np.random.default_rng(0)
    positive = random.random(400) < 0.4
    scores = np.round(random.random(400) + positive * 0.3, 2)
    clusters = random.integers(0, 100, 400)
    members = [np.flatnonzero(clusters == cluster) for cluster in range(100)]
    drawn = []
    for _ in range(300):
        rows = np.concatenate([members[c] for c in random.integers(0, 100, 100)])
        drawn.append(
            (
                auroc_credits(positive[rows], scores[rows]).mean(),
                precision_credits(positive[rows], scores[rows]).mean(),
            )
        )
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0) * 100
    for index, of in enumerate((auroc_credits, precision_credits)):
        ends = Credits(of(positive, scores), clusters.tolist(), range(len(scores))).interval()
        assert ends == pytest.approx((low[index], high[index]), abs=1.5)
