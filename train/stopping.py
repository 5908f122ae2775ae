"""Stopping in good order: a signal asks, and the step in hand is finished and saved.

The main thread may be inside of torch for a minute, and Python tells it of a signal only when it
comes back. So a thread of its own listens, which answers the first signal at once and ends the
process at the second.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from semvlp.errors import Interrupted
from semvlp.torchrun import process_rank

SAME_REQUEST_SECONDS = 2.0
"""So long torchrun may take to pass on to its processes what a terminal has sent them as well."""
END = b"\0"
"""No signal has this number."""
SHOW_CURSOR = "\x1b[?25h"
"""A progress bar hides it."""

log = logging.getLogger(__name__)


class StopRequest:
    """Tell in `asked` whether the run was asked to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Let the first SIGINT or SIGTERM inside ask to stop; a second one ends the process at once.

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

    def ask(number: int, frame: FrameType | None) -> None:
        request.asked = True

    received, sent = os.pipe()
    os.set_blocking(sent, False)
    listener = threading.Thread(target=_listen, args=(received, request, set(before)), daemon=True)
    listener.start()
    sent_before = signal.set_wakeup_fd(sent, warn_on_full_buffer=False)
    for number in before:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(sent_before)
        os.write(sent, END)
        listener.join()
        os.close(sent)
        os.close(received)


def _listen(received: int, request: StopRequest, numbers: set[signal.Signals]) -> None:
    """Answer the signals whose numbers arrive, a byte each, up to the end."""
    first = 0.0
    while (sent := os.read(received, 1)) != END:
        if sent[0] not in numbers:
            continue
        name = signal.Signals(sent[0]).name
        if not first:
            first, request.asked = time.monotonic(), True
            log.warning("%s: stopping after this step; once more ends at once", name)
        elif process_rank().size == 1 or time.monotonic() - first > SAME_REQUEST_SECONDS:
            log.warning("%s once more: ending at once; the last checkpoint is kept", name)
            if sys.stderr.isatty():
                sys.stderr.write(SHOW_CURSOR)
            sys.stderr.flush()
            os._exit(Interrupted.exit_code)


def interrupted(run: Path, step: int, steps: int) -> Interrupted:
    """Return the error that ends a run which was asked to stop, once `step` is saved."""
    return Interrupted(
        f"stopped after step {step} of {steps}, which is saved in {run / 'last'}; the same command "
        "goes on from there"
    )
