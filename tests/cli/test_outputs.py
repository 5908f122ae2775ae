"""An output that is, or holds, what is read is refused by every command, and nothing is touched."""

from pathlib import Path

import pytest

from semvlp.cli import cli
from semvlp.console import run

TASK = ("--task", "vqa", "--annotations", "data/a.json")
COMMANDS = {
    "extract": ("extract", "data", "--out", "data"),
    "extract, a tar of the output": ("extract", "data/shard-000000.tar", "--out", "data"),
    "extract, its texts": ("extract", "images", "--texts", "data/a.json", "--out", "data"),
    "extract, a link": ("extract", "link", "--out", "data"),
    "detector train": ("detector", "train", "data/a.json", "images", "--out", "data"),
    "convert": ("shards", "convert", "data", "data/../data", "--to", "tar"),
    "join": ("shards", "join", "images", "--texts", "data/a.json", "--out", "data"),
    "import": ("shards", "import", "data/regions.lmdb", "data", "--from", "uniter-lmdb"),
    "pretrain": ("pretrain", "data/shard-*.tar", "--out", "data"),
    "finetune, its shards": ("finetune", *TASK, "--shards", "data", "--out", "data"),
    "finetune, its start": (
        *("finetune", "--task", "vqa", "--annotations", "b.json", "--shards", "images"),
        *("--init", "data/last", "--out", "data"),
    ),
    "eval": ("eval", *TASK, "--shards", "data", "--checkpoint", "link", "--out", "data"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which somebody's files have the names that ours have."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "data/shard-000000.tar",
        "data/a.json",
        "data/config.toml",
        "data/last/x",
        "b.json",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"somebody's {name}".encode())
    (tmp_path / "data" / "regions.lmdb").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to("data")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("more", [(), ("--overwrite",)], ids=["kept", "overwrite"])
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_it_is_refused(
    folder: Path, arguments: tuple[str, ...], more: tuple[str, ...], capsys: pytest.CaptureFixture
) -> None:
    before = content(folder)
    assert run(cli, "semvlp", [*arguments, *more]) == 2
    assert "must not be or hold what is read" in capsys.readouterr().err
    assert content(folder) == before


def test_an_output_beside_what_is_read_is_nobody_s_business(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """Inside the input is beside it, too: `extract images/ --out images/regions` holds nothing."""
    assert run(cli, "semvlp", ["pretrain", "images", "--out", "images/run"]) == 3
    assert "must not be or hold" not in capsys.readouterr().err
