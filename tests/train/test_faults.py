"""Killed, terminated, out of disk: the run goes on with the very losses it would have had."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from semvlp.errors import SemVLPError
from semvlp.train.run.files import METRICS, read_lines
from semvlp.train.run.state import newest, read_state
from tests.train.processes import Job, pretraining, started, stopping_before, together

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = [
    "model.preset=tiny",
    "train.device=cpu",
    "train.lr=1e-3",
    "train.log_every=1",
    "train.batch_size=8",
    "train.steps=40",
    "train.save_every=3",
]
NOT_COMPARED = ("seconds", "seconds_left", "pairs_per_second", "waiting")
KILLS = 30

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("faults") / "whole"
    assert together(1, pretraining(shards, out, SETTINGS)) == [0]
    return out


def curve(run: Path) -> list[dict[str, Any]]:
    lines = read_lines(run / METRICS)
    return [{k: v for k, v in line.items() if k not in NOT_COMPARED} for line in lines]


def check_equal(run: Path, whole: Path) -> None:
    assert curve(run) == curve(whole)
    ours, theirs = (read_state(folder / "last") for folder in (run, whole))
    assert (ours.best_step, ours.best_score) == (theirs.best_step, theirs.best_score)
    assert (run / "best").readlink().name == (whole / "best").readlink().name
    for name in ("model.safetensors",):
        ours, theirs = (load_file(folder / "last" / name) for folder in (run, whole))
        assert all(torch.equal(ours[tensor], theirs[tensor]) for tensor in theirs)
    ours, theirs = (
        torch.load(folder / "last" / "training" / "optimizer.pt", weights_only=True)["state"]
        for folder in (run, whole)
    )
    for index, kept in theirs.items():
        assert all(torch.equal(ours[index][name], value) for name, value in kept.items())


def test_killed_at_random_points_it_gives_the_same_losses(
    shards: Path, whole: Path, tmp_path: Path
) -> None:
    chance, kills, runs = random.Random(0), 0, 0
    while kills < KILLS:
        out = tmp_path / f"run-{runs}"
        job = pretraining(shards, out, SETTINGS)
        while True:
            process = started(job)
            process.join(chance.uniform(0.2, 2.5))
            if process.exitcode is not None:
                break
            process.kill()
            process.join()
            kills += 1
        assert process.exitcode == 0
        check_equal(out, whole)
        runs += 1
    assert kills >= KILLS


def test_processes_that_make_batches_change_nothing(
    shards: Path, whole: Path, tmp_path: Path
) -> None:
    """Killed with them and gone on with others, and without any."""
    job = pretraining(shards, tmp_path, [*SETTINGS, "data.workers=2"])
    process = started(job)
    while len(read_lines(tmp_path / METRICS)) < 8:
        assert process.exitcode is None
        time.sleep(0.02)
    process.kill()
    process.join()
    together(1, stopping_before(20, pretraining(shards, tmp_path, [*SETTINGS, "data.workers=1"])))
    assert 8 <= len(read_lines(tmp_path / METRICS)) < 20
    assert together(1, pretraining(shards, tmp_path, SETTINGS)) == [0]
    check_equal(tmp_path, whole)


def terminated(command: list[str], run: Path) -> tuple[int, str]:
    """Exit code and log of a command that gets SIGTERM once its `run` has five steps."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        while len(read_lines(run / METRICS)) < 5:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=300)
    return process.returncode, told


def test_the_program_stops_at_sigterm_with_130(shards: Path, whole: Path, tmp_path: Path) -> None:
    command = [sys.executable, "cli.py", "pretrain", str(shards), "--out", str(tmp_path)]
    command += [part for setting in SETTINGS for part in ("--set", setting)]
    code, told = terminated(command, tmp_path)
    assert code == 130, told
    stopped = read_state(tmp_path / "last").step
    assert 5 <= stopped < 40
    assert f"stopped after step {stopped} of 40" in told
    assert together(1, pretraining(shards, tmp_path, SETTINGS)) == [0]
    check_equal(tmp_path, whole)


def test_torchrun_gives_its_processes_the_time_to_save(shards: Path, tmp_path: Path) -> None:
    stopped, never = tmp_path / "stopped", tmp_path / "never"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--shutdown-timeout", "60", "-m", "semvlp.cli"]
    command += ["pretrain", str(shards), "--out", str(stopped)]
    command += [part for setting in SETTINGS for part in ("--set", setting)]
    code, told = terminated(command, stopped)
    step = read_state(stopped / "last").step
    assert 5 <= step < 40
    assert told.count(f"stopped after step {step} of 40") == 2
    # Its own exit code, not that of the processes: docs/scale.md says so.
    assert code == 1
    for out in (stopped, never):
        assert together(2, pretraining(shards, out, SETTINGS)) == [0, 0]
    check_equal(stopped, never)


@pytest.mark.parametrize("share", [0.02, 1.1])
def test_a_disk_that_fills_while_saving_costs_nothing(
    shards: Path, whole: Path, tmp_path: Path, share: float
) -> None:
    """The limit lies within the weights, or behind them and within the optimiser's state."""
    limit = int(share * (whole / "last" / "model.safetensors").stat().st_size)
    job, told = pretraining(shards, tmp_path, SETTINGS), tmp_path / "told.txt"
    process = started(partial(_with_full_disk_from, 8, limit, job, told))
    process.join(300)
    assert process.exitcode == 1
    assert "step-0000009 could not be written" in told.read_text()
    assert "File too large" in told.read_text()
    assert ".cc:" not in told.read_text()
    found = newest(tmp_path)
    assert found is not None
    assert found.state.step == 6
    assert (tmp_path / "last").resolve() == found.path.resolve()
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert together(1, job) == [0]
    check_equal(tmp_path, whole)


def _with_full_disk_from(step: int, limit: int, job: Job, told: Path) -> None:
    """The job; from that step on no file may grow beyond `limit` bytes. `told` gets its error."""
    from semvlp.train import loop

    rate = loop.learning_rate

    def fill(now: int, *others: object) -> float:
        if now == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return rate(now, *others)  # type: ignore[arg-type]

    loop.learning_rate = fill
    try:
        job()
    except SemVLPError as error:
        told.write_text(str(error))
        raise


def test_a_script_without_a_main_guard_is_told_so(shards: Path, tmp_path: Path) -> None:
    """The reading process imports the script; the run it would begin there must not touch ours."""
    script, run = tmp_path / "script.py", tmp_path / "run"
    script.write_text(
        "from pathlib import Path\n"
        "from semvlp import settings\n"
        "from semvlp.train.config import PretrainConfig\n"
        "from semvlp.train.pretrain import pretrain\n"
        "given = ['model.preset=tiny', 'train.steps=2', 'train.batch_size=4', 'train.device=cpu']\n"
        f"pretrain([Path({str(shards)!r})], Path({str(run)!r}),\n"
        "         settings.load(PretrainConfig, None, given), overwrite=True)\n"
    )
    found = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith(
        'semvlp.errors.SemVLPError: the main script must do its work under `if __name__ == "__main'
    )
    assert found.stderr.count("Traceback") == 1
    assert (run / "last" / "config.json").is_file()
