"""Progress arithmetic and its plain form."""

import pytest

from semvlp.progress import Progress, duration, remaining


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2s"), (250, "4m10s"), (7500, "2h05m"), (273600, "3d04h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_remaining_time_follows_from_rate() -> None:
    assert remaining(10, 110, 2.0) == "50.0s"
    assert remaining(0, 10, 0.0) == "?"


def test_resumed_work_does_not_count_into_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 110.0, 110.0, 110.0, 110.0, 110.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    bar = Progress("extracting", total=100, unit="images", done=40)
    bar.done += 20
    assert bar.line() == "extracting: 60/100 images, 2.0/s, 20.0s left"
