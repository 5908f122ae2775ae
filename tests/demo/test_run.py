"""The demo writes where nothing of somebody else's stands, one process at a time."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from semvlp.atomic import locked
from semvlp.cli import cli
from semvlp.commands.console import CONTEXT
from semvlp.demo import run as demo
from semvlp.demo.dataset.files import WorldFiles
from semvlp.errors import ConfigError
from semvlp.eval.eval_report import EvalReport
from semvlp.eval.evaluate import EvalOptions

NAMES = (
    "report.html",
    "scores.json",
    "pretrain/config.toml",
    "eval-vqa/vqa_test.json",
    "regions/x",
)


@pytest.fixture(autouse=True)
def no_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be drawn")

    monkeypatch.setattr(demo, "_stage", started)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_files_of_somebody_else_are_not_replaced(
    tmp_path: Path, name: str, overwrite: bool
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("somebody's")
    with pytest.raises(ConfigError, match=r"but no demo of ours"):
        demo.run_demo(tmp_path, size="small", overwrite=overwrite)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]
    assert path.read_text() == "somebody's"


def test_a_demo_that_was_begun_goes_on(tmp_path: Path) -> None:
    for name in ("world", "regions"):
        (tmp_path / name).mkdir()
    (tmp_path / "world" / "world.json").write_text('{"unfinished": true}')
    with pytest.raises(AssertionError, match="nothing may be drawn"):
        demo.run_demo(tmp_path, size="small")


def test_nothing_is_written_into_source_code(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("")
    with pytest.raises(ConfigError, match="holds source code"):
        demo.run_demo(tmp_path, size="small")


def test_two_starts_of_one_demo_are_one(tmp_path: Path) -> None:
    in_use = pytest.raises(ConfigError, match="in use by another process")
    with locked(tmp_path / "demo"), in_use:
        demo.run_demo(tmp_path / "demo", size="small")


def test_it_ends_by_naming_what_can_be_asked_and_how(tmp_path: Path) -> None:
    out, accuracy = tmp_path / "a demo", demo.Accuracy(90, 89, 91)
    for folder in ("world/images", "finetune-vqa/best", "finetune-nlvr2/best", "pretrain/last"):
        (out / folder).mkdir(parents=True)
    scores = {task: {"both": accuracy} for task in ("vqa", "nlvr2")}
    report = demo.DemoReport(out=out, page=out / "report.html", scores=scores, seconds=1)
    last = report.sentence().splitlines()[-1]
    assert "`semvlp ask PHOTO TEXT`" in last
    assert report.serving() in last
    _, command, *arguments = shlex.split(report.serving())
    # Below the program: without a parent click would remember a help option without its `-h`.
    program = click.Context(cli, info_name="semvlp", **CONTEXT)
    given = cli.commands[command].make_context(command, arguments, parent=program).params
    runs = ("finetune-vqa/best", "finetune-nlvr2/best", "pretrain/last")
    assert given["checkpoints"] == tuple(f"{out}/{run}" for run in runs)
    assert (given["shards"], given["images"]) == (f"{out}/regions", out / "world" / "images")


def test_an_evaluation_shows_pictures_and_its_baselines_are_those_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = WorldFiles(tmp_path / "world", ("train", "valid", "test"))
    asked: list[tuple[Any, ...]] = []

    def evaluate(*arguments: Any) -> EvalReport:
        asked.append(arguments)
        rows = {name: _accuracy(n) for n, name in enumerate(("majority", "text only", "both"))}
        modes = {"both": rows.pop("both")}
        scores = {"baselines": rows, "modes": modes}
        return EvalReport(
            out=tmp_path, file=tmp_path, count=1, scores=scores, examples=1, seconds=1
        )

    monkeypatch.setattr(demo, "finetune", lambda *_, **__: None)
    monkeypatch.setattr(demo, "evaluate", evaluate)
    scores = demo._task("vqa", world, tmp_path / "regions", tmp_path, 1.0, False)
    assert scores == {
        "majority": demo.Accuracy(0, -1, 1),
        "text only": demo.Accuracy(1, 0, 2),
        "both": demo.Accuracy(2, 1, 3),
    }
    ((*_, annotations, _, _, options),) = asked
    assert isinstance(options, EvalOptions)
    assert annotations == world.annotations("vqa", "test")
    assert options.train == world.annotations("vqa", "train")
    assert (options.images, options.explain) == (world.root / "images", demo.EXPLAINED)


def _accuracy(mean: float) -> dict[str, float | Sequence[float]]:
    return {"accuracy": mean, "accuracy_interval": [mean - 1, mean + 1]}
