"""Signals ask to stop once; a second one acts as before."""

import os
import signal
import threading
from collections.abc import Callable

import pytest

from semvlp.train.loop import stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_signals() as request:
        assert not request.asked
        os.kill(os.getpid(), number)
        assert request.asked
        assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before


def test_the_second_interrupt_interrupts() -> None:
    with stop_signals() as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_in_another_thread_nothing_is_touched() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[Callable[..., object] | int | None] = []

    def inside() -> None:
        with stop_signals() as request:
            seen.append(signal.getsignal(signal.SIGTERM))
            assert not request.asked

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]
