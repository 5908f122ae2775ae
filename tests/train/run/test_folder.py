"""The folder of a run: one process at a time, and nothing of somebody else's is replaced."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from semvlp import settings
from semvlp.atomic import locked
from semvlp.distributed import ALONE
from semvlp.errors import ConfigError
from semvlp.names import Precision
from semvlp.train.config import PretrainConfig
from semvlp.train.run.folder import CONFIG, INPUTS, prepare, settle_precision

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
