"""Files appear whole or not at all."""

import json
from pathlib import Path

import pytest

from semvlp import atomic


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
