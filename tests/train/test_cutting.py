"""How a step is split into micro-batches."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semvlp.train.step import evenly, filled, split
from semvlp.train.train_config import TrainConfig

SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=30)


@pytest.mark.parametrize("runs", [1, 2, 3, 5])
def test_even_runs_keep_order_and_all(runs: int) -> None:
    things = list(range(5))
    pieces = [things[run] for run in evenly(5, runs)]
    assert [thing for piece in pieces for thing in piece] == things
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


@given(rows=SIZES, most=st.integers(1, 80))
def test_filled_runs_keep_order_and_all_and_the_limit(rows: list[int], most: int) -> None:
    pieces = [rows[run] for run in filled(rows, most)]
    assert [size for piece in pieces for size in piece] == rows
    assert all(piece and (sum(piece) <= most or len(piece) == 1) for piece in pieces)
    # None could have taken the first thing of the next one.
    for piece, following in pairwise(pieces):
        assert sum(piece) + following[0] > most


def test_the_settings_choose() -> None:
    assert split([5, 5, 5, 5], TrainConfig()) == [slice(0, 4)]
    assert split([5, 5, 5, 5], TrainConfig(gradient_accumulation_steps=2)) == [
        slice(0, 2),
        slice(2, 4),
    ]
    assert split([5, 5, 5, 5], TrainConfig(max_rows_per_micro_batch=15)) == [
        slice(0, 3),
        slice(3, 4),
    ]
    with pytest.raises(ValueError, match="give one"):
        TrainConfig(gradient_accumulation_steps=2, max_rows_per_micro_batch=15)
