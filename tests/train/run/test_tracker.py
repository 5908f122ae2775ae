"""Trackers get every number of metrics.jsonl and validation.jsonl, also of a run that goes on."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from semvlp.errors import ConfigError
from semvlp.train.pretrain import pretrain
from semvlp.train.run import tracker
from semvlp.train.run.files import METRICS, VALIDATION, read_lines
from semvlp.train.run.log import RunLog
from semvlp.train.run.tracker import TRACKER, check_tracker
from semvlp.train.train_config import TrackerName

NAMES: list[TrackerName] = ["trackio", "wandb"]


class StandIn(ModuleType):
    """A tracker that keeps what it is told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.runs: list[dict[str, Any]] = []
        self.values: list[tuple[int, str, Any]] = []
        self.metrics: list[Any] = []
        self.finished = 0
        self.fails = False

    def init(self, **given: Any) -> None:
        self.runs.append(given)

    def define_metric(self, *given: Any, **named: Any) -> None:
        self.metrics.append((given, named))

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        if self.fails:
            raise OSError("no network")
        values = dict(values)
        at = values.pop("step") if step is None else step
        self.values += [(at, name, value) for name, value in values.items()]

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture(params=NAMES)
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    module = StandIn(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def trained(run: Path, name: Any, steps: range, done: int) -> None:
    """Log steps as a loop does."""
    (run / "config.toml").write_text("[train]\nlr = 0.5\n")
    with RunLog(run, "training", steps=9, done=done, tracker=name) as log:
        for step in steps:
            mode = "single" if step % 2 else "two"
            log.metrics({"step": step, "mode": mode, "loss": 1 / step, "lr": 0.1, "rows": step})
            if step % 2 == 0:
                log.validation(step, {"accuracy": 50.0 + step})


def wanted(run: Path) -> list[tuple[int, str, Any]]:
    """Every number of the files under the name it is shown by."""
    numbers = []
    for entry in read_lines(run / METRICS):
        step, mode = entry.pop("step"), entry.pop("mode")
        for name, value in entry.items():
            group = "loss" if name.startswith("loss") else "run"
            numbers.append((step, f"{group}/{name}/{mode}", value))
    for entry in read_lines(run / VALIDATION):
        numbers.append((entry["step"], "validation/accuracy", entry["accuracy"]))
    return sorted(numbers)


def test_every_number_arrives_and_a_run_that_goes_on_is_the_same_one(
    tmp_path: Path, stand_in: StandIn
) -> None:
    trained(tmp_path, stand_in.__name__, range(1, 6), done=0)
    assert sorted(stand_in.values) == wanted(tmp_path)
    # Killed after step 5, with a checkpoint of step 3: 4 and 5 are done again.
    trained(tmp_path, stand_in.__name__, range(4, 9), done=3)
    assert len(wanted(tmp_path)) == 8 * 3 + 4
    assert sorted(set(stand_in.values)) == wanted(tmp_path)
    first, second = stand_in.runs
    assert first == second
    assert first["config"] == {"train": {"lr": 0.5}}
    assert first["project"] == "semvlp"
    assert first["resume"] == "allow"
    assert stand_in.finished == 2
    assert bool(stand_in.metrics) == (stand_in.__name__ == "wandb")


def test_a_tracker_asked_for_later_is_told_what_was(tmp_path: Path, stand_in: StandIn) -> None:
    trained(tmp_path, "none", range(1, 6), done=0)
    assert not stand_in.runs
    trained(tmp_path, stand_in.__name__, range(5, 8), done=4)
    assert sorted(stand_in.values) == wanted(tmp_path)


def test_a_new_run_is_another_one(
    tmp_path: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{stand_in.__name__.upper()}_PROJECT", "mine")
    trained(tmp_path, stand_in.__name__, range(1, 3), done=0)
    (tmp_path / TRACKER).unlink()
    (tmp_path / METRICS).unlink()
    trained(tmp_path, stand_in.__name__, range(1, 3), done=0)
    assert stand_in.runs[0]["name"] != stand_in.runs[1]["name"]
    assert stand_in.runs[0]["project"] == "mine"


def test_a_tracker_that_fails_ends_no_training(
    tmp_path: Path, stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.fails = True
    trained(tmp_path, stand_in.__name__, range(1, 6), done=0)
    assert len(read_lines(tmp_path / METRICS)) == 5
    assert caplog.text.count("fails and is sent nothing more: no network") == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_one_error(name: TrackerName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"needs the package {name}: pip install {name}"):
        check_tracker(name)
    check_tracker("none")


def test_one_that_refuses_to_begin_is_one_error(
    tmp_path: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**given: Any) -> None:
        raise RuntimeError("no key")

    monkeypatch.setattr(stand_in, "init", refuse)
    with pytest.raises(ConfigError, match=f"tracker = {stand_in.__name__} cannot begin: no key"):
        trained(tmp_path, stand_in.__name__, range(1, 3), done=0)


def test_training_sends_all_that_it_logs(
    tmp_path: Path, shards: Path, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = StandIn("trackio")
    monkeypatch.setitem(sys.modules, "trackio", module)
    pretrain([shards], tmp_path / "run", small("train.tracker=trackio", "train.steps=2"))
    assert module.values
    assert sorted(module.values) == wanted(tmp_path / "run")
    assert module.runs[0]["config"]["train"]["tracker"] == "trackio"
