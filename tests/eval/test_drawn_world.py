"""`semvlp finetune`, `eval` and `score` on every task with the files of a drawn world."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.demo.dataset.files import WorldFiles, write_world
from semvlp.demo.world.config import WorldConfig
from semvlp.eval.tasks.table import TASKS

pytestmark = pytest.mark.slow
Semvlp = Callable[..., Any]


@pytest.fixture
def semvlp(capsys: pytest.CaptureFixture) -> Semvlp:
    """Run a command that must succeed; returns what it prints with --json."""

    def call(*arguments: object) -> Any:
        assert run(cli, "semvlp", [*map(str, arguments), "--json", "-q"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Regions of a small world and a checkpoint of four steps of pre-training."""
    root = tmp_path_factory.mktemp("drawn")
    config = WorldConfig(towers=0, scatter=1, square=1, covered=1, nlvr=0.5, pairs=1)
    world = write_world(root / "world", scenes={"train": 8, "valid": 8}, seed=3, config=config)
    texts = "--texts", world.texts("train"), "--only-matched"
    small = "--set", "model.preset=tiny", "--set", "train.steps=4", "--set", "train.batch_size=8"
    for command in (
        ("extract", world.root / "images", "--out", root / "regions", "--detector", "demo"),
        ("shards", "join", root / "regions", "--out", root / "shards", *texts),
        ("pretrain", root / "shards", "--out", root / "pretrain", *small),
    ):
        assert run(cli, "semvlp", [*map(str, command), "-q"]) == 0, command
    return root


@pytest.mark.parametrize("name", TASKS)
def test_every_task(name: str, root: Path, semvlp: Semvlp, tmp_path: Path) -> None:
    world = WorldFiles(root / "world", ("train", "valid"))
    train, valid = (world.annotations(name, split) for split in ("train", "valid"))
    semvlp(
        *("finetune", "--task", name, "--shards", root / "regions", "--out", tmp_path / "run"),
        *("--init", root / "pretrain" / "last", "--set", "train.steps=2"),
        *("--set", "train.batch_size=8", "--set", "train.validation_mode=two"),
        *_each("--annotations", train),
        *_each("--valid", valid),
    )
    evaluation = "eval", "--task", name, "--checkpoint", tmp_path / "run" / "best"
    report = semvlp(*evaluation, "--out", tmp_path / "eval", "--images", root / "world" / "images")
    assert set(report["scores"]["modes"]) == {"single", "two", "both"}
    unlabelled = name in ("retrieval", "refcoco")
    baselines = set() if unlabelled else {"majority", "text only"}
    assert set(report["scores"]["baselines"]) == baselines
    scored = semvlp("score", "--task", name, *_each("--annotations", valid), report["file"])
    metric = TASKS[name].metric
    assert scored[metric] == report["scores"][metric]
    page = Path(report["report"]).read_text()
    assert "data:image/jpeg" in page
    # Once more: nothing to do.
    again = semvlp(*evaluation, "--out", tmp_path / "eval", "--images", root / "world" / "images")
    assert again["scores"] == report["scores"]


def test_retrieval_without_fine_tuning(root: Path, semvlp: Semvlp, tmp_path: Path) -> None:
    captions = WorldFiles(root / "world", ()).annotations("retrieval", "valid")
    report = semvlp(
        *("eval", "--task", "retrieval", "--checkpoint", root / "pretrain" / "last"),
        *("--shards", root / "regions", "--out", tmp_path / "eval"),
        *_each("--annotations", captions),
    )
    assert json.loads((tmp_path / "eval" / "provenance.json").read_text())["zero_shot"]
    assert report["scores"]["counts"]["images"] > 1


def _each(option: str, values: list[Path]) -> list[object]:
    return [part for value in values for part in (option, value)]
