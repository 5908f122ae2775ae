"""Pre-training as a whole: it learns, it stops, it goes on with the very same losses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from semvlp.errors import ConfigError, InputError, Interrupted
from semvlp.model.semvlp import SemVLPForPreTraining
from semvlp.train import loop
from semvlp.train.config import OBJECTIVES, PretrainConfig
from semvlp.train.pretrain import pretrain
from semvlp.train.run.files import METRICS, read_lines
from semvlp.train.run.report import write_report
from semvlp.train.run.state import read_state
from semvlp.train.step import StepSums, train_step
from tests.train.pretraining import judged, losses, stop_after

Config = Callable[..., PretrainConfig]


@pytest.fixture(scope="module")
def finished(shards: Path, small: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps with its page, with dropout, never stopped."""
    run = tmp_path_factory.mktemp("pretrain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semvlp.train.pretrain.write_report", write_report)
        pretrain([shards], run, small("train.save_every=4"))
    return run


def test_a_run_leaves_what_the_contract_names(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names >= {"config.toml", "metrics.jsonl", "checkpoints", "last", "best", "report.html"}
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert (finished / "last" / "model.safetensors").exists()
    assert read_state(finished / "last").finished
    assert read_state(finished / "best").step in (4, 8)


def test_every_line_has_step_mode_and_losses(finished: Path) -> None:
    lines = read_lines(finished / METRICS)
    assert [(line["step"], line["mode"]) for line in lines] == [
        (step, "single" if step % 2 else "two") for step in range(1, 9)
    ]
    for line in lines:
        parts = {name for name in line if name.startswith("loss_")}
        assert parts <= {f"loss_{name}" for name in OBJECTIVES}
        assert line["loss"] == pytest.approx(sum(line[name] for name in parts), rel=1e-9)
        assert line["pairs_per_second"] > 0
    assert {name for line in lines for name in line if name.startswith("loss_")} == {
        f"loss_{name}" for name in OBJECTIVES
    }


def test_the_checkpoint_opens_in_hugging_face(finished: Path) -> None:
    model = SemVLPForPreTraining.from_pretrained(finished / "last")
    # Every question has this answer; the colours share the rest.
    assert model.config.answers[0] == "grey"
    assert set(model.config.answers) == {"grey", "red", "green", "blue"}
    assert model.config.num_objects == 4
    assert model.config.region_feature_size == 16


@pytest.mark.parametrize("step", [3, 4])
def test_a_stopped_run_goes_on_with_the_same_losses(
    finished: Path,
    shards: Path,
    small: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    config = small("train.save_every=4")
    stop_after(monkeypatch, step)
    with pytest.raises(Interrupted, match=f"after step {step} of 8"):
        pretrain([shards], tmp_path / "run", config)
    assert read_state(tmp_path / "run" / "last").step == step
    report = pretrain([shards], tmp_path / "run", config)
    assert report.new_steps == 8 - step
    assert losses(tmp_path / "run") == losses(finished)
    assert judged(tmp_path / "run") == judged(finished)
    assert len(judged(finished)) == 2
    ours, theirs = (
        SemVLPForPreTraining.from_pretrained(run / "last").state_dict()
        for run in (tmp_path / "run", finished)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_killed_run_goes_on_from_its_checkpoint(
    finished: Path, shards: Path, small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a chance to save: lines after the checkpoint are written anew, none twice."""
    done = 0

    def dies(*args: Any, **kwargs: Any) -> StepSums:
        nonlocal done
        done += 1
        if done == 7:
            raise SystemError
        return train_step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", dies)
        with pytest.raises(SystemError):
            pretrain([shards], tmp_path / "run", small("train.save_every=4"))
    assert len(read_lines(tmp_path / "run" / METRICS)) == 6
    pretrain([shards], tmp_path / "run", small("train.save_every=4"))
    assert losses(tmp_path / "run") == losses(finished)


def test_a_finished_run_has_nothing_to_do(finished: Path, shards: Path, small: Config) -> None:
    before = (finished / METRICS).read_bytes()
    report = pretrain([shards], finished, small("train.save_every=4"))
    assert report.new_steps == 0
    assert "nothing to do" in report.sentence()
    assert (finished / METRICS).read_bytes() == before


def test_another_config_is_refused_by_name(finished: Path, shards: Path, small: Config) -> None:
    with pytest.raises(ConfigError, match=r"train\.lr must be 0\.001"):
        pretrain([shards], finished, small("train.save_every=4", "train.lr=1e-4"))


def test_how_often_is_logged_may_change(finished: Path, shards: Path, small: Config) -> None:
    assert pretrain([shards], finished, small("train.log_every=5")).new_steps == 0


def test_no_resume_and_overwrite(finished: Path, shards: Path, small: Config) -> None:
    with pytest.raises(ConfigError, match="--overwrite"):
        pretrain([shards], finished, small("train.save_every=4"), resume=False)


def test_overwrite_starts_anew_and_keeps_what_is_not_ours(
    shards: Path, small: Config, tmp_path: Path
) -> None:
    pretrain([shards], tmp_path, small("train.steps=2"))
    (tmp_path / "notes.txt").write_text("mine")
    report = pretrain([shards], tmp_path, small("train.steps=1", "train.seed=1"), overwrite=True)
    assert (report.steps, report.new_steps) == (1, 1)
    assert len(read_lines(tmp_path / METRICS)) == 1
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_source_code_is_never_written_into(shards: Path, small: Config, tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    with pytest.raises(ConfigError, match="source code"):
        pretrain([shards], tmp_path, small())
    assert [path.name for path in tmp_path.iterdir()] == ["__init__.py"]


def test_without_texts_it_says_how_to_add_them(
    write_store: Callable[..., Path], small: Config, tmp_path: Path
) -> None:
    bare = write_store(tmp_path / "bare", range(4), with_texts=False)
    with pytest.raises(InputError, match="semvlp shards join"):
        pretrain([bare], tmp_path / "run", small())


def test_the_average_is_saved_and_the_run_goes_on_from_the_weights(
    finished: Path, shards: Path, small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small("train.save_every=4", "train.ema_decay=0.5")
    pretrain([shards], tmp_path / "whole", config)
    assert losses(tmp_path / "whole") == losses(finished)
    raw = load_file(tmp_path / "whole" / "last" / "training" / "weights.safetensors")
    plain = SemVLPForPreTraining.from_pretrained(finished / "last").state_dict()
    saved = SemVLPForPreTraining.from_pretrained(tmp_path / "whole" / "last").state_dict()
    assert all(torch.equal(raw[name], plain[name]) for name in raw)
    assert any(not torch.equal(saved[name], plain[name]) for name in raw)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            pretrain([shards], tmp_path / "stopped", config)
    pretrain([shards], tmp_path / "stopped", config)
    assert losses(tmp_path / "stopped") == losses(finished)
    again = SemVLPForPreTraining.from_pretrained(tmp_path / "stopped" / "last").state_dict()
    assert all(torch.equal(again[name], saved[name]) for name in saved)


def test_activation_checkpointing_changes_no_loss(
    finished: Path, shards: Path, small: Config, tmp_path: Path
) -> None:
    pretrain([shards], tmp_path, small("train.save_every=4", "train.activation_checkpointing=true"))
    assert losses(tmp_path) == losses(finished)
