"""Stopping a run in good order: the step in hand is finished and saved, then the program ends."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)


class StopRequest:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Inside, the first SIGINT or SIGTERM asks to stop; a second one acts as it did before.

    Signals reach only the main thread; in another one the request is never made.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        request.asked = True
        restore()
        log.warning("%s: stopping after this step", signal.Signals(number).name)

    for number in signals:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        restore()
