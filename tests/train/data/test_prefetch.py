"""Reading ahead: order, state, errors."""

from collections.abc import Mapping
from typing import Any

import pytest

from semvlp.train.data.source import prefetched


class Numbers:
    """A source whose steps are 1, 2, 3 and then fail."""

    def __init__(self) -> None:
        self.done = 0

    def next_step(self) -> Any:
        self.done += 1
        if self.done > 3:
            raise OSError("the disk is gone")
        return [self.done]

    def state_dict(self) -> Mapping[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.done = state["done"]


def test_each_step_comes_with_the_state_after_it_though_more_was_read() -> None:
    source = Numbers()
    with prefetched(source) as steps:
        first, second = next(steps), next(steps)
    assert (first.micro_batches, first.state) == ([1], {"done": 1})
    assert (second.micro_batches, second.state) == ([2], {"done": 2})
    assert source.done == 3


def test_an_error_is_raised_where_its_step_is_taken() -> None:
    with prefetched(Numbers()) as steps:
        assert [next(steps).micro_batches for _ in range(3)] == [[1], [2], [3]]
        with pytest.raises(OSError, match="disk"):
            next(steps)
