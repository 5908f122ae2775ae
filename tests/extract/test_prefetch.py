"""Items made in a thread come in order, and nothing of it is left behind."""

import threading
from collections.abc import Iterator

import pytest

from semvlp.extract.inference import prefetch


def test_every_item_comes_in_order() -> None:
    assert list(prefetch(range(100), most=3)) == list(range(100))
    assert list(prefetch([], most=1)) == []


def test_only_so_many_wait() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    items = prefetch(source(), most=4)
    for number in range(10):
        assert next(items) == number
        # Those that wait, the one that is taken next and the one in work.
        assert len(made) <= number + 1 + 4 + 2
    items.close()


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_an_error_comes_after_the_items_before_it(error: BaseException) -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise error

    items = prefetch(source(), most=2)
    assert [next(items) for _ in range(5)] == list(range(5))
    with pytest.raises(type(error)):
        next(items)


def test_closing_early_ends_the_thread() -> None:
    items = prefetch(iter(range(1000)), most=2)
    assert next(items) == 0
    items.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]
