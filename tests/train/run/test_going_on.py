"""A new run goes on from a checkpoint of another one, with its heads and its optimiser."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import ConfigError, InputError
from semvlp.model.semvlp import SemVLPForPreTraining
from semvlp.train.config import PretrainConfig
from semvlp.train.pretrain import pretrain
from semvlp.train.run.files import METRICS, read_lines
from semvlp.train.run.report import RunReport
from semvlp.train.run.state import read_state
from tests.train.pretraining import losses

Config = Callable[..., PretrainConfig]
CONSTANT = ("train.lr_schedule=constant", "train.warmup_ratio=0.0")


@pytest.fixture(scope="module")
def half(shards: Path, small: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four steps."""
    run = tmp_path_factory.mktemp("half") / "run"
    pretrain([shards], run, small(*CONSTANT, "train.steps=4"))
    return run


@pytest.mark.parametrize("average", ["0.0", "0.5"])
def test_more_steps_give_what_one_run_would_have_given(
    shards: Path, small: Config, tmp_path: Path, average: str
) -> None:
    settings = (*CONSTANT, f"train.ema_decay={average}")
    pretrain([shards], tmp_path / "whole", small(*settings))
    pretrain([shards], tmp_path / "half", small(*settings, "train.steps=4"))
    config, last = small(*settings), tmp_path / "half" / "last"
    report = pretrain([shards], tmp_path / "more", config, from_=last)
    assert (report.steps, report.new_steps) == (8, 4)
    assert losses(tmp_path / "more") == losses(tmp_path / "whole")[4:]
    ours, theirs = (
        SemVLPForPreTraining.from_pretrained(tmp_path / name / "last").state_dict()
        for name in ("more", "whole")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    told = json.loads((tmp_path / "more" / "inputs.json").read_text())
    assert told["from"] == str(last.resolve())
    # The same command again has nothing to do; the run it came from is as it was.
    again = pretrain([shards], tmp_path / "more", config, from_=last)
    assert again.new_steps == 0
    assert read_state(last).step == 4


def test_other_settings_take_effect(
    shards: Path, small: Config, half: Path, tmp_path: Path
) -> None:
    changed = small(*CONSTANT, "train.lr=1e-5", "train.weight_decay=0.5", "train.batch_size=4")
    pretrain([shards], tmp_path / "more", changed, from_=half / "last")
    assert {entry["lr"] for entry in read_lines(tmp_path / "more" / METRICS)} == {1e-5}
    state = torch.load(tmp_path / "more" / "last" / "training" / "optimizer.pt", weights_only=True)
    assert {group["weight_decay"] for group in state["param_groups"]} == {0.5, 0.0}
    # Cross-attention was not in the steps of one stream.
    assert {int(kept["step"]) for kept in state["state"].values()} == {4, 8}


def test_another_order_begins_with_its_first_images(
    shards: Path, small: Config, half: Path, tmp_path: Path
) -> None:
    pretrain([shards], tmp_path / "more", small("train.seed=7"), from_=half / "last")
    state = read_state(tmp_path / "more" / "last")
    assert state.step == 8
    assert state.data["position"] == read_state(half / "last").data["position"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.steps=4", "has done 4 steps, so the run must have more"),
        ("model.cross_layers=1", r"model\.cross_layers must be .* as in its run, but it is 1"),
        ("train.optimizer=muon", r"train\.optimizer must be 'adamw'"),
        ("train.ema_decay=0.9", r"train\.ema_decay must be '0'"),
    ],
)
def test_what_stands_in_the_checkpoint_must_stay(
    shards: Path, small: Config, half: Path, tmp_path: Path, setting: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pretrain([shards], tmp_path / "more", small(*CONSTANT, setting), from_=half / "last")
    assert not (tmp_path / "more" / "checkpoints").exists()


def test_regions_of_another_detector_are_refused(
    small: Config, half: Path, tmp_path: Path, write_store: Callable[..., Path]
) -> None:
    other = write_store(tmp_path / "other", range(8), nms=0.7)
    with pytest.raises(InputError, match="must hold regions such as"):
        pretrain([other], tmp_path / "more", small(*CONSTANT), from_=half / "last")


def test_a_run_that_is_refused_names_the_way(shards: Path, small: Config, half: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.steps must be 4.*--from .*last goes on"):
        pretrain([shards], half, small(*CONSTANT, "train.steps=6"))
    with pytest.raises(ConfigError, match=r"model\.preset must be 'tiny'") as refused:
        pretrain([shards], half, small(*CONSTANT, "train.steps=4", "model.preset=small"))
    assert "--from" not in str(refused.value)


def test_a_finetuning_goes_on_with_its_labels(
    finetuned: Callable[..., RunReport], half: Path, tmp_path: Path
) -> None:
    finetuned("train.steps=2", out=tmp_path / "first")
    last = tmp_path / "first" / "last"
    report = finetuned("train.steps=5", "train.lr=1e-5", out=tmp_path / "second", from_=last)
    assert (report.steps, report.new_steps) == (5, 3)
    first, second = (
        json.loads((tmp_path / name / "last" / "config.json").read_text())["id2label"]
        for name in ("first", "second")
    )
    assert first == second
    with pytest.raises(ConfigError, match="must be a checkpoint of SemVLPForTask"):
        finetuned("train.steps=5", out=tmp_path / "third", from_=half / "last")


def test_the_option_is_there_and_says_what_is_missing(
    shards: Path, half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pretrain", str(shards), "--out", str(tmp_path / "more"), "--config", "tiny"]
    assert run(cli, "semvlp", [*command, "--from", str(tmp_path / "none")]) == 3
    assert "--from" in capsys.readouterr().err
    assert run(cli, "semvlp", [*command[:3], str(half), "--from", str(half / "last")]) == 2
    assert "must not be or hold what is read" in capsys.readouterr().err
