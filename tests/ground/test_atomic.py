"""Files appear whole or not at all."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from semvlp import atomic
from semvlp.errors import ConfigError

# Puts half a file into the place aside, tells so, and waits.
WRITING = """
import sys
from pathlib import Path
from semvlp import atomic
with atomic.aside(Path(sys.argv[1])) as made:
    made.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""
DAY = 86_400


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    atomic.write_text(target, "old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        atomic.write_text(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_json_refuses_what_strict_readers_refuse(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "x.json", {"score": float("nan")})
    atomic.write_json(tmp_path / "x.json", {"word": "Zürich"})
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == {"word": "Zürich"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is synced and of what is renamed to, in order."""
    told: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        told.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        told.append(f"rename {target.name}")
        return replace(path, target)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    return told


def test_a_file_is_synced_before_it_has_its_name(tmp_path: Path, events: list[str]) -> None:
    atomic.write_text(tmp_path / "file", "new")
    assert events == ["sync file", "rename file", f"sync {tmp_path.name}"]


def test_a_folder_is_synced_with_all_that_is_in_it(
    tmp_path: Path, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sync", lambda: events.append("sync all"))

    def synced(name: str) -> set[str]:
        events.clear()
        with atomic.aside(tmp_path / name) as made:
            (made / "deep").mkdir(parents=True)
            (made / "a").write_text("")
            (made / "deep" / "b").write_text("")
        return set(events[: events.index(f"rename {name}")])

    assert synced("few") == {"sync few", "sync deep", "sync a", "sync b"}
    monkeypatch.setattr(atomic, "MANY_FILES", 3)
    assert synced("many") == {"sync all"}
    assert names(tmp_path) == {"few", "many"}


def test_new_folders_are_synced_where_they_are_named(tmp_path: Path, events: list[str]) -> None:
    atomic.make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert events == [f"sync {tmp_path.name}", "sync a"]


def test_what_a_killed_process_left_goes_and_what_a_living_one_makes_stays(tmp_path: Path) -> None:
    target = tmp_path / "file"
    command = [sys.executable, "-c", WRITING, str(target)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as living, subprocess.Popen(command, **pipes) as killed:
        for process in (living, killed):
            assert process.stdout is not None
            assert process.stdout.readline() == b"writing\n"
        assert len(names(tmp_path)) == 2
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        atomic.write_text(target, "whole")
        (left,) = names(tmp_path) - {"file"}
        assert (tmp_path / left / "file").read_text() == "half"
        living.communicate(b"")
    assert living.returncode == 0
    assert names(tmp_path) == {"file"}
    assert target.read_text() == "half", "the last one to finish"


def test_left_over_is_what_has_our_name_and_no_lock_or_a_day_without_a_change(
    tmp_path: Path,
) -> None:
    """A process number of another machine says nothing, so files of 0.1 stay for a day."""
    ours = (".file.4194304.part", ".file.31.part")
    others = (".file.part", ".file.x.part", ".file.txt.31.part", "file.31.part", ".other.31.part")
    for name in (*ours, *others):
        (tmp_path / name).write_text("")
    (tmp_path / ".file.32.part").symlink_to("nowhere")
    (tmp_path / ".file.abcd_123.part").mkdir()
    atomic.write_text(tmp_path / "file", "")
    assert names(tmp_path) == {"file", *ours, *others, ".file.32.part", ".file.abcd_123.part"}
    for path in tmp_path.iterdir():
        moment = path.lstat().st_mtime - DAY - 1
        os.utime(path, (moment, moment), follow_symlinks=False)
    atomic.write_text(tmp_path / "file", "")
    assert names(tmp_path) == {"file", *others}


def test_where_nothing_can_be_locked_a_day_without_a_change_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, what: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    left = tmp_path / ".file.abcd_123.part"
    left.mkdir()
    (left / "file").write_text("half")
    atomic.write_text(tmp_path / "file", "")
    assert names(tmp_path) == {"file", left.name}
    for path in (left / "file", left):
        os.utime(path, (0, 0))
    atomic.write_text(tmp_path / "file", "")
    assert names(tmp_path) == {"file"}


def test_a_folder_in_use_is_refused_or_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two openings of a folder exclude each other, also in one process."""
    holder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(ConfigError, match="in use by another process"), atomic.locked(tmp_path):
        pass
    given_back = threading.Event()

    def give_back() -> None:
        given_back.set()
        os.close(holder)

    threading.Timer(0.1, give_back).start()
    with caplog.at_level("INFO"), atomic.locked(tmp_path, wait=True):
        assert given_back.is_set()
    assert f"waiting for another process, which works in {tmp_path}" in caplog.text


def test_a_file_is_no_folder_to_lock(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("somebody's")
    with pytest.raises(ConfigError, match="must be a folder"), atomic.locked(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "somebody's"
