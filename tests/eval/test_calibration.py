"""Calibration against its definition, and networks whose calibration is known."""

import numpy as np
import pytest

from semvlp.eval.calibration import BINS, calibration, expected_error
from semvlp.eval.task import Example


def examples_of(count: int) -> list[Example]:
    return [Example(example_id=n, text="", images=(str(n),)) for n in range(count)]


def test_the_error_follows_its_definition() -> None:
    random = np.random.default_rng(0)
    confidence = np.append(random.uniform(size=500), [0.0, 1.0, 1 / 15, 2 / 3])
    credit = random.choice([0.0, 0.3, 0.6, 0.9, 1.0], 504)
    slow = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        inside = (confidence > low) & (confidence <= high) | (confidence == 0) & (number == 0)
        if inside.any():
            slow += inside.mean() * abs(credit[inside].mean() - confidence[inside].mean())
    assert expected_error(confidence, credit) == pytest.approx(100 * slow)


def test_a_calibrated_network_has_no_error_and_a_boastful_one_has() -> None:
    random = np.random.default_rng(1)
    confidence = random.uniform(size=20_000)
    credit = (random.uniform(size=20_000) < confidence).astype(float)
    assert expected_error(confidence, credit) < 1.5
    assert expected_error(np.ones(20_000), credit) == pytest.approx(100 * (1 - credit.mean()))


def test_curves() -> None:
    confidence = np.array([0.95, 0.99, 0.5, 0.51, 0.2])
    credit = np.array([1.0, 1.0, 0.0, 0.6, 0.0])
    curves = calibration(examples_of(5), confidence, credit)
    assert [(b["count"], b["confidence"], b["accuracy"]) for b in curves["bins"]] == [
        (1, pytest.approx(20), 0),
        (2, pytest.approx(50.5), pytest.approx(30)),
        (2, pytest.approx(97), 100),
    ]
    accuracy = {at["coverage"]: at["accuracy"] for at in curves["coverage"]}
    assert accuracy[40] == 100
    assert accuracy[60] == pytest.approx(100 * 2.6 / 3)
    assert accuracy[100] == pytest.approx(52)
    assert curves["coverage"][-1]["least_confidence"] == pytest.approx(20)
    assert all(len(at["interval"]) == 2 for rows in curves.values() for at in rows)


def test_one_example_has_curves() -> None:
    curves = calibration(examples_of(1), np.array([0.7]), np.array([1.0]))
    assert len(curves["bins"]) == 1
    assert {at["accuracy"] for at in curves["coverage"]} == {100}
