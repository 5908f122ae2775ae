"""In which order examples come where classes are not equally many."""

from collections import Counter

import pytest

from semvlp.train.data.sampling import Order, balanced_weights

CLASSES = ["a"] * 6 + ["b"] * 2 + ["c"]


def test_every_example_once_an_epoch() -> None:
    order = Order(CLASSES, "all", seed=3)
    epochs = [[order(9 * epoch + index) for index in range(9)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(9)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_every_class_equally_often_and_its_examples_in_turn() -> None:
    order = Order(CLASSES, "balanced", seed=3)
    seen = [order(position) for position in range(36)]
    assert Counter(CLASSES[index] for index in seen) == {"a": 12, "b": 12, "c": 12}
    counts = Counter(seen)
    assert {counts[index] for index in range(6)} == {2}
    assert all({CLASSES[index] for index in seen[n : n + 3]} == {*"abc"} for n in range(0, 36, 3))
    assert seen == [Order(CLASSES, "balanced", seed=3)(position) for position in range(36)]


def test_weights_are_one_in_the_mean_and_equal_by_class() -> None:
    weights = balanced_weights(CLASSES)
    assert sum(weights) == pytest.approx(9)
    assert [sum(weights[:6]), sum(weights[6:8]), weights[8]] == pytest.approx([3, 3, 3])
