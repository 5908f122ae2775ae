"""The folder of a run: one process at a time, and nothing of somebody else's is replaced."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from semvlp import settings
from semvlp.atomic import locked
from semvlp.distributed import ALONE
from semvlp.errors import ConfigError, InputError
from semvlp.names import Precision
from semvlp.train.config import PretrainConfig
from semvlp.train.detector.checkpoint import open_run
from semvlp.train.detector.config import DetectorTrainConfig
from semvlp.train.run.checkpoint import write_checkpoint
from semvlp.train.run.files import CONFIG, INPUTS, read_run
from semvlp.train.run.folder import prepare, settle_precision
from semvlp.train.run.state import TrainingState

GIVEN: dict[str, Any] = {"config": PretrainConfig(), "inputs": {"task": "pretrain"}}
NAMES = (CONFIG, INPUTS, "metrics.jsonl", "report.html", "last", "best")


@pytest.mark.parametrize("name", [*NAMES, "checkpoints/step-final", "checkpoints/step-0000001"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_somebody_else_are_not_replaced(
    tmp_path: Path, name: str, overwrite: bool
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"somebody": "else"}')
    with pytest.raises(ConfigError, match="but no run of ours"):
        prepare(tmp_path, **GIVEN, resume=True, overwrite=overwrite)
    assert path.read_text() == '{"somebody": "else"}'
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_overwrite_removes_a_run_and_nothing_beside_it(tmp_path: Path) -> None:
    prepare(tmp_path, **GIVEN, resume=True, overwrite=False)
    kept = [tmp_path / "notes.txt", tmp_path / "checkpoints" / "step-final" / "weights"]
    gone = [tmp_path / "metrics.jsonl", tmp_path / "checkpoints" / "step-0000003" / "weights"]
    for path in (*kept, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    prepare(tmp_path, **GIVEN, resume=True, overwrite=True)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)


def test_a_run_that_was_killed_before_its_first_checkpoint_goes_on(tmp_path: Path) -> None:
    prepare(tmp_path, **GIVEN, resume=True, overwrite=False)
    (tmp_path / CONFIG).unlink()
    prepare(tmp_path, **GIVEN, resume=True, overwrite=False)
    assert json.loads((tmp_path / INPUTS).read_text()) == GIVEN["inputs"]
    assert (tmp_path / CONFIG).exists()


@pytest.mark.parametrize(("began", "native"), [("fp32", True), ("bf16", False)])
def test_automatic_precision_is_what_the_run_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, began: Precision, native: bool
) -> None:
    """On a machine that would have chosen otherwise, and whatever the default was then."""
    capabilities = {"avx512_bf16": native}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    own = "bf16" if native else "fp32"
    config = PretrainConfig()
    assert settle_precision(config, tmp_path, ALONE, overwrite=False).train.precision == own
    before = settings.override(config, [f"train.precision={began}"])
    assert settle_precision(before, tmp_path, ALONE, overwrite=False) == before
    prepare(tmp_path, **GIVEN | {"config": before}, resume=True, overwrite=False)
    assert settle_precision(config, tmp_path, ALONE, overwrite=False).train.precision == own
    state = tmp_path / "checkpoints" / "step-0000001" / "training" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    assert settle_precision(config, tmp_path, ALONE, overwrite=False) == before
    assert settle_precision(config, tmp_path, ALONE, overwrite=True).train.precision == own


def test_a_folder_has_one_process(tmp_path: Path) -> None:
    in_use = pytest.raises(ConfigError, match="in use by another process")
    with locked(tmp_path / "run"), in_use, locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists(), "made here and left empty"
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"):
        pass
    assert not list((tmp_path / "run").iterdir())


def test_who_is_kept_out_of_a_new_folder_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes start at once, and neither has met the folder."""
    with locked(tmp_path / "run"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "exists", lambda self: False)
            in_use = pytest.raises(ConfigError, match="in use by another process")
            with in_use, locked(tmp_path / "run"):
                pass
        assert (tmp_path / "run").is_dir()


DAMAGE = {"empty": b"", "NULs": b"\0" * 99, "half": b'{"task": "pre', "no text": b"\xff\xfe"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a checkpoint."""
    prepare(tmp_path / "run", **GIVEN, resume=True, overwrite=False)
    write_checkpoint(tmp_path / "run", TrainingState(step=3), lambda path: None, keep=1)
    return tmp_path / "run"


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_inputs_of_a_run_are_told_and_written_anew(
    run: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (run / INPUTS).write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        prepare(run, **GIVEN, resume=True, overwrite=False)
    assert f"{run / INPUTS} must hold what the run reads" in caplog.text
    assert "written anew from what this command gives" in caplog.text
    assert json.loads((run / INPUTS).read_text()) == GIVEN["inputs"]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_settings_of_a_run_are_told_and_taken_from_its_checkpoint(
    run: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = (run / CONFIG).read_text()
    (run / CONFIG).write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert read_run(run).config == before
    assert f"{run / CONFIG} must hold the settings of the run" in caplog.text
    other = PretrainConfig(train=replace(PretrainConfig().train, lr=0.5))
    with pytest.raises(ConfigError, match=r"train\.lr must be"):
        prepare(run, other, GIVEN["inputs"], resume=True, overwrite=False)
    prepare(run, **GIVEN, resume=True, overwrite=False)
    assert (run / CONFIG).read_text() == before


def test_settings_that_are_damaged_everywhere_end_it(run: Path) -> None:
    for path in (run / CONFIG, run / "last" / "training" / CONFIG):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"run/config\.toml must .*training/config\.toml must "):
        prepare(run, **GIVEN, resume=True, overwrite=False)
    prepare(run, **GIVEN, resume=True, overwrite=True)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_inputs_without_a_checkpoint_prove_nothing_and_are_named(
    tmp_path: Path, damage: bytes
) -> None:
    (tmp_path / INPUTS).write_bytes(damage)
    with pytest.raises(ConfigError, match=r"inputs\.json must hold what the run reads, but"):
        prepare(tmp_path, **GIVEN, resume=True, overwrite=True)
    assert (tmp_path / INPUTS).read_bytes() == damage


@pytest.mark.parametrize("name", ["detector.json", "detector.safetensors", "training.pt"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_detector_of_somebody_else_is_not_replaced(
    tmp_path: Path, name: str, overwrite: bool
) -> None:
    (tmp_path / name).write_text('{"somebody": "else"}')
    with pytest.raises((ConfigError, InputError), match=name):
        open_run(tmp_path, DetectorTrainConfig(), {}, resume=True, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == '{"somebody": "else"}'


def test_a_run_killed_while_its_only_checkpoint_was_replaced_goes_on(run: Path) -> None:
    step = run / "checkpoints" / "step-0000003"
    step.rename(step.with_name(".step-0000003.before.part"))
    prepare(run, **GIVEN, resume=True, overwrite=False)
    assert step.is_dir()
