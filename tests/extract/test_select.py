"""Selection against a literal reading of the original loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import nms

from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors.detector import Proposals
from semvlp.extract.presets import DEFAULT, PRESETS, resolve
from semvlp.extract.views import view
from semvlp.shards.record import NO_ATTRIBUTE
from tests.extract.proposals import CLASSES, chosen, make, pick, random_proposals, slow_nms


def slow_max_conf(found: Proposals) -> NDArray[np.float32]:
    """tools/generate_tsv.py of bottom-up attention: one NMS for each of all the classes."""
    scores = found.object_scores[:, :-1]
    max_conf = np.zeros(len(scores), np.float32)
    for label in range(scores.shape[1]):
        kept = slow_nms(found.proposals, scores[:, label], 0.3)
        max_conf[kept] = np.maximum(max_conf[kept], scores[kept, label])
    return max_conf


def slow_keep(max_conf: NDArray[np.float32], low: int, high: int) -> set[int]:
    """Its second half: the confident ones, clamped."""
    keep = np.flatnonzero(max_conf >= np.float32(0.2))
    if len(keep) < low:
        keep = np.argsort(-max_conf, kind="stable")[:low]
    elif len(keep) > high:
        keep = np.argsort(-max_conf, kind="stable")[:high]
    return set(keep.tolist())


@pytest.mark.parametrize(
    ("classes", "sharpness"),
    [(CLASSES, 8.0), (200, 14.0), (200, 3.0)],
    ids=["usual", "sure", "unsure"],
)
def test_butd_presets_equal_the_loop_over_all_classes(classes: int, sharpness: float) -> None:
    found = random_proposals(1, 120, classes, sharpness)
    max_conf = slow_max_conf(found)
    for preset in ("butd_36", "butd_10_100", "top_100"):
        rule = PRESETS[preset]
        expected = slow_keep(max_conf, rule.min_regions, rule.max_regions)
        assert set(chosen(pick(found, preset))) == expected, preset


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 30), low=st.integers(1, 20))
def test_equals_the_loop_where_everything_ties(seed: int, count: int, low: int) -> None:
    """Coarse scores and whole-pixel boxes, several of them equal: the index decides."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 5, (count, 2)) * 10
    size = rng.integers(1, 4, (count, 2)) * 10
    boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    scores = (rng.integers(0, 4, (count, 6)) * 0.0625).astype(np.float32)
    found = make(scores, boxes)
    expected = slow_keep(slow_max_conf(found), low, low + 5)
    assert set(chosen(pick(found, None, low, low + 5))) == expected


def test_the_number_of_regions_follows_the_confident_ones() -> None:
    """One class, boxes far apart: exactly those of 0.2 and more, within the limits."""
    boxes = np.array([[20 * i, 0, 20 * i + 10, 10] for i in range(40)], np.float32)
    scores = np.full((40, 1), 0.1, np.float32)
    scores[:24:2] = 0.3
    scores[24::2] = 0.2  # 8 of the 20 stand exactly on the threshold
    found = make(scores, boxes)
    assert chosen(pick(found, "butd_10_100")) == list(range(0, 40, 2))
    assert chosen(pick(found, "butd_10_100", 5, 7)) == [0, 2, 4, 6, 8, 10, 12]
    assert chosen(pick(found, "butd_36")) == [*range(0, 40, 2), *range(1, 32, 2)]


def test_the_order_is_that_of_the_stored_confidence() -> None:
    """The first is suppressed as class 0, survives with 0.3, and still ties with the second."""
    boxes = np.array([[0, 0, 100, 90], [300, 0, 400, 90], [0, 0, 100, 100]], np.float32)
    found = make(np.array([[0.5, 0.3], [0.5, 0.1], [0.9, 0.05]], np.float32), boxes)
    regions = pick(found, None, 1, 3)
    assert chosen(regions) == [2, 0, 1]
    np.testing.assert_allclose(regions.object_conf, [0.9, 0.5, 0.5], rtol=1e-3)


def test_overlap_of_exactly_the_threshold_is_kept() -> None:
    """torchvision suppresses at > 0.5, not at >=: [0, 0, 2, 1] and [0, 0, 1, 1] overlap by 0.5."""
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 1], [0, 0, 1.9, 1]], np.float32)
    found = make(np.array([[0.9], [0.8], [0.7]], np.float32), boxes)
    assert chosen(pick(found, "vinvl_nms2", 1, 3)) == [0, 1]


@pytest.mark.parametrize("preset", [None, *PRESETS])
@pytest.mark.parametrize("count", [1, 7, 60])
def test_every_preset_keeps_its_promises(preset: str | None, count: int) -> None:
    found = random_proposals(3, count, classes=40)
    regions = pick(found, preset)
    rule = DEFAULT if preset is None else PRESETS[preset]
    fewest = min(rule.min_regions, count) if rule.min_score_below_min_regions is None else 1
    assert fewest <= len(regions) <= rule.max_regions
    assert len(set(chosen(regions))) == len(regions)
    assert (np.diff(regions.object_conf.astype(np.float32)) <= 0).all()
    assert (regions.width, regions.height, regions.profile) == (1000, 600, "p")


def test_min_regions_takes_all_where_there_are_fewer_even_suppressed_ones() -> None:
    same = np.tile(np.array([[10, 10, 50, 50]], np.float32), (5, 1))
    found = make(np.full((5, 3), 0.3, np.float32), same)
    for preset in (None, "butd_36", "butd_10_100", "maxnms_36", "top_100"):
        assert chosen(pick(found, preset)) == [0, 1, 2, 3, 4]
    for preset in ("vinvl_nms1", "vinvl_nms2"):
        assert chosen(pick(found, preset)) == [0], "only what survives"


def test_values_belong_to_the_best_class_of_the_kept_proposal() -> None:
    rng = np.random.default_rng(0)
    found = random_proposals(4, 50, classes=30)
    boxes = rng.uniform(0, 500, (50, 30, 4)).astype(np.float32)
    found = make(found.object_scores[:, :-1], found.proposals, boxes=boxes)
    regions = pick(found)
    rows = chosen(regions)
    best = found.object_scores[rows, :-1].argmax(1)
    np.testing.assert_array_equal(regions.object_ids, best)
    np.testing.assert_array_equal(
        regions.object_conf, found.object_scores[rows, best].astype(np.float16)
    )
    np.testing.assert_array_equal(regions.boxes, boxes[rows, best])
    np.testing.assert_array_equal(regions.proposals, found.proposals[rows])
    np.testing.assert_array_equal(regions.attribute_ids, found.attribute_scores[rows].argmax(1))
    np.testing.assert_array_equal(
        regions.attribute_conf, found.attribute_scores[rows].max(1).astype(np.float16)
    )


def test_without_an_attribute_head_there_is_no_attribute() -> None:
    found = make(np.full((2, 3), 0.3, np.float32), np.eye(2, 4, dtype=np.float32), attributes=0)
    regions = pick(found)
    assert set(regions.attribute_ids.tolist()) == {NO_ATTRIBUTE}
    assert not regions.attribute_conf.any()


def test_the_background_is_never_an_object() -> None:
    found = make(np.full((3, 4), 0.01, np.float32), np.eye(3, 4, dtype=np.float32))
    assert found.object_scores[:, -1].min() > 0.9
    assert pick(found).object_ids.tolist() == [0, 0, 0]


def test_maxnms_relaxes_until_there_are_enough() -> None:
    """Two groups of boxes with overlaps 0.5 and 0.75 with the first: 0.3, then 0.5, then 0.8."""
    boxes = np.array([[0, 0, 100, 100], [0, 0, 100, 50], [0, 0, 100, 75]], np.float32)
    boxes = np.concatenate([boxes, boxes + 500])
    scores = np.array([[0.9], [0.8], [0.7], [0.6], [0.5], [0.4]], np.float32)
    found = make(scores, boxes[::-1].copy() * 0, boxes=boxes[:, None])
    assert chosen(pick(found, "maxnms_36", 2, 2)) == [0, 3]
    assert chosen(pick(found, "maxnms_36", 3, 100)) == [0, 1, 3, 4]
    assert chosen(pick(found, "maxnms_36", 5, 100)) == [0, 1, 2, 3, 4, 5]


def test_maxnms_equals_the_literal_loop() -> None:
    found = random_proposals(5, 150, classes=50)
    best = found.object_scores[:, :-1].max(1)
    for iou in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        kept = slow_nms(found.boxes[:, 0], best, iou)
        if len(kept) >= 36:
            break
    assert chosen(pick(found, "maxnms_36")) == kept[:36]


@pytest.mark.parametrize("preset", ["butd_36", "butd_10_100"])
@pytest.mark.parametrize(
    ("count", "classes", "sharpness"), [(300, 200, 14.0), (120, 200, 8.0), (60, 5, 8.0), (8, 5, 3)]
)
def test_a_view_of_100_stored_regions_is_what_the_preset_chooses(
    preset: str, count: int, classes: int, sharpness: float
) -> None:
    found = random_proposals(11, count, classes, sharpness)
    stored = pick(found, "top_100")
    cut = view(stored, preset)
    assert set(chosen(cut)) == set(chosen(pick(found, preset)))
    assert chosen(cut) == chosen(stored)[: len(cut)]
    assert (np.diff(cut.object_conf.astype(float)) <= 0).all()
    assert cut.boxes.shape == cut.proposals.shape == (len(cut), 4)


def test_a_region_that_survives_nowhere_stands_last_in_what_views_are_cut_from() -> None:
    """The second box is suppressed in both classes, although it is likely."""
    boxes = np.array([[0, 0, 100, 100], [0, 0, 100, 90], [500, 0, 600, 90]], np.float32)
    scores = np.array([[0.6, 0.4], [0.58, 0.3], [0.25, 0.1]], np.float32)
    stored = pick(make(scores, boxes), "top_100")
    assert chosen(stored) == [0, 2, 1]
    assert stored.object_conf[2] == 0
    assert chosen(view(stored, "butd_10_100")) == [0, 2, 1]


def test_a_view_by_another_rule_is_refused() -> None:
    stored = pick(random_proposals(1, 20, 5), "top_100")
    with pytest.raises(ConfigError, match="butd_36 or butd_10_100, got 'maxnms_36'"):
        view(stored, "maxnms_36")


def test_limits_replace_those_of_a_preset() -> None:
    assert resolve("butd_10_100", 36, 50) == resolve(None, None, 50)
    assert resolve("butd_36") == PRESETS["butd_36"]
    assert (resolve(None).min_regions, resolve(None).max_regions) == (36, 100)


def test_a_rule_is_stored_by_the_names_of_version_0_1() -> None:
    """The profile of every data set is a hash of them."""
    assert PRESETS["vinvl_nms2"].stored() == {
        "suppress": "once",
        "boxes": "proposals",
        "ious": (0.5,),
        "confidence": 0.2,
        "floor": 0.002,
        "label": "best",
        "min_regions": 10,
        "max_regions": 100,
    }


@pytest.mark.parametrize(("low", "high"), [(0, 10), (5, 4), (1, 101), (101, None)])
def test_impossible_limits_are_refused(low: int, high: int | None) -> None:
    with pytest.raises(ConfigError, match="1 <= min <= max <= 100"):
        resolve(None, low, high)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"butd_36, butd_10_100.*'butd'"):
        resolve("butd")


def test_nothing_proposed_names_the_image() -> None:
    found = make(np.zeros((0, 3), np.float32), np.zeros((0, 4), np.float32))
    with pytest.raises(InputError, match="image x: the detector proposed no region"):
        pick(found)


@pytest.mark.parametrize("value", [1e6, np.nan, np.inf])
def test_features_that_float16_cannot_hold_are_refused(value: float) -> None:
    found = make(np.full((2, 3), 0.3, np.float32), np.eye(2, 4, dtype=np.float32))
    found.features[1, 0] = value
    with pytest.raises(InputError, match="image x: a feature is not a number of at most 65504"):
        pick(found)


def test_scores_that_are_not_numbers_are_refused() -> None:
    found = make(np.full((2, 3), 0.3, np.float32), np.eye(2, 4, dtype=np.float32))
    found.object_scores[0, 0] = np.nan
    with pytest.raises(InputError, match="image x: an object score"):
        pick(found)


def test_a_full_size_image_needs_few_suppressions(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 proposals of 1600 classes: only classes with two likely proposals are looked at."""
    calls: list[int] = []

    def counted(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
        calls.append(len(boxes))
        return nms(boxes, scores, iou)

    monkeypatch.setattr("torchvision.ops.nms", counted)
    pick(random_proposals(7, 300))
    assert 0 < len(calls) < CLASSES / 8
