"""Stopped, terminated, begun by version 0.1: a training goes on as one that nothing happened to."""

import hashlib
import json
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import ConfigError, InputError, Interrupted
from semvlp.extract.detectors.zoo import load_detector
from semvlp.settings import load, to_tree
from semvlp.train.detector import loop
from semvlp.train.detector.config import DetectorTrainConfig
from semvlp.train.detector.train import train_detector
from semvlp.train.run.files import METRICS, VALIDATION, read_lines
from semvlp.train.run.report import write_report
from semvlp.train.run.state import newest
from semvlp.train.schedule import warmup_and_decay
from tests.train.detector.curve import curve

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = DetectorTrainConfig(
    steps=6, batch_size=2, lr=2e-3, warmup_steps=2, log_every=2, save_every=3, device="cpu"
)


@pytest.fixture(scope="module")
def whole(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing happened to."""
    out = tmp_path_factory.mktemp("whole")
    train_detector(drawn / "boxes.json", drawn, out, SHORT)
    return out


def check_equal(run: Path, whole: Path) -> None:
    for name in ("detector.safetensors", "detector.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert curve(run) == curve(whole)


def halted_in_step(
    step: int, patch: pytest.MonkeyPatch, error: type[BaseException] = KeyboardInterrupt
) -> None:
    taken = loop.train_step

    def stop(*arguments: Any) -> dict[str, float]:
        if arguments[-1] == step:
            raise error
        return taken(*arguments)

    patch.setattr(loop, "train_step", stop)


def signalled_in_step(step: int, number: signal.Signals, patch: pytest.MonkeyPatch) -> None:
    taken = loop.train_step

    def signalled(*arguments: Any) -> dict[str, float]:
        if arguments[-1] == step:
            os.kill(os.getpid(), number)
        return taken(*arguments)

    patch.setattr(loop, "train_step", signalled)


def test_a_resumed_run_ends_as_an_uninterrupted_one(
    drawn: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        halted_in_step(6, patch)
        with pytest.raises(KeyboardInterrupt):
            train_detector(drawn / "boxes.json", drawn, tmp_path, SHORT)
    assert not (tmp_path / "detector.json").exists()
    # Step 4 was logged but not saved; it is taken and logged again.
    assert [line["step"] for line in read_lines(tmp_path / METRICS)] == [2, 4]
    train_detector(drawn / "boxes.json", drawn, tmp_path, SHORT)
    check_equal(tmp_path, whole)


@pytest.mark.usefixtures("dispositions")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_in_hand_be_finished_and_saved(
    drawn: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        signalled_in_step(2, number, patch)
        with pytest.raises(Interrupted, match=r"stopped after step 2 of 6.* same command") as told:
            train_detector(drawn / "boxes.json", drawn, tmp_path, SHORT)
    assert told.value.exit_code == 130
    assert signal.getsignal(number) is before
    stopped = newest(tmp_path)
    assert stopped is not None
    assert (stopped.state.step, stopped.state.finished) == (2, False)
    assert not (tmp_path / "detector.json").exists()
    train_detector(drawn / "boxes.json", drawn, tmp_path, SHORT)
    check_equal(tmp_path, whole)


@pytest.mark.usefixtures("dispositions")
def test_the_command_stops_at_sigterm_with_130(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    settings = ["steps=400", "batch_size=1", "log_every=1", "save_every=400", "device=cpu"]
    command = ["detector", "train", str(drawn / "boxes.json"), str(drawn), "--out", str(tmp_path)]
    command += [part for setting in settings for part in ("--set", setting)]
    signalled_in_step(3, signal.SIGTERM, monkeypatch)
    assert run(cli, "semvlp", command) == 130
    stopped = newest(tmp_path)
    assert stopped is not None
    assert stopped.state.step == 3
    assert "stopped after step 3 of 400" in capsys.readouterr().err


def test_a_training_that_version_0_1_began_goes_on(
    drawn: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_by_0_1(tmp_path, drawn, SHORT, 3, monkeypatch)
    other = replace(SHORT, lr=0.1)
    with pytest.raises(ConfigError, match=r"lr must be 0\.002 as when it began, but it is 0\.1"):
        train_detector(drawn / "boxes.json", drawn, tmp_path, other)
    with pytest.raises(ConfigError, match="already holds a run"):
        train_detector(drawn / "boxes.json", drawn, tmp_path, SHORT, resume=False)
    train_detector(drawn / "boxes.json", drawn, tmp_path, SHORT)
    assert not (tmp_path / "training.pt").exists()
    for name in ("detector.safetensors", "detector.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    # Step 2 stands as version 0.1 wrote it, without a learning rate.
    lines = curve(tmp_path)
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert lines[0].keys() < lines[1].keys()
    assert lines[1:] == curve(whole)[1:]


def written_by_0_1(
    out: Path, drawn: Path, config: DetectorTrainConfig, step: int, patch: pytest.MonkeyPatch
) -> None:
    """Leave in `out` what version 0.1 did when it was stopped after saving `step`."""
    with patch.context() as halting:
        halted_in_step(step + 1, halting)
        with pytest.raises(KeyboardInterrupt):
            train_detector(drawn / "boxes.json", drawn, out, config)
    made = out / "last" / "training"
    free = ("log_every", "save_every", "keep", "valid", "valid_images", "device")
    plan = {name: value for name, value in to_tree(config).items() if name not in free}
    plan["clip"] = plan.pop("max_grad_norm")
    plan |= {
        "settings": list(config.settings),
        "annotations_sha256": hashlib.sha256((drawn / "boxes.json").read_bytes()).hexdigest(),
        "images": 8,
        "backend": "torchvision",
    }
    state = {
        "step": step,
        "plan": json.dumps(plan),
        "network": load_file(made / "weights.safetensors"),
        "optimizer": torch.load(made / "optimizer.pt", weights_only=True),
    }
    lines = read_lines(out / METRICS)
    for path in (*out.glob("events.*"), out / "config.toml", out / "inputs.json", out / "last"):
        path.unlink()
    shutil.rmtree(out / "checkpoints")
    torch.save(state, out / "training.pt")
    told = [{k: v for k, v in line.items() if k == "step" or "loss" in k} for line in lines]
    (out / METRICS).write_text("".join(json.dumps(line) + "\n" for line in told))


def test_a_damaged_state_is_named(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "training.pt").write_bytes(b"no state")
    with pytest.raises(InputError, match=r"training\.pt: damaged; remove it"):
        train_detector(drawn / "boxes.json", drawn, tmp_path, SHORT)


def test_a_damaged_checkpoint_is_named(drawn: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run, symlinks=True)
    (run / "last" / "training" / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"step-0000006.* must hold the weights to go on from"):
        train_detector(drawn / "boxes.json", drawn, run, SHORT)


def test_another_plan_is_refused_by_the_name_of_the_field(drawn: Path, tmp_path: Path) -> None:
    short = replace(SHORT, steps=1)
    train_detector(drawn / "boxes.json", drawn, tmp_path, short)
    with pytest.raises(ConfigError, match=r"lr must be 0\.002 .* is 0\.1.*--overwrite"):
        train_detector(drawn / "boxes.json", drawn, tmp_path, replace(short, lr=0.1))
    with pytest.raises(ConfigError, match="already holds a run"):
        train_detector(drawn / "boxes.json", drawn, tmp_path, short, resume=False)
    (tmp_path / "fewer.json").write_text((drawn / "boxes.json").read_text() + "\n")
    with pytest.raises(ConfigError, match="annotations_sha256 must be"):
        train_detector(tmp_path / "fewer.json", drawn, tmp_path, short)
    before = (tmp_path / "detector.safetensors").read_bytes()
    changed = replace(short, seed=1)
    train_detector(drawn / "boxes.json", drawn, tmp_path, changed, overwrite=True)
    assert (tmp_path / "detector.safetensors").read_bytes() != before
    # What no run made is left where it is.
    assert (tmp_path / "fewer.json").exists()


def test_a_detector_without_its_checkpoints_is_not_written_over(
    drawn: Path, whole: Path, tmp_path: Path
) -> None:
    for name in ("detector.json", "detector.safetensors"):
        shutil.copyfile(whole / name, tmp_path / name)
    with pytest.raises(ConfigError, match="its checkpoints are missing; --overwrite replaces it"):
        train_detector(drawn / "boxes.json", drawn, tmp_path, SHORT)


def test_the_folder_is_that_of_a_run(drawn: Path, tmp_path: Path) -> None:
    config = replace(SHORT, keep=1, valid=drawn / "boxes.json")
    report = train_detector(drawn / "boxes.json", drawn, tmp_path, config)
    assert load(DetectorTrainConfig, tmp_path / "config.toml") == config
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000006"]
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert read_lines(tmp_path / VALIDATION) == [{"step": 6, **report.scores}]
    assert load_detector(str(tmp_path), device="cpu").object_labels == ("square", "circle")
    line = read_lines(tmp_path / METRICS)[-1]
    assert line["lr"] == warmup_and_decay(6, 6, lr=2e-3, warmup_steps=2, lr_schedule="cosine")
    assert line["grad_norm"] > 0
    page = write_report(tmp_path).read_text()
    for title in ("Region proposals: boxes", "Images per second", "Validation: AP50"):
        assert f"<h2>{title}</h2>" in page
    again = train_detector(drawn / "boxes.json", drawn, tmp_path, config)
    assert again.scores == report.scores
    assert len(read_lines(tmp_path / VALIDATION)) == 1


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 4500])
@pytest.mark.parametrize("warmup_steps", [0, 1, 6, 100])
def test_the_learning_rate_is_that_of_version_0_1(steps: int, warmup_steps: int) -> None:
    def before(step: int, lr: float) -> float:
        """Return what version 0.1 took for `step`, counted from 0."""
        if step < warmup_steps:
            return lr * (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, steps - warmup_steps)
        return lr * 0.5 * (1 + math.cos(math.pi * progress))

    for lr in (1e-3, 2e-3, 1.0):
        rates = [
            warmup_and_decay(step, steps, lr=lr, warmup_steps=warmup_steps, lr_schedule="cosine")
            for step in range(1, steps + 1)
        ]
        assert rates == [before(step, lr) for step in range(steps)]


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [
        warmup_and_decay(step, 100, lr=1.0, warmup_steps=10, lr_schedule="cosine")
        for step in range(1, 101)
    ]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
