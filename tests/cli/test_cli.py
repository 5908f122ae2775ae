"""The contract of the command line: names, exit codes, where output goes."""

import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from semvlp.cli import cli
from semvlp.commands.console import run

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    "demo",
    "extract",
    "detector",
    "shards",
    "pretrain",
    "finetune",
    "eval",
    "score",
    "compare",
    "ask",
    "search",
    "serve",
    "settings",
    "completion",
    "doctor",
]
SHARDS_COMMANDS = ["info", "verify", "preview", "convert", "join", "import", "export", "parity"]
HEAVY = ("torch", "transformers", "numpy", "lmdb", "webdataset", "PIL", "rich", "jinja2")


def semvlp(*arguments: str) -> int:
    return run(cli, "semvlp", arguments)


def test_every_command_of_the_contract_exists() -> None:
    assert list(cli.commands) == COMMANDS
    assert list(cli.commands["shards"].commands) == SHARDS_COMMANDS
    assert list(cli.commands["detector"].commands) == ["train", "list"]


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("extract", "-h"), ("shards", "-h")])
def test_help_goes_to_stdout(arguments: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    assert semvlp(*arguments) == 0
    assert "Usage: semvlp" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rank", "flags", "level"),
    [
        ("0", (), logging.INFO),
        ("0", ("-v",), logging.DEBUG),
        ("0", ("-q",), logging.WARNING),
        ("1", (), logging.WARNING),
        ("1", ("-v",), logging.WARNING),
    ],
)
def test_of_several_processes_the_first_one_logs(
    rank: str, flags: tuple[str, ...], level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    assert semvlp("detector", "list", *flags) == 0
    assert logging.getLogger("semvlp").level == level


def test_help_loads_nothing_heavy() -> None:
    probe = (
        "import sys; from semvlp.cli import cli; from semvlp.commands.console import run;"
        f"run(cli, 'semvlp', ['--help']); print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True)
    assert out.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("nonsense",), "nonsense"),
        (("pretrain",), "SHARDS"),
        (("extract", "x", "--preset", "best"), "'best'"),
        (("finetune", "--task", "vcr"), "vcr"),
        (("extract", "images", "--min-regions", "0"), "--min-regions"),
    ],
)
def test_usage_errors_end_with_2(
    arguments: tuple[str, ...], named: str, capsys: pytest.CaptureFixture
) -> None:
    assert semvlp(*arguments) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert named in streams.err
    assert "Traceback" not in streams.err


def test_errors_are_one_json_object_where_asked(capsys: pytest.CaptureFixture) -> None:
    assert semvlp("shards", "info", "no/such/dir", "--json") == 3
    streams = capsys.readouterr()
    error = json.loads(streams.out)
    assert error["exit_code"] == 3
    assert "no/such/dir" in error["error"]


@pytest.mark.parametrize("place", ["before", "after"])
def test_global_options_stand_anywhere(place: str, capsys: pytest.CaptureFixture) -> None:
    command = ("detector", "list")
    arguments = ("--json", *command) if place == "before" else (*command, "--json")
    assert semvlp(*arguments) == 0
    assert "demo" in json.loads(capsys.readouterr().out)


def test_verbose_shows_the_traceback(capsys: pytest.CaptureFixture) -> None:
    assert semvlp("shards", "info", "no/such/dir", "-v") == 3
    assert "Traceback" in capsys.readouterr().err


def test_version_names_what_it_runs_on(capsys: pytest.CaptureFixture) -> None:
    assert semvlp("--json", "--version") == 0
    versions = json.loads(capsys.readouterr().out)
    assert {"semvlp", "Python", "torch", "transformers", "detectron2"} <= set(versions)


def test_an_unknown_setting_names_the_nearest(capsys: pytest.CaptureFixture) -> None:
    assert semvlp("pretrain", "shards", "--set", "train.stepz=3") == 2
    assert "did you mean 'steps'" in capsys.readouterr().err


@pytest.mark.parametrize(("module", "shown"), [("PIL.Image", False), ("semvlp.cli", True)])
def test_raw_warnings_of_pillow_are_not_shown(module: str, shown: bool) -> None:
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("default")
        assert semvlp("detector", "list") == 0
        warnings.warn_explicit("large image", UserWarning, "file.py", 1, module=module)
    assert bool(recorded) == shown


def test_the_program_runs_from_a_checkout_without_installation() -> None:
    command = [sys.executable, "cli.py", "--help"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0
    assert "pretrain" in out.stdout
