"""What each step does follows from its number."""

import math
from pathlib import Path

import pytest

from semvlp import settings
from semvlp.errors import ConfigError
from semvlp.train.config import PretrainConfig
from semvlp.train.schedule import is_logged, is_saved, learning_rate, mode_of
from semvlp.train.train_config import TrainConfig


def test_alternate_begins_with_single() -> None:
    config = TrainConfig(schedule="alternate")
    assert [mode_of(step, config) for step in (1, 2, 3, 4)] == ["single", "two", "single", "two"]


@pytest.mark.parametrize("mode", ["single", "two"])
def test_one_mode_alone(mode: str) -> None:
    config = TrainConfig(schedule=mode)  # type: ignore[arg-type]
    assert {mode_of(step, config) for step in range(1, 9)} == {mode}


def test_ratio_keeps_the_share_and_follows_the_seed() -> None:
    config = TrainConfig(schedule="ratio", single_share=0.25, seed=3)
    modes = [mode_of(step, config) for step in range(1, 2001)]
    assert modes.count("single") / 2000 == pytest.approx(0.25, abs=0.04)
    assert modes == [mode_of(step, config) for step in range(1, 2001)]
    other = TrainConfig(schedule="ratio", single_share=0.25, seed=4)
    assert modes != [mode_of(step, other) for step in range(1, 2001)]


@pytest.mark.parametrize(("share", "mode"), [(0.0, "two"), (1.0, "single")])
def test_ratio_at_its_ends(share: float, mode: str) -> None:
    config = TrainConfig(schedule="ratio", single_share=share)
    assert {mode_of(step, config) for step in range(1, 200)} == {mode}


def test_linear_rise_and_fall() -> None:
    config = TrainConfig(lr=1.0, warmup_ratio=0.2)
    rates = [learning_rate(step, 10, config) for step in range(1, 11)]
    expected = [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    assert rates == pytest.approx(expected)


def test_cosine_is_half_way_down_in_the_middle() -> None:
    config = TrainConfig(lr=2.0, warmup_ratio=0.0, lr_schedule="cosine")
    assert learning_rate(1, 100, config) == 2.0
    assert learning_rate(51, 100, config) == pytest.approx(1.0)
    assert 0 < learning_rate(100, 100, config) < 0.001


def test_constant_stays() -> None:
    config = TrainConfig(lr=0.5, warmup_ratio=0.1, lr_schedule="constant")
    assert [learning_rate(step, 100, config) for step in (10, 11, 100)] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
def test_every_rate_is_positive_and_at_most_the_peak(decay: str, steps: int, warmup: float) -> None:
    config = TrainConfig(lr=1e-3, warmup_ratio=warmup, lr_schedule=decay)  # type: ignore[arg-type]
    rates = [learning_rate(step, steps, config) for step in range(1, steps + 1)]
    assert all(0 < rate <= 1e-3 and math.isfinite(rate) for rate in rates)


def test_every_step_is_logged_where_asked() -> None:
    assert all(is_logged(step, 5, TrainConfig(log_every=1)) for step in range(1, 6))


def test_an_even_interval_shows_both_modes() -> None:
    config = TrainConfig(log_every=10)
    logged = [step for step in range(1, 26) if is_logged(step, 25, config)]
    assert logged == [9, 10, 19, 20, 24, 25]
    assert {mode_of(step, config) for step in logged} == {"single", "two"}


def test_one_mode_needs_one_step_an_interval() -> None:
    config = TrainConfig(log_every=10, schedule="two")
    assert [step for step in range(1, 26) if is_logged(step, 25, config)] == [10, 20, 25]


def test_the_last_step_is_saved() -> None:
    assert [step for step in range(1, 8) if is_saved(step, 7, 3)] == [3, 6, 7]


def test_phases_follow_each_other() -> None:
    config = TrainConfig(schedule=("single 3", "two 2", "alternate"))
    modes = [mode_of(step, config) for step in range(1, 10)]
    assert modes == ["single"] * 3 + ["two"] * 2 + ["two", "single", "two", "single"]
    assert not is_logged(1, 90, config)
    assert [is_logged(step, 90, config) for step in (9, 10)] == [True, True]


def test_phases_come_from_files_and_from_the_command_line(tmp_path: Path) -> None:
    override = 'train.schedule=["single 100000", "alternate"]'
    config = settings.load(PretrainConfig, None, [override])
    assert config.train.phases == (("single", 100_000), ("alternate", math.inf))
    (tmp_path / "config.toml").write_text(settings.to_toml(config))
    assert settings.load(PretrainConfig, tmp_path / "config.toml") == config


@pytest.mark.parametrize(
    "schedule",
    [
        '"alternat"',
        '["single 10", "alternat"]',
        '["single", "alternate"]',
        '["single 10"]',
        '["single 1e3", "alternate"]',
        '["single 0", "alternate"]',
        "[]",
    ],
)
def test_a_schedule_that_cannot_be_read_says_how(schedule: str) -> None:
    with pytest.raises(ConfigError, match="schedule must") as told:
        settings.load(PretrainConfig, None, [f"train.schedule={schedule}"])
    assert "alternate" in str(told.value)
