"""The log: lines that stand once, torn lines, TensorBoard."""

import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from semvlp.train.run.log import METRICS, RunLog, cut, read_lines


def write(path: Path, steps: list[int], tail: str = "") -> None:
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in steps) + tail)


def test_lines_after_the_checkpoint_are_taken_back(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    write(path, [1, 2, 3, 4])
    cut(path, after=2)
    assert [entry["step"] for entry in read_lines(path)] == [1, 2]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    write(path, [1, 2], tail='{"step": 3, "lo')
    assert [entry["step"] for entry in read_lines(path)] == [1, 2]
    cut(path, after=9)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    assert read_lines(tmp_path / METRICS) == []
    cut(tmp_path / METRICS, after=3)
    assert not (tmp_path / METRICS).exists()


def test_going_on_appends(tmp_path: Path) -> None:
    for done in (0, 2):
        with RunLog(tmp_path, "training", steps=4, done=done) as log:
            for step in range(done + 1, done + 4):
                log.advance({"single": 1.0})
                log.metrics({"step": step, "mode": "single", "loss": float(step)})
                log.validation(step, {"accuracy": 50.0})
    assert [entry["step"] for entry in read_lines(tmp_path / METRICS)] == [1, 2, 3, 4, 5]
    lines = read_lines(tmp_path / "validation.jsonl")
    assert lines[-1] == {"step": 5, "accuracy": 50.0}


def test_tensorboard_shows_losses_by_mode(tmp_path: Path) -> None:
    with RunLog(tmp_path, "training", steps=2, done=0) as log:
        log.metrics({"step": 1, "mode": "single", "loss": 2.0, "loss_mlm": 1.5, "lr": 0.1})
        log.metrics({"step": 2, "mode": "two", "loss": 3.0, "lr": 0.2})
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == {
        "loss/loss/single",
        "loss/loss_mlm/single",
        "loss/loss/two",
        "run/lr/single",
        "run/lr/two",
    }
    assert [(e.step, e.value) for e in events.Scalars("loss/loss/two")] == [(2, 3.0)]
