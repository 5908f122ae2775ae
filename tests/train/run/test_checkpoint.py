"""Checkpoints: what lies on disk, what is kept, what damaged ones say."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from semvlp.errors import InputError
from semvlp.model.config import SemVLPConfig
from semvlp.model.semvlp import SemVLPForPreTraining
from semvlp.model.tokenizer import train_wordpiece
from semvlp.train.optim import make_optimizer
from semvlp.train.run import checkpoint
from semvlp.train.run.checkpoint import (
    collected,
    load_model,
    load_optimizer,
    recover,
    settle,
    turn_link,
    write_checkpoint,
)
from semvlp.train.run.state import Checkpoint, TrainingState, newest, read_state
from semvlp.train.train_config import TrainConfig


@pytest.fixture(scope="module")
def model() -> SemVLPForPreTraining:
    config = SemVLPConfig.preset("tiny", vocab_size=60, region_feature_size=4, num_objects=2)
    return SemVLPForPreTraining(config)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_wordpiece(["abc abd"], 64)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text("[train]\nsteps = 3\n")
    return tmp_path


def save(
    run: Path,
    state: TrainingState,
    model: SemVLPForPreTraining,
    tokenizer: PreTrainedTokenizerFast,
    optimizer: torch.optim.Optimizer | None,
    *,
    keep: int,
) -> Checkpoint:
    with collected(model, optimizer) as tensors:
        return checkpoint.save(run, state, model, tokenizer, tensors, keep=keep)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_the_layout_is_hugging_faces_with_training_beside(
    run: Path, model: SemVLPForPreTraining, tokenizer: PreTrainedTokenizerFast
) -> None:
    optimizer = make_optimizer(model, TrainConfig())
    made = save(run, TrainingState(step=7), model, tokenizer, optimizer, keep=1)
    assert made.path == run / "checkpoints" / "step-0000007"
    files = {str(path.relative_to(made.path)) for path in made.path.rglob("*") if path.is_file()}
    assert files >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert files >= {f"training/{name}" for name in ("state.json", "optimizer.pt", "config.toml")}
    again = load_model(SemVLPForPreTraining, made.path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_links_are_relative_and_turn(
    run: Path, model: SemVLPForPreTraining, tokenizer: PreTrainedTokenizerFast
) -> None:
    for step, best in ((1, 1), (2, 1)):
        save(run, TrainingState(step=step, best_step=best), model, tokenizer, None, keep=2)
    assert (run / "last").readlink() == Path("checkpoints/step-0000002")
    assert (run / "best").readlink() == Path("checkpoints/step-0000001")
    moved = run.rename(run.with_name("moved"))
    assert read_state(moved / "best").step == 1


def test_old_checkpoints_go_but_not_the_best(
    run: Path, model: SemVLPForPreTraining, tokenizer: PreTrainedTokenizerFast
) -> None:
    for step in range(1, 6):
        save(run, TrainingState(step=step, best_step=2), model, tokenizer, None, keep=2)
        if step >= 2:
            assert (run / "best" / "config.json").exists()
    assert names(run) == ["step-0000002", "step-0000004", "step-0000005"]


def test_a_half_written_checkpoint_is_not_one(
    run: Path, model: SemVLPForPreTraining, tokenizer: PreTrainedTokenizerFast
) -> None:
    save(run, TrainingState(step=1), model, tokenizer, None, keep=1)
    (run / "checkpoints" / ".step-0000002.part").mkdir()
    found = newest(run)
    assert found is not None
    assert found.state.step == 1
    save(run, TrainingState(step=3), model, tokenizer, None, keep=1)
    assert names(run) == ["step-0000003"]


def test_no_run_has_no_checkpoint(tmp_path: Path) -> None:
    assert newest(tmp_path) is None


def test_the_state_comes_back(
    run: Path, model: SemVLPForPreTraining, tokenizer: PreTrainedTokenizerFast
) -> None:
    state = TrainingState(
        step=4, seconds=1.5, data={"position": 32}, best_step=4, best_score=-2.0, stale=1
    )
    assert read_state(save(run, state, model, tokenizer, None, keep=1).path) == state


def test_the_optimiser_comes_back_without_pickled_code(
    run: Path, model: SemVLPForPreTraining, tokenizer: PreTrainedTokenizerFast
) -> None:
    optimizer = make_optimizer(model, TrainConfig())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    made = save(run, TrainingState(step=1), model, tokenizer, optimizer, keep=1)
    fresh = make_optimizer(model, TrainConfig())
    load_optimizer(made, fresh)
    for parameter in model.parameters():
        for name, value in optimizer.state[parameter].items():
            assert torch.equal(value, fresh.state[parameter][name]), name


@pytest.mark.parametrize("damage", ["{", "[]", '{"format_version": 1, "stop": 3}', "{}"])
def test_a_damaged_state_names_the_file(
    run: Path, model: SemVLPForPreTraining, tokenizer: PreTrainedTokenizerFast, damage: str
) -> None:
    made = save(run, TrainingState(step=1), model, tokenizer, None, keep=1)
    (made.path / "training" / "state.json").write_text(damage)
    with pytest.raises(InputError, match=r"state\.json"):
        newest(run)


def test_a_later_format_is_refused(
    run: Path, model: SemVLPForPreTraining, tokenizer: PreTrainedTokenizerFast
) -> None:
    made = save(run, TrainingState(step=1), model, tokenizer, None, keep=1)
    path = made.path / "training" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(InputError, match="format version 1, got 2"):
        newest(run)


@pytest.mark.parametrize("name", ["model.safetensors", "training/optimizer.pt"])
def test_damaged_tensors_name_the_checkpoint(
    run: Path, model: SemVLPForPreTraining, tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    optimizer = make_optimizer(model, TrainConfig())
    made = save(run, TrainingState(step=1), model, tokenizer, optimizer, keep=1)
    file = made.path / name
    file.write_bytes(file.read_bytes()[:200])
    load = partial(load_optimizer, made, optimizer)
    if name.startswith("model"):
        load = partial(load_model, SemVLPForPreTraining, made.path)
    with pytest.raises(InputError, match="step-0000001"):
        load()


def test_a_checkpoint_of_another_network_is_refused(
    run: Path, model: SemVLPForPreTraining, tokenizer: PreTrainedTokenizerFast
) -> None:
    made = save(run, TrainingState(step=1), model, tokenizer, None, keep=1)
    path = made.path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 5}))
    with pytest.raises(InputError, match="missing_keys"):
        load_model(SemVLPForPreTraining, made.path)


def test_a_run_that_was_killed_before_its_links_were_turned_is_settled(
    run: Path, model: SemVLPForPreTraining, tokenizer: PreTrainedTokenizerFast
) -> None:
    for step in (1, 2, 3):
        save(run, TrainingState(step=step, best_step=step), model, tokenizer, None, keep=9)
    turn_link(run / "last", run / "checkpoints" / "step-0000002")
    turn_link(run / "best", run / "checkpoints" / "step-0000001")
    start = newest(run)
    assert start is not None
    settle(run, start, keep=1)
    assert {(run / link).resolve().name for link in ("last", "best")} == {"step-0000003"}
    assert names(run) == ["step-0000003"]


def test_checkpoints_are_known_by_their_steps_and_others_are_nobodys(
    run: Path, model: SemVLPForPreTraining, tokenizer: PreTrainedTokenizerFast
) -> None:
    """`step-final` comes last by name, and `step-10000000` before `step-9999999`."""
    (run / "checkpoints" / "step-final").mkdir(parents=True)
    for step in (9_999_999, 10_000_000):
        save(run, TrainingState(step=step), model, tokenizer, None, keep=1)
    start = newest(run)
    assert start is not None
    assert start.state.step == 10_000_000
    assert names(run) == ["step-10000000", "step-final"]


class Killed(BaseException):
    """Ends everything at once, as SIGKILL does."""


@pytest.mark.parametrize("others", [(), (1,)], ids=["the only one", "one of two"])
@pytest.mark.parametrize("renames", [1, 2], ids=["between the renames", "after them"])
def test_a_step_that_is_rewritten_is_there_whenever_the_process_dies(
    run: Path, others: tuple[int, ...], renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(text: str, path: Path) -> None:
        (path / "weights").write_text(text)

    for step in (*others, 3):
        write_checkpoint(run, TrainingState(step=step), partial(write, "first"), keep=2)
    rename, done = Path.rename, 0

    def rename_and_die(path: Path, target: Path) -> Path:
        nonlocal done
        rename(path, target)
        done += 1
        if done == renames:
            raise Killed
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_and_die)
        with pytest.raises(Killed):
            write_checkpoint(run, TrainingState(step=3), partial(write, "second"), keep=2)
    recover(run)
    start = newest(run)
    assert start is not None
    assert start.state.step == 3
    assert (start.path / "weights").read_text() == ("first" if renames == 1 else "second")
    settle(run, start, keep=2)
    assert names(run) == [f"step-000000{step}" for step in (*others, 3)]
    write_checkpoint(run, TrainingState(step=3), partial(write, "third"), keep=2)
    assert (run / "last" / "weights").read_text() == "third"
    assert names(run) == [f"step-000000{step}" for step in (*others, 3)]


def test_only_what_has_the_name_of_a_checkpoint_in_work_is_left_over(run: Path) -> None:
    for name in (".step-0000002.part", ".step-0000002.gone.part", ".step-final.part"):
        (run / "checkpoints" / name).mkdir(parents=True)
    write_checkpoint(run, TrainingState(step=3), lambda path: None, keep=1)
    assert names(run) == [".step-final.part", "step-0000003"]
