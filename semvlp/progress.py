"""How far a long command is: a bar on a terminal, a line every few seconds elsewhere."""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as RichProgress

from semvlp.errors import printable

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0
BAR = 30
"""Characters of a whole bar."""


class Progress:
    """Counts finished units and shows count, rate, ETA and a short note on stderr.

    `with Progress("extracting", total=488, unit="images") as bar: bar.advance(note="3 refused")`
    """

    def __init__(self, what: str, *, total: int | None, unit: str, done: int = 0) -> None:
        self.what, self.total, self.unit = printable(what), total, unit
        self.done = self._first = done
        self.note = ""
        self._expected = 0.0
        self._start = self._last_line = time.monotonic()
        self._bar = _bar() if _wanted() and sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(
                escape(self.what), total=self.total, completed=self.done, note="", pace=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def expect(self, rate: float) -> None:
        """Take `rate`, units per second, for that of this run until its first unit is finished."""
        self._expected = rate
        if self._bar is not None:
            self._bar.update(self._task, pace=f"about {self._pace()}")

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Add `count` finished units; `note` replaces the text behind the numbers."""
        self.done += count
        self.note = printable(note) or self.note
        if self._bar is not None:
            note, pace = escape(self.note), self._pace()
            self._bar.update(self._task, completed=self.done, note=note, pace=pace)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            log.info("%s", self.line())

    @property
    def rate(self) -> float:
        """Units per second since the start of this run, or as expected while there are none."""
        if self.done == self._first:
            return self._expected
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def line(self) -> str:
        """The state as one line of text."""
        total = f"/{self.total}" if self.total is not None else ""
        note = f", {self.note}" if self.note else ""
        return f"{self.what}: {self.done}{total} {self.unit}, {self._pace()}{note}"

    def _pace(self) -> str:
        """Return the rate, of what takes over a second its time, and the time that is left."""
        rate = self.rate
        slow = 0 < rate < 1
        each = f"{duration(1 / rate)} each" if slow else f"{rate:.1f}/s"
        left = f", {remaining(self.done, self.total, rate)} left" if self.total else ""
        return each + left


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Show on a terminal that `what` is being done, as long as that takes; elsewhere nothing."""
    if not (_wanted() and sys.stderr.isatty()):
        yield
        return
    with Console(stderr=True).status(escape(printable(what))):
        yield


def remaining(done: int, total: int, rate: float) -> str:
    """Time until `total` units at `rate` units per second, for people: `4m10s`."""
    return duration((total - done) / rate) if rate > 0 else "?"


def duration(seconds: float) -> str:
    """`3.2s`, `4m10s`, `2h05m`, `3d04h`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 24 else f"{hours // 24}d{hours % 24:02d}h"


def bars(shares: Sequence[tuple[str, float]]) -> list[str]:
    """Write shares, 0..1, as lines: a name, per cent, and a bar."""
    width = max((len(name) for name, _ in shares), default=0)
    return [
        f"  {name:<{width}} {100 * share:5.1f} % {'█' * round(BAR * share)}"
        for name, share in shares
    ]


def _wanted() -> bool:
    return log.isEnabledFor(logging.INFO)


def _bar() -> RichProgress:
    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[pace]}"),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


@contextmanager
def without_bars() -> Iterator[None]:
    """Hide the progress bars of transformers: commands have their own, programs want none."""
    from transformers.utils import logging as bars

    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()  # type: ignore[no-untyped-call]
