"""Pre-training as a whole: it learns, it stops, it goes on with the very same losses."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import ConfigError, InputError, Interrupted, SemVLPError
from semvlp.model.semvlp import SemVLPForPreTraining, SemVLPPreTrainedModel
from semvlp.train import loop
from semvlp.train.config import OBJECTIVES, PretrainConfig
from semvlp.train.pretrain import PreTrainingLosses, pretrain
from semvlp.train.run import checkpoint
from semvlp.train.run.files import METRICS, read_lines
from semvlp.train.run.log import RunLog
from semvlp.train.run.state import read_state
from semvlp.train.step import MicroBatch, StepResult, StepSums, reduce, train_step

Config = Callable[..., PretrainConfig]


def losses(folder: Path) -> list[tuple[Any, ...]]:
    """Everything in the log but the clock."""
    kept = ("step", "mode", "loss", "lr", "grad_norm", *(f"loss_{name}" for name in OBJECTIVES))
    return [tuple(entry.get(name) for name in kept) for entry in read_lines(folder / METRICS)]


def judged(folder: Path) -> list[tuple[int | None, float | None]]:
    """The best step and its score after each checkpoint that is kept."""
    states = map(read_state, sorted((folder / "checkpoints").iterdir()))
    return [(state.best_step, state.best_score) for state in states]


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send ourselves a SIGTERM while the step is computed, once."""
    done = 0

    def step_and_kill(*args: Any, **kwargs: Any) -> StepSums:
        nonlocal done
        done += 1
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)
            kwargs["stop"] = True
        return train_step(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", step_and_kill)


@pytest.fixture(scope="module")
def finished(shards: Path, small: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps, with dropout, never stopped."""
    run = tmp_path_factory.mktemp("pretrain") / "run"
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


@pytest.fixture(autouse=True)
def _no_report(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing curves takes longer than eight steps; the run `finished` has drawn them."""
    monkeypatch.setattr("semvlp.train.pretrain.write_report", lambda run: None)


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
