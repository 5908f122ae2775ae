"""What needs no torch is done, or refused, before torch is loaded; that it loads is shown."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from semvlp import progress
from semvlp.commands.console import run
from semvlp.progress import busy

ROOT = Path(__file__).resolve().parents[2]
# What is typed, the exit code, and what the message names.
MISTAKES: list[tuple[str, int, str]] = [
    ("pretrain nowhere --set train.stepz=3", 2, "did you mean 'steps'"),
    ("pretrain nowhere --set train.lr=fast", 2, "train.lr must be float"),
    ("pretrain nowhere --config tinny", 2, "did you mean --config tiny"),
    ("pretrain nowhere", 3, "nowhere"),
    (
        "pretrain nowhere --set model.pretrained=runs/x/last --set model.tokenizer=train",
        2,
        "needs its own vocabulary",
    ),
    (
        "pretrain nowhere --set model.pretrained=runs/x/last --set model.tokenizer=runs/x/last",
        3,
        "model.pretrained runs/x/last: there is no such folder",
    ),
    ("finetune --task vqa --shards nowhere --set train.epoch=3", 2, "did you mean 'epochs'"),
    ("finetune --task vqa --shards nowhere --seeds 2", 2, "--valid"),
    ("finetune --task vqa --shards nowhere --init none", 3, "nowhere"),
    (
        "finetune --task vqa --shards nowhere",
        3,
        "--init runs/pretrain/last: there is no such folder",
    ),
    ("detector train . . --set step=3", 2, "did you mean 'steps'"),
    ("detector train . . --set network=tiny", 2, "network must be one of"),
    ("extract . --set shorter_sid=3", 2, "did you mean 'shorter_side'"),
    ("extract nowhere", 3, "nowhere: no images there"),
    ("extract . --detector bitd", 2, "did you mean 'butd'"),
    ("extract . --detector demo --weights x.pkl", 2, "has its own weights"),
    ("extract . --weights x.pkl", 3, "x.pkl: no such weights file"),
    ("extract . --min-regions 50 --max-regions 20", 2, "got min 50 and max 20"),
    ("eval --task vqa", 3, "--checkpoint runs/finetune-vqa/best: there is no such folder"),
    ("eval --task vqa --checkpoint .", 2, "give --annotations and --shards"),
    ("ask nowhere.jpg what?", 2, "give photographs that are there"),
    ("ask . what?", 2, "semvlp demo"),
    ("ask photo.png what? --checkpoint runs/x/best", 3, "--checkpoint runs/x/best: there is no"),
    ("shards convert nowhere out --to lmdb", 3, "nowhere"),
    ("shards convert nowhere out --to lmdb --view butd_36", 3, "nowhere"),
]
PROBE = """
import contextlib, io, json, sys
from semvlp.cli import cli
from semvlp.commands.console import run

for arguments in json.load(sys.stdin):
    streams = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            code = run(cli, "semvlp", arguments)
        except SystemExit as error:
            code = error.code
    loaded = sorted({"torch", "transformers"} & sys.modules.keys())
    print(json.dumps([code, streams[0].getvalue(), streams[1].getvalue(), loaded]), flush=True)
"""


def outcomes(commands: list[list[str]], folder: Path) -> list[tuple[int, str, str, list[str]]]:
    """Run commands in one fresh process; return code, stdout, stderr, and what was loaded."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        input=json.dumps(commands),
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_mistakes_are_told_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    every = outcomes([typed.split() for typed, _, _ in MISTAKES], tmp_path)
    for (typed, code, named), (ended, _, told, loaded) in zip(MISTAKES, every, strict=True):
        assert (typed, ended, loaded) == (typed, code, [])
        assert named in told, typed


def test_what_needs_no_torch_loads_none(tmp_path: Path) -> None:
    line = {"identifier": "dev-0-0-0", "sentence": "It is.", "label": "True"}
    (tmp_path / "dev.json").write_text(json.dumps(line) + "\n")
    (tmp_path / "answers.csv").write_text("dev-0-0-0,True\n")
    score = ["score", "--task", "nlvr2", "--annotations", "dev.json", "answers.csv", "--json"]
    _write_run(tmp_path / "run")
    compare = ["compare", "run", "--out", "compare.html"]
    commands = [["--json", "--version"], score, compare, ["settings", "--json"]]
    done = outcomes([*commands, ["detector", "list"]], tmp_path)
    assert [(code, loaded) for code, _, _, loaded in done] == [(0, [])] * 5
    assert {"torch", "CUDA"} <= json.loads(done[0][1]).keys()
    assert json.loads(done[1][1])["accuracy"] == 100
    assert "best checkpoint" in (tmp_path / "compare.html").read_text()


def _write_run(run: Path) -> None:
    """Write what a run of two steps leaves, but for its tensors."""
    training = run / "checkpoints" / "step-0000002" / "training"
    training.mkdir(parents=True)
    state = {"format_version": 1, "step": 2, "best_step": 2, "finished": True}
    (training / "state.json").write_text(json.dumps(state))
    (run / "config.toml").write_text("[train]\nsteps = 2\n")
    steps = [
        {"step": step, "mode": mode, "loss": 1.0} for step, mode in ((1, "single"), (2, "two"))
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    (run / "validation.jsonl").write_text('{"step": 2, "accuracy": 50.0}\n')


@pytest.mark.parametrize(("terminal", "shown"), [(True, True), (False, False)])
def test_a_terminal_shows_that_something_takes_a_while(
    terminal: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    monkeypatch.setattr(sys, "stderr", Stream())
    monkeypatch.setattr(progress, "_wanted", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with busy("loading torch"):
        pass
    assert ("loading torch" in sys.stderr.getvalue()) == shown


def test_the_doctor_says_that_it_looks(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semvlp.cli import cli

    monkeypatch.setattr("semvlp.doctor._package", lambda name, try_out=None: None)
    monkeypatch.setattr("semvlp.doctor._detectron2", lambda: 1 / 0)
    assert run(cli, "semvlp", ["doctor"]) == 1
    assert "looking at what is installed" in capsys.readouterr().err


def test_the_package_is_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "semvlp", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: semvlp ")


@pytest.mark.parametrize(
    ("shell", "line", "words"),
    [("bash", "semvlp", "COMP_WORDS"), ("zsh", "#compdef semvlp", ""), ("fish", "semvlp", "")],
)
def test_shells_complete(shell: str, line: str, words: str, capsys: pytest.CaptureFixture) -> None:
    from semvlp.cli import cli

    assert run(cli, "semvlp", ["completion", shell, "--json"]) == 0
    script = json.loads(capsys.readouterr().out)["script"]
    assert line in script
    assert words in script


def test_a_shell_is_told_commands_options_and_choices(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semvlp.cli import cli

    def completed(typed: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
        with pytest.raises(SystemExit):
            run(cli, "semvlp", [])
        return [line.partition(",")[2] for line in capsys.readouterr().out.splitlines()]

    monkeypatch.setenv("_SEMVLP_COMPLETE", "bash_complete")
    assert completed("semvlp pre") == ["pretrain"]
    assert completed("semvlp finetune --task nlv") == ["nlvr2", "nlvr"]
    assert "--preset" in completed("semvlp extract images --pre")
