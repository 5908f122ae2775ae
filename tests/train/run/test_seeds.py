"""Several seeds of one fine-tuning."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import ConfigError, InputError
from semvlp.train.config import FinetuneConfig
from semvlp.train.finetune import finetune
from semvlp.train.run.files import VALIDATION, read_lines
from semvlp.train.run.seeds import finetune_seeds
from tests.train.finetuning import task_of

Config = Callable[..., FinetuneConfig]


def test_several_seeds_give_mean_and_deviation(
    annotations: Path, shards: Path, init: Path, small_task: Config, tmp_path: Path
) -> None:
    config = small_task("train.steps=8", "train.save_every=4", "train.seed=5")

    def one(seeded: FinetuneConfig, folder: Path) -> Any:
        task, files = task_of(), [annotations]
        return finetune(task, files, shards, init, folder, seeded, valid=files)

    report = finetune_seeds(one, config, tmp_path, count=3, metric="accuracy")
    found = []
    for seed in (5, 6, 7):
        lines = read_lines(tmp_path / f"seed-{seed}" / VALIDATION)
        found.append(max(line["accuracy"] for line in lines))
    spread = report.scores["accuracy"]
    assert spread.values == pytest.approx(tuple(found))
    assert spread.mean == pytest.approx(sum(found) / 3)
    variance = sum((value - spread.mean) ** 2 for value in found) / 2
    assert spread.deviation == pytest.approx(math.sqrt(variance))
    # Student's t with two degrees of freedom.
    margin = 4.302653 * math.sqrt(variance / 3)
    assert spread.interval == pytest.approx((spread.mean - margin, spread.mean + margin))
    assert (tmp_path / "best").resolve().parts[-3] == f"seed-{5 + found.index(max(found))}"
    told = json.loads((tmp_path / "seeds.json").read_text())
    assert told["scores"]["accuracy"]["mean"] == pytest.approx(spread.mean)
    assert told["scores"]["accuracy"]["interval"] == pytest.approx(spread.interval)
    assert "±" in report.sentence()
    assert f"{spread.interval[0]:.2f} to {spread.interval[1]:.2f}" in report.sentence()
    # The same command again has nothing left to do and says the same.
    assert finetune_seeds(one, config, tmp_path, count=3, metric="accuracy") == report


def test_one_seed_is_no_spread(small_task: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        finetune_seeds(lambda *_: None, small_task(), tmp_path, count=1, metric="accuracy")  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("name", ["best", "seeds.json"])
def test_files_of_somebody_else_are_not_replaced(
    small_task: Config, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text('{"somebody": "else"}')

    def never(*_: Any) -> Any:
        raise AssertionError("nothing is trained")

    with pytest.raises(ConfigError, match="nothing there is replaced"):
        finetune_seeds(never, small_task(), tmp_path, count=2, metric="accuracy")
    assert (tmp_path / name).read_text() == '{"somebody": "else"}'


def test_lost_scores_of_a_seed_are_named(
    annotations: Path, shards: Path, init: Path, small_task: Config, tmp_path: Path
) -> None:
    config = small_task("train.steps=2", "train.save_every=2")

    def one(seeded: FinetuneConfig, folder: Path) -> Any:
        files = [annotations]
        report = finetune(task_of(), files, shards, init, folder, seeded, valid=files)
        (folder / VALIDATION).write_text("")
        return report

    with pytest.raises(InputError, match=r"seed-0/validation\.jsonl must hold the scores"):
        finetune_seeds(one, config, tmp_path, count=2, metric="accuracy")


def test_examples_that_are_left_out_are_counted_for_all_seeds(
    annotations: Path,
    shards: Path,
    init: Path,
    small_task: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = annotations.read_text().splitlines()
    more = tmp_path / "more.jsonl"
    lost = {**json.loads(lines[0]), "images": ["nowhere.jpg"]}
    more.write_text("\n".join([*lines[1:], json.dumps(lost)]))

    def one(seeded: FinetuneConfig, folder: Path) -> Any:
        return finetune(
            *(task_of(), [more], shards, init, folder, seeded),
            valid=[annotations],
            skip_missing=True,
        )

    report = finetune_seeds(one, small_task("train.steps=1"), tmp_path, count=2, metric="accuracy")
    assert (report.examples, report.left_out) == (24, 1)
    assert "Without 1 of 24 examples, whose images are missing." in report.sentence()
    assert json.loads((tmp_path / "seeds.json").read_text())["left_out"] == 1
    # The command says so by its exit code, as that of one seed does.
    monkeypatch.setattr("semvlp.train.run.seeds.finetune_seeds", lambda *_, **__: report)
    asked = tmp_path / "questions.json"
    asked.write_text('{"questions": []}')
    names = {"--annotations": asked, "--valid": asked, "--shards": shards, "--init": init}
    given = [str(word) for pair in names.items() for word in pair]
    command = ["finetune", "--task", "vqa", "--seeds", "2", *given, "--max-bad"]
    assert run(cli, "semvlp", [*command, "0.04"]) == 4
    assert "--max-bad allows 4.0%" in capsys.readouterr().err
    assert run(cli, "semvlp", [*command, "0.05"]) == 0
