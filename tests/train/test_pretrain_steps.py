"""Pre-training as a whole: what its steps compute, log and save."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import ConfigError, SemVLPError
from semvlp.model.semvlp import SemVLPPreTrainedModel
from semvlp.train import loop
from semvlp.train.config import PretrainConfig
from semvlp.train.pretrain import PreTrainingLosses, pretrain
from semvlp.train.run import checkpoint
from semvlp.train.run.files import METRICS, read_lines
from semvlp.train.run.log import RunLog
from semvlp.train.run.state import read_state
from semvlp.train.step import MicroBatch, StepResult, reduce
from tests.train.pretraining import losses

Config = Callable[..., PretrainConfig]


def test_it_learns(shards: Path, small: Config, tmp_path: Path) -> None:
    config = small("train.steps=50", "data.texts_per_image=2", "model.dropout=0.0")
    pretrain([shards], tmp_path, config)
    lines = read_lines(tmp_path / METRICS)
    for mode in ("single", "two"):
        words = [line["loss_mlm"] for line in lines if line["mode"] == mode]
        assert sum(words[-5:]) < 0.65 * sum(words[:5])


def test_accumulation_changes_no_loss(shards: Path, small: Config, tmp_path: Path) -> None:
    cuts = (
        "train.gradient_accumulation_steps=1",
        "train.gradient_accumulation_steps=3",
        "train.max_rows_per_micro_batch=40",
    )
    for cut in cuts:
        pretrain([shards], tmp_path / cut, small("train.steps=3", "model.dropout=0.0", cut))
    whole, *others = (losses(tmp_path / cut) for cut in cuts)
    for other in others:
        for one, parts in zip(whole, other, strict=True):
            assert parts[2:] == pytest.approx(one[2:], rel=1e-4)


def test_a_switched_off_objective_is_not_logged(
    shards: Path, small: Config, tmp_path: Path
) -> None:
    config = small("train.steps=1", "objectives.mlm=0.0", "objectives.answers=0.0")
    pretrain([shards], tmp_path, config)
    (line,) = read_lines(tmp_path / METRICS)
    assert not {"loss_mlm", "loss_answers"} & line.keys()
    assert "loss_features" in line


def test_the_command_keeps_the_newest_and_the_best(shards: Path, tmp_path: Path) -> None:
    settings = ("model.preset=tiny", "train.batch_size=8", "train.steps=6", "train.save_every=1")
    options = [part for setting in settings for part in ("--set", setting)]
    command = ["pretrain", str(shards), "--out", str(tmp_path), "--keep", "2", *options]
    assert run(cli, "semvlp", command) == 0
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    best = (tmp_path / "best").resolve().name
    assert kept == {"step-0000005", "step-0000006", best}


def test_utilisation_is_told_where_the_peak_is_given(
    shards: Path, small: Config, tmp_path: Path
) -> None:
    pretrain([shards], tmp_path, small("train.steps=2"))
    assert all("mfu" not in line for line in read_lines(tmp_path / METRICS))
    pretrain([shards], tmp_path, small("train.steps=2", "train.peak_tflops=1000"), overwrite=True)
    used = [line["mfu"] for line in read_lines(tmp_path / METRICS)]
    assert len(used) == 2
    assert all(0 < share < 1 for share in used)


def test_a_loss_that_is_not_finite_names_the_images(
    shards: Path, small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Weights of this size overflow in the next forward pass.
    monkeypatch.setattr(loop, "learning_rate", lambda *_: 1e30)
    with pytest.raises(SemVLPError, match=r"step 2 has loss (nan|inf)"):
        pretrain([shards], tmp_path, small())
    written = json.loads((tmp_path / "bad-batch-step-0000002-rank-0.json").read_text())
    assert len(written["image_ids"]) == 8
    assert all(name.startswith("image-") for name in written["image_ids"])
    assert written["loss"] in ("nan", "inf")
    assert [line["step"] for line in read_lines(tmp_path / METRICS)] == [1]


def test_out_of_memory_names_the_batch(
    shards: Path, small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(
        self: PreTrainingLosses, micro_batch: MicroBatch, mode: str
    ) -> dict[str, torch.Tensor]:
        # More than any machine has: the allocator itself says so.
        return {"mlm": torch.empty(2**58, dtype=torch.uint8)}

    monkeypatch.setattr(PreTrainingLosses, "forward", too_large)
    with pytest.raises(
        SemVLPError, match=r"out of memory at step 1.* 8 pairs .*max_rows_per_micro_batch"
    ):
        pretrain([shards], tmp_path, small())
    written = json.loads((tmp_path / "bad-batch-step-0000001-rank-0.json").read_text())
    assert len(written["image_ids"]) == 8
    (micro_batch,) = written["parts"]
    assert micro_batch["pairs"] == 8
    assert micro_batch["tokens"] > 16


def test_losses_are_fetched_at_log_steps_alone(
    shards: Path, small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(steps: Any, *others: Any) -> list[StepResult]:
        asked.append(len(steps))
        return reduce(steps, *others)

    monkeypatch.setattr(loop, "reduce", counted)
    config = small("train.steps=9", "train.log_every=4", "train.schedule=two")
    pretrain([shards], tmp_path, config)
    assert asked == [4, 4, 1]
    assert [line["step"] for line in read_lines(tmp_path / METRICS)] == [4, 8, 9]


def test_a_loss_that_is_not_finite_is_found_at_the_next_log_step(
    shards: Path, small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "learning_rate", lambda step, *_: 1e30 if step == 2 else 1e-3)
    with pytest.raises(SemVLPError, match=r"step 3 has loss (nan|inf)"):
        pretrain([shards], tmp_path, small("train.log_every=8"))
    assert (tmp_path / "bad-batch-step-0000003-rank-0.json").exists()
    assert read_state(tmp_path / "last").step == 0


# Dynamo itself looks at `.grad` of what it traces, and warns of that.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.slow
def test_compiled_blocks_give_the_same_losses(
    shards: Path, small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def compile_blocks(model: SemVLPPreTrainedModel, **options: Any) -> None:
        # Traced as for a GPU, but run as it is: making C++ of it takes minutes.
        asked.append(type(model).__name__)
        compiled(model, **options, backend="aot_eager")

    compiled = SemVLPPreTrainedModel.compile_blocks
    monkeypatch.setattr(SemVLPPreTrainedModel, "compile_blocks", compile_blocks)
    for name in ("true", "false"):
        config = small("train.steps=4", "model.dropout=0.0", f"train.compile={name}")
        pretrain([shards], tmp_path / name, config)
    assert asked == ["SemVLPForPreTraining"]
    for one, other in zip(losses(tmp_path / "true"), losses(tmp_path / "false"), strict=True):
        assert one[2:] == pytest.approx(other[2:], rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        ("objectives.negatives=hard_image", "objectives.masked_sides=one"),
        ("objectives.class_loss=kl", "objectives.feature_loss=mse", "objectives.token_unit=word"),
        (
            "objectives.classes_on=all",
            "objectives.region_zeroed=0.8",
            "objectives.region_random=0.1",
        ),
        ('train.schedule=["single 2", "two"]', "train.max_rows_per_micro_batch=60"),
    ],
)
def test_the_choices_of_other_systems_train(
    shards: Path, small: Config, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    report = pretrain([shards], tmp_path, small("train.steps=4", *settings))
    assert report.loss is not None
    modes = [line["mode"] for line in read_lines(tmp_path / METRICS)]
    wanted = ["single", "single", "two", "two"] if "schedule" in settings[0] else None
    assert modes == (wanted or ["single", "two", "single", "two"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.gradient_accumulation_steps=9", "train.gradient_accumulation_steps"),
        ("model.cross_layers=9", "cross_layers"),
    ],
)
def test_settings_that_do_not_fit_the_data(
    shards: Path, small: Config, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pretrain([shards], tmp_path / "run", small(override))


def test_the_log_is_synced_before_a_checkpoint_is_written(
    shards: Path, small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    for owner, name in ((RunLog, "sync"), (checkpoint, "write_checkpoint")):
        before = getattr(owner, name)

        def told(*args: Any, _name: str = name, _before: Any = before, **kwargs: Any) -> Any:
            events.append(_name)
            return _before(*args, **kwargs)

        monkeypatch.setattr(owner, name, told)
    pretrain([shards], tmp_path, small("train.save_every=4"))
    fresh, saved, end = ["write_checkpoint"], ["sync", "write_checkpoint"], ["sync"]
    assert events == fresh + 2 * saved + end
