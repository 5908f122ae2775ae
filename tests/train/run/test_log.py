"""The log: lines that stand once, torn lines, TensorBoard."""

import json
import logging
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from semvlp.errors import InputError
from semvlp.train.run.files import METRICS, cut, read_lines
from semvlp.train.run.log import RunLog


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


HALF, NULS = b'{"step": 3, "lo', b"\0" * 40
DAMAGE = {"half": HALF, "NULs": NULS, "no text": b'{"step": "\xff"}', "no entry": b"[3]"}


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["no end", "an end"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", [METRICS, "validation.jsonl"])
def test_a_damaged_last_line_is_told_and_cut_off(
    tmp_path: Path, name: str, damage: bytes, end: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    write(path, [1, 2])
    path.write_bytes(path.read_bytes() + damage + end)
    with caplog.at_level(logging.WARNING):
        assert [entry["step"] for entry in read_lines(path)] == [1, 2]
    assert f"{path}, line 3, the last, is damaged" in caplog.text
    assert "left out" in caplog.text
    with RunLog(tmp_path, "training", steps=4, done=2):
        pass
    assert "is cut off" in caplog.text
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", [METRICS, "validation.jsonl"])
def test_a_damaged_line_before_the_last_ends_it(tmp_path: Path, name: str, damage: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(b'{"step": 1}\n' + damage + b'\n{"step": 3}\n')
    before = path.read_bytes()
    for read in (lambda: read_lines(path), lambda: RunLog(tmp_path, "x", steps=4, done=3)):
        with pytest.raises(InputError, match=rf"{name}, line 2 is damaged .*remove this line"):
            read()
    assert path.read_bytes() == before


def test_a_log_from_which_nothing_is_taken_back_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    write(path, [1, 2])
    before = path.stat().st_ino
    cut(path, after=2)
    assert path.stat().st_ino == before
