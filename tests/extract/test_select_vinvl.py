"""VinVL's two rules against a literal reading of microsoft/scene_graph_benchmark.

maskrcnn_benchmark/modeling/roi_heads/box_head/inference.py, with the thresholds of its
vinvl_x152c4.yaml: SCORE_THRESH 0.2, NMS 0.5, 10 to 100 detections.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from semvlp.extract.detectors.detector import Proposals
from tests.extract.proposals import chosen, make, pick, random_proposals, slow_nms

SCORE_THRESH, LOW, HIGH = np.float32(0.2), 10, 100
Rows = list[int]
Labels = list[int]


def filter_results_peter(found: Proposals, low: int, high: int) -> tuple[Rows, Labels]:
    """One NMS for each class; each proposal with the likeliest class it survives in."""
    scores = found.object_scores[:, :-1]
    nms_mask = np.zeros_like(scores)
    for label in range(scores.shape[1]):
        nms_mask[slow_nms(found.proposals, scores[:, label], 0.3), label] = 1
    dists_all = nms_mask * scores
    scores_pre, labels_pre = dists_all.max(1), dists_all.argmax(1)
    (inds_pre,) = scores_pre.nonzero()
    scores_pre, labels_pre = scores_pre[inds_pre], labels_pre[inds_pre]
    order = np.argsort(-scores_pre, kind="stable")
    num_dets = int((scores_pre >= SCORE_THRESH).sum())
    if num_dets < low:
        keep = order[:low]
    elif num_dets > high:
        keep = order[:high]
    else:
        keep = order[:num_dets]
    return inds_pre[keep].tolist(), labels_pre[keep].tolist()


def filter_results_fast(found: Proposals, low: int, high: int) -> tuple[Rows, Labels]:
    """One NMS on the best class; what is hardly likely is left out before it."""
    scores, labels = found.object_scores[:, :-1].max(1), found.object_scores[:, :-1].argmax(1)
    (keep,) = np.nonzero(scores > np.float32(0.2 * 0.01))
    survivors = keep[slow_nms(found.proposals[keep], scores[keep], 0.5)]
    num_dets = int((scores[survivors] >= SCORE_THRESH).sum())
    taken = survivors[: min(max(num_dets, low), high)]
    return taken.tolist(), labels[taken].tolist()


RULES = {"vinvl_nms1": filter_results_peter, "vinvl_nms2": filter_results_fast}


def assert_same(found: Proposals, preset: str, low: int = LOW, high: int = HIGH) -> int:
    """The regions of the original in its order; their number."""
    rows, labels = RULES[preset](found, low, high)
    regions = pick(found, preset, low, high)
    assert chosen(regions) == rows
    assert regions.object_ids.tolist() == labels
    confidence = found.object_scores[rows, labels].astype(np.float16)
    np.testing.assert_array_equal(regions.object_conf, confidence)
    return len(rows)


@pytest.mark.parametrize("preset", RULES)
@pytest.mark.parametrize(
    ("count", "classes", "sharpness"),
    [(150, 400, 8.0), (150, 100, 14.0), (150, 100, 3.0), (60, 5, 8.0), (7, 5, 8.0)],
)
def test_equals_the_original(preset: str, count: int, classes: int, sharpness: float) -> None:
    found = random_proposals(count + classes, count, classes, sharpness)
    assert 0 < assert_same(found, preset) <= HIGH


@pytest.mark.parametrize("preset", RULES)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 30), low=st.integers(1, 20))
def test_equals_the_original_where_everything_ties(
    preset: str, seed: int, count: int, low: int
) -> None:
    """Coarse scores and whole-pixel boxes, several of them equal: the index decides."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 5, (count, 2)) * 10
    size = rng.integers(1, 4, (count, 2)) * 10
    boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    scores = (rng.integers(0, 4, (count, 6)) * 0.0625).astype(np.float32)
    assert_same(make(scores, boxes), preset, low, low + 5)


def crowd(count: int, best: float) -> Proposals:
    """Boxes of one place, each of some class the likeliest."""
    rng = np.random.default_rng(count)
    corner = rng.uniform(0, 4, (count, 2))
    boxes = np.concatenate([corner, corner + 100], axis=1).astype(np.float32)
    scores: NDArray[np.float32] = rng.uniform(0, best, (count, 3)).astype(np.float32)
    return make(scores, boxes)


def test_suppressed_proposals_are_never_taken() -> None:
    """30 boxes of one place: of one NMS one survives, of three one in each class."""
    found = crowd(30, 0.3)
    assert assert_same(found, "vinvl_nms2") == 1
    assert 1 <= assert_same(found, "vinvl_nms1") <= 3
    assert len(pick(found, "butd_10_100")) == 10


def test_one_nms_leaves_out_what_is_hardly_likely() -> None:
    """The others up to 10 need more than a hundredth of the threshold."""
    boxes = np.array([[20 * i, 0, 20 * i + 10, 10] for i in range(12)], np.float32)
    scores = np.array([[0.9], [0.1], [0.003], [0.002], *[[0.001]] * 8], np.float32)
    found = make(scores, boxes)
    assert assert_same(found, "vinvl_nms2") == 3
    assert assert_same(found, "vinvl_nms1") == 10
    nothing = make(np.full((4, 1), 0.001, np.float32), boxes[:4])
    assert assert_same(nothing, "vinvl_nms2") == 0


def test_vinvl_nms1_stores_the_class_a_proposal_survives_in() -> None:
    """The second box is suppressed as class 0, its best, and survives as class 1."""
    boxes = np.array([[0, 0, 100, 100], [0, 0, 100, 90]], np.float32)
    found = make(np.array([[0.9, 0.05], [0.6, 0.3]], np.float32), boxes)
    survivor, best = pick(found, "vinvl_nms1"), pick(found, "butd_10_100")
    assert survivor.object_ids.tolist() == [0, 1]
    np.testing.assert_allclose(survivor.object_conf, [0.9, 0.3], rtol=1e-3)
    assert best.object_ids.tolist() == [0, 0]
    np.testing.assert_allclose(best.object_conf, [0.9, 0.6], rtol=1e-3)
