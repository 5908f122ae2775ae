"""A signal asks to stop, a second one ends at once; an interrupt that is ignored stays so."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial

import pytest

from semvlp.train import stopping
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


# A call that comes back to Python after hours, as a backward pass does after a minute.
BUSY = (
    "import hashlib, sys\n"
    "from semvlp.train.stopping import stop_signals\n"
    "with stop_signals():\n"
    "    print('ready', flush=True)\n"
    "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)\n"
)


@pytest.mark.parametrize("second", SIGNALS)
def test_signals_are_heard_inside_of_a_long_call(second: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout
        assert process.stderr
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            assert "stopping after this step" in process.stderr.readline()
            process.send_signal(second)
            assert "ending at once" in process.stderr.readline()
            assert process.wait(timeout=120) == 130
        finally:
            process.kill()


def test_what_torchrun_passes_on_is_the_same_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal has sent it to every process already."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with stop_signals() as request:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
    assert request.asked
    assert not ended
    monkeypatch.setattr(stopping, "SAME_REQUEST_SECONDS", -1.0)
    with stop_signals():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
    assert ended == [130]


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
