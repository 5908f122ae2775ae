"""Stopping in good order: a signal asks, and the step in hand is finished and saved."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from semvlp.errors import Interrupted

log = logging.getLogger(__name__)


class StopRequest:
    """Tell in `asked` whether the run was asked to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Let the first SIGINT or SIGTERM inside ask to stop; a second one acts as it did before.

    A SIGINT that is ignored, as in a program that `nohup` or a shell puts in the background, stays
    ignored. Signals reach only the main thread; in another one the request is never made.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGINT] is signal.SIG_IGN:
        del before[signal.SIGINT]

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        request.asked = True
        restore()
        log.warning("%s: stopping after this step", signal.Signals(number).name)

    for number in before:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        restore()


def interrupted(run: Path, step: int, steps: int) -> Interrupted:
    """Return the error that ends a run which was asked to stop, once `step` is saved."""
    return Interrupted(
        f"stopped after step {step} of {steps}, which is saved in {run / 'last'}; the same command "
        "goes on from there"
    )
