"""What a run will cost is told before its first step is done, where that takes a while."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from semvlp.train.config import PretrainConfig
from semvlp.train.pretrain import pretrain
from semvlp.train.run import cost

Config = Callable[..., PretrainConfig]


def test_the_pace_of_this_cpu_is_a_number_of_operations() -> None:
    assert 1e8 < cost.cpu_pace() < 1e15


def test_short_steps_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "cpu_pace", lambda: 1e9)
    assert cost.expected_seconds(cost.WORTH_TELLING / 2) is None
    assert cost.expected_seconds(6e9 * 100) == pytest.approx(1000)


@pytest.mark.parametrize(
    ("preset", "steps", "told", "level", "named"),
    [
        ("small", 100_000, "the 100000 that are left about", logging.WARNING, True),
        ("tiny", 100_000, "the 100000 that are left about", logging.INFO, False),
        ("small", 2, "the 2 that are left about", logging.INFO, False),
    ],
)
def test_a_run_tells_what_it_will_cost(
    preset: str,
    steps: int,
    told: str,
    level: int,
    named: bool,
    shards: Path,
    small: Config,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The recipe `tiny` is named where it would help: in what takes more than a day."""
    monkeypatch.setattr(cost, "WORTH_TELLING", 0)
    monkeypatch.setattr(cost, "cpu_pace", lambda: 1e9)
    caplog.set_level(logging.INFO, "semvlp")

    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("semvlp.train.loop.train_step", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain([shards], tmp_path, small(f"model.preset={preset}", f"train.steps={steps}"))
    (record,) = [each for each in caplog.records if each.name == cost.__name__]
    assert told in record.getMessage()
    assert "a step of 8 pairs takes about" in record.getMessage()
    assert record.levelno == level
    assert ("--config tiny" in record.getMessage()) == named
