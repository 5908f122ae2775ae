"""Copies of features: as they were, for as long as anybody holds them, and no longer."""

import numpy as np
import torch

from semvlp.train.data.source import FeatureMemory


def features(rows: int, value: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    return np.full((rows, 4), value, np.float16)


def test_memory_is_used_again_when_nothing_refers_to_it() -> None:
    memory = FeatureMemory()
    first = memory.copy(features(8, 1))
    place = first.data_ptr()
    part = first[2:5]
    del first
    second = memory.copy(features(8, 2))
    assert second.data_ptr() != place
    assert (part == 1).all()
    del part
    third = memory.copy(features(9, 3))
    assert third.data_ptr() == place
    assert third.shape == (9, 4)
    assert (third == 3).all()
    assert (second == 2).all()


def test_memory_that_is_too_small_is_given_up() -> None:
    memory = FeatureMemory()
    place = memory.copy(features(2, 1)).data_ptr()
    larger = memory.copy(features(100, 2))
    assert larger.data_ptr() != place
    assert larger.shape == (100, 4)
    assert larger.dtype == torch.float16
    assert memory.copy(features(0, 0)).shape == (0, 4)
