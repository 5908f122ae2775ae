"""An output that is, or holds, what is read is refused by every command, and nothing is touched."""

import json
from pathlib import Path

import pytest

from semvlp.cli import cli
from semvlp.commands.console import run
from tests.shards.datasets import write_dataset

TASK = ("--task", "vqa", "--annotations", "data/a.json")
COMMANDS = {
    "extract": ("extract", "data", "--out", "data"),
    "extract, a tar of the output": ("extract", "data/shard-000000.tar", "--out", "data"),
    "extract, its texts": ("extract", "images", "--texts", "data/a.json", "--out", "data"),
    "extract, its labels": ("extract", "images", "--labels", "data/a.json", "--out", "data"),
    "extract, its weights": ("extract", "images", "--weights", "data/w.pth", "--out", "data"),
    "extract, a link": ("extract", "link", "--out", "data"),
    "detector train": ("detector", "train", "data/a.json", "images", "--out", "data"),
    "detector train, its validation": (
        *("detector", "train", "b.json", "images", "--out", "data"),
        *("--set", "valid=data/a.json"),
    ),
    "convert": ("shards", "convert", "data", "data/../data", "--to", "tar"),
    "join": ("shards", "join", "images", "--texts", "data/a.json", "--out", "data"),
    "import": ("shards", "import", "data/regions.lmdb", "data", "--from", "uniter-lmdb"),
    "pretrain": ("pretrain", "data/shard-*.tar", "--out", "data"),
    "export": ("shards", "export", "data", "link/../data", "--to", "butd-tsv"),
    "preview": ("shards", "preview", "data", "--out", "data"),
    "preview, its photographs": (
        *("shards", "preview", "images", "--images", "data/a.json", "--out", "data"),
    ),
    "compare": ("compare", "images", "data/last", "--out", "data/last"),
    "pretrain, its start": (
        *("pretrain", "images", "--out", "data"),
        *("--set", "model.pretrained=data/last", "--set", "model.tokenizer=data/last"),
    ),
    "finetune, its shards": ("finetune", *TASK, "--shards", "data", "--out", "data"),
    "finetune, its start": (
        *("finetune", "--task", "vqa", "--annotations", "b.json", "--shards", "images"),
        *("--init", "data/last", "--out", "data"),
    ),
    "eval, its photographs": (
        *("eval", "--task", "vqa", "--annotations", "b.json", "--shards", "images"),
        *("--checkpoint", "images", "--images", "data/a.json", "--out", "data"),
    ),
    "eval, what the run was validated on": (
        *("eval", "--task", "vqa", "--checkpoint", "run/checkpoints/x", "--out", "data"),
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
        "data/w.pth",
        "b.json",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"somebody's {name}".encode())
    (tmp_path / "data" / "regions.lmdb").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "run" / "checkpoints" / "x").mkdir(parents=True)
    record = {"valid": ["b.json"], "shards": str(tmp_path / "data")}
    (tmp_path / "run" / "inputs.json").write_text(json.dumps(record))
    (tmp_path / "link").symlink_to("data")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WITHOUT_OVERWRITE = (("shards", "export"), ("shards", "preview"), ("compare",))


@pytest.mark.parametrize("more", [(), ("--overwrite",)], ids=["kept", "overwrite"])
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_it_is_refused(
    folder: Path, arguments: tuple[str, ...], more: tuple[str, ...], capsys: pytest.CaptureFixture
) -> None:
    if any(arguments[: len(command)] == command for command in WITHOUT_OVERWRITE):
        more = ()
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


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "run", "--out", "b.json"),
        ("compare", "run", "--out", "run/metrics.jsonl"),
        ("compare", "run", "--out", "images"),
        ("shards", "preview", "store", "--out", "b.json"),
        ("shards", "preview", "store", "--out", "store/manifest.json"),
        ("shards", "preview", "store"),
    ],
    ids=" ".join,
)
def test_a_page_replaces_nothing_but_a_page_of_ours(
    folder: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture
) -> None:
    write_dataset(folder / "store")
    (folder / "store" / "preview.html").write_text("<html><p>somebody's</html>")
    (folder / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    before = content(folder)
    assert run(cli, "semvlp", [*arguments]) == 2
    assert "is no page of ours" in capsys.readouterr().err
    assert content(folder) == before
    for _ in range(2):
        given = arguments[: arguments.index("--out")] if "--out" in arguments else arguments
        assert run(cli, "semvlp", [*given, "--out", "new/page.html"]) == 0
