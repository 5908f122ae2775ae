"""How far a long command is: a bar on a terminal, a line every few seconds elsewhere."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from semvlp.errors import printable

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Counts finished units and shows count, rate, ETA and a short note on stderr.

    `with Progress("extracting", total=488, unit="images") as bar: bar.advance(note="3 refused")`
    """

    def __init__(self, what: str, *, total: int | None, unit: str, done: int = 0) -> None:
        self.what, self.total, self.unit = printable(what), total, unit
        self.done = self._first = done
        self.note = ""
        self._start = self._last_line = time.monotonic()
        self._bar = _bar() if _wanted() and sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(
                escape(self.what), total=self.total, completed=self.done, note="", rate=""
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

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Add `count` finished units; `note` replaces the text behind the numbers."""
        self.done += count
        self.note = printable(note) or self.note
        if self._bar is not None:
            rate = f"{self.rate:.1f} {self.unit}/s"
            self._bar.update(self._task, completed=self.done, note=escape(self.note), rate=rate)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            log.info("%s", self.line())

    @property
    def rate(self) -> float:
        """Units per second since the start of this run."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def line(self) -> str:
        """The state as one line of text."""
        total = f"/{self.total}" if self.total is not None else ""
        eta = f", {remaining(self.done, self.total, self.rate)} left" if self.total else ""
        note = f", {self.note}" if self.note else ""
        return f"{self.what}: {self.done}{total} {self.unit}, {self.rate:.1f}/s{eta}{note}"


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


def _wanted() -> bool:
    return log.isEnabledFor(logging.INFO)


def _bar() -> RichProgress:
    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
