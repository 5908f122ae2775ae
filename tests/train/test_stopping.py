"""Signals ask to stop once; a second one acts as before; an interrupt that is ignored stays so."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial

import pytest

from semvlp.train.stopping import stop_signals

SIGNALS = (signal.SIGINT, signal.SIGTERM)
pytestmark = pytest.mark.usefixtures("dispositions")


@pytest.mark.parametrize("number", SIGNALS)
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


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_signals() as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert not request.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.asked
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize(
    ("disposition", "asked"), [(signal.SIG_IGN, "False"), (signal.SIG_DFL, "True")]
)
def test_a_program_inherits_what_an_interrupt_does(
    disposition: signal.Handlers, asked: str
) -> None:
    program = (
        "import os, signal\n"
        "from semvlp.train.stopping import stop_signals\n"
        "with stop_signals() as request:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(request.asked)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        preexec_fn=partial(signal.signal, signal.SIGINT, disposition),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [asked]


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
