"""A damaged page of an LMDB is one clear error, or what was written: never a signal."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import InputError
from semvlp.shards.open import open_store
from semvlp.shards.stores import lmdb_pages
from semvlp.shards.stores.lmdb_pages import check_pages
from tests.documents import ROOT
from tests.shards.datasets import plan_of, write_dataset

KINDS = ("ours", "version 1", "version 3", "writing")
FLIPS = 500
"""Of each kind."""


def test_the_page_of_what_can_be_trusted_has_this_number() -> None:
    text = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
    assert f"{len(KINDS) * FLIPS:,} changed bytes" in text


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_changed_byte_ends_a_process(tmp_path: Path, kind: str) -> None:
    module = [sys.executable, "-m", "tests.shards.stores.page_flips"]
    done = subprocess.run(
        [*module, kind, str(tmp_path), str(FLIPS), "16"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert set(outcomes) <= {"0", "1"}, done.stderr[-2000:]
    assert outcomes["1"] > FLIPS / 20


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A store of many pages, one of whose leaves leads out of the file."""
    write_dataset(tmp_path / "set", plan_of(200), format="lmdb")
    file = tmp_path / "set" / "regions.lmdb"
    data = bytearray(file.read_bytes())
    heads = [struct.unpack_from("<QQQ", data, page + 128) for page in (0, 4096)]
    root = max(heads, key=lambda head: head[2])[0]
    first = struct.unpack_from("<H", data, root * 4096 + 16)[0]
    struct.pack_into("<H", data, root * 4096 + first, 65_000)
    file.write_bytes(data)
    return tmp_path / "set"


def test_a_changed_pointer_is_an_error_that_names_the_file(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"regions\.lmdb cannot be opened as an LMDB: level 1 of"):
        open_store(damaged)
    for command in ("verify", "info"):
        assert run(cli, "semvlp", ["shards", command, str(damaged)]) in (0, 3)
        said = capsys.readouterr()
        assert "regions.lmdb" in said.err or command == "info"


def test_a_file_is_checked_again_only_after_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "set", plan_of(20), format="lmdb")
    walked: list[Path] = []
    check = lmdb_pages._check

    def noted(descriptor: int, size: int, file: Path, *what: bool) -> None:
        walked.append(file)
        check(descriptor, size, file, *what)

    monkeypatch.setattr(lmdb_pages, "_check", noted)
    file = tmp_path / "set" / "regions.lmdb"
    for _ in range(3):
        check_pages(file)
    assert walked == [file]
    shutil.copy(file, tmp_path / "copy")
    os.utime(file, (0, 0))
    check_pages(file)
    assert walked == [file, file]
