"""Progress arithmetic and its plain form."""

import io
import sys
from typing import Any

import pytest

from semvlp import progress
from semvlp.progress import Progress, duration, remaining


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def started(monkeypatch: pytest.MonkeyPatch, what: str, **sizes: Any) -> Progress:
    """Progress that began ten seconds ago."""
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    bar = Progress(what, **sizes)
    monkeypatch.setattr("time.monotonic", lambda: 110.0)
    return bar


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2s"), (250, "4m10s"), (7500, "2h05m"), (273600, "3d04h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_remaining_time_follows_from_rate() -> None:
    assert remaining(10, 110, 2.0) == "50.0s"
    assert remaining(0, 10, 0.0) == "?"


def test_resumed_work_does_not_count_into_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = started(monkeypatch, "extracting", total=100, unit="images", done=40)
    bar.done += 20
    assert bar.line() == "extracting: 60/100 images, 2.0/s, 20.0s left"


def test_what_takes_long_is_told_by_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = started(monkeypatch, "training", total=21, unit="steps")
    bar.done += 1
    assert bar.line() == "training: 1/21 steps, 10.0s each, 3m20s left"


def test_until_a_unit_is_finished_its_time_may_be_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = started(monkeypatch, "training", total=100_000, unit="steps", done=7)
    bar.expect(1 / 70)
    assert bar.line() == "training: 7/100000 steps, 1m10s each, 81d00h left"
    bar.done += 1
    assert "10.0s each" in bar.line()


def test_a_bar_shows_what_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(progress, "_wanted", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress("training", total=100, unit="steps") as bar:
        bar.expect(0.1)
    assert "about 10.0s each, 16m40s left" in stderr.getvalue()
