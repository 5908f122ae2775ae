"""The study: its table, its arithmetic, and a small one from drawn scenes to the page."""

import csv
import dataclasses
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from semvlp import atomic, settings
from semvlp.demo import recipe
from semvlp.demo.experiments.study import plan as plan_module
from semvlp.demo.experiments.study import run as run_module
from semvlp.demo.experiments.study.__main__ import main
from semvlp.demo.experiments.study.cells import BASE, PARTS, Cell, cells, transfers
from semvlp.demo.experiments.study.data import FULL, Size, prepare, worlds_of
from semvlp.demo.experiments.study.page import QUESTIONS
from semvlp.demo.experiments.study.plan import Plan, cost, run_study
from semvlp.demo.experiments.study.results import Mean, Results, mean_of
from semvlp.demo.experiments.study.run import MODES, Result, Training
from semvlp.demo.language.kinds import LEVELS, TOPICS
from semvlp.errors import ConfigError, InputError, Interrupted
from semvlp.names import EvalMode
from semvlp.shards.open import open_store
from semvlp.train.config import PretrainConfig
from semvlp.train.loop import Loop
from semvlp.train.run.files import read_lines
from semvlp.train.run.state import newest
from semvlp.train.schedule import mode_of

SMALL = Size(
    scenes={"train": 24, "tune": 12, "test": 12},
    statements={"train": 3, "tune": 2, "test": 2},
    steps=8,
    seeds=1,
)
SINGLE = "single-3-tied-fourier"


def test_the_table_has_the_cells_of_the_study() -> None:
    ideal, drawn = cells("ideal"), cells("drawn")
    assert (len(set(ideal)), len(set(drawn))) == (22, 8)
    assert set(drawn) < set(ideal)
    assert BASE in drawn
    for transfer in transfers("ideal"):
        assert transfer.cell is None or transfer.cell in ideal
    assert transfers("drawn") == []
    names = {cell.name for cell in ideal}
    for _, name, _, other, _ in QUESTIONS:
        assert {name, other} <= names


@pytest.mark.parametrize(
    ("schedule", "modes", "trained"),
    [
        ("single", ["single"] * 8, "single"),
        ("two", ["two"] * 8, "two"),
        ("alternate", ["single", "two"] * 4, "both"),
        ("single-then-alternate", [*["single"] * 4, *["single", "two"] * 2], "both"),
        ("two-then-alternate", [*["two"] * 4, *["single", "two"] * 2], "both"),
        ("single-half", ["single"] * 4, "single"),
    ],
)
def test_a_schedule_takes_its_modes(
    schedule: str, modes: list[EvalMode], trained: EvalMode
) -> None:
    cell = Cell(schedule, 2, "own", "linear")
    config = settings.load(PretrainConfig, None, cell.settings(8))
    assert [mode_of(step, config.train) for step in range(1, config.train.steps + 1)] == modes
    assert cell.trained == trained
    assert (config.model.cross_layers, config.model.cross_attention) == (2, "shared")
    assert config.model.box_encoding == "linear"


def result(name: str, seed: int, low: float, high: float, trained: EvalMode = "both") -> Result:
    """Accuracies that are two points higher in two-stream mode."""
    return Result(
        part="ideal",
        name=name,
        seed=seed,
        trained=trained,
        accuracy={
            mode: {
                kind: (low if kind in LEVELS["low"] else high) + 2 * (mode == "two")
                for kind in TOPICS
            }
            for mode in MODES
        },
        seconds=1.0,
    )


def test_a_mean_has_the_standard_error_over_seeds() -> None:
    mean = mean_of([80.0, 82.0, 87.0])
    assert mean is not None
    assert (mean.mean, mean.count) == (83.0, 3)
    # The deviation of -3, -1, 4 is the root of 26 / 2, over the root of 3.
    assert mean.error == pytest.approx((13 / 3) ** 0.5)
    assert mean_of([80.0]) == Mean(80.0, None, 1)
    assert mean_of([]) is None
    assert (mean.text(), Mean(1.25, 0.5, 2).text(signed=True)) == ("83.0 ± 2.1", "+1.2 ± 0.5")


def test_differences_are_taken_within_the_seeds_that_both_have() -> None:
    """Seeds differ by twenty points, cells within a seed by five and seven."""
    results = Results(
        [
            result("a", 0, 65, 60),
            result("a", 1, 87, 60),
            result("a", 2, 99, 99),
            result("b", 0, 60, 60),
            result("b", 1, 80, 60),
            result("b", 3, 10, 10),
        ]
    )
    assert results.difference("a", "b", "low", "single") == Mean(6.0, pytest.approx(1.0), 2)
    assert results.difference("a", "b", "high", "both") == Mean(0.0, 0.0, 2)
    assert results.difference("a", "b", "count", "two", "single") == Mean(
        8.0, pytest.approx(1.0), 2
    )
    assert results.difference("a", "nobody", "low", "single") is None
    mean = results.mean("b", "both", "low")
    assert mean is not None
    assert (mean.mean, mean.count) == (50.0, 3)


def test_as_trained_is_the_mode_a_cell_has_learned() -> None:
    results = Results([result("a", 0, 60, 60, "single"), result("b", 0, 60, 60, "two")])
    assert results.mean("b", "as trained", "low") == Mean(62.0, None, 1)
    assert results.difference("a", "b", "low", "as trained") == Mean(-2.0, None, 1)


def test_both_parts_tell_the_same_of_the_same_scenes(tmp_path: Path) -> None:
    ideal, drawn = (prepare(part, tmp_path, SMALL) for part in PARTS)
    assert (ideal.test, ideal.tune) == (drawn.test, drawn.tune)
    with open_store(ideal.shards) as one, open_store(drawn.shards) as other:
        assert one.image_ids == other.image_ids
        for image_id in one.image_ids:
            texts = [store.sample(store.index_of(image_id)).texts for store in (one, other)]
            assert texts[0] == texts[1]
            assert texts[0].captions
    for world in worlds_of(SMALL):
        kinds = [fact.topic for fact in world.statements]
        # A window of few scenes may give up; none is left out.
        assert set(kinds) == set(TOPICS)
    tuned, tested = (json.loads(path.read_text()) for path in (ideal.tune, ideal.test))
    images = [{entry["imageId"] for entry in of.values()} for of in (tuned, tested)]
    assert images[0].isdisjoint(images[1])


@pytest.fixture(scope="module", autouse=True)
def small_batches() -> Iterator[None]:
    """Batches for so few scenes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PRETRAIN", "FINETUNE"):
            patch.setattr(recipe, name, (*getattr(recipe, name), "train.batch_size=16"))
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A study of two cells and a transfer that is finished."""
    out = tmp_path_factory.mktemp("study") / "out"
    plan = Plan(out=out, size=SMALL, parts=("ideal",), only=(BASE.name, "single-to-two"))
    run_study(plan)
    return plan


def test_the_page_tells_what_the_trainings_reached(small: Plan) -> None:
    page = (small.out / "page" / "study.md").read_text()
    numbers = json.loads((small.out / "page" / "results.json").read_text())["ideal"]
    assert [one["name"] for one in numbers["trainings"]] == [BASE.name, SINGLE, "single-to-two"]
    lines = list(csv.DictReader((small.out / "page" / "results.csv").read_text().splitlines()))
    assert len(lines) == 3 * len(MODES) * len(TOPICS)

    def level(name: str, mode: str) -> float:
        kinds = [
            float(line["accuracy"])
            for line in lines
            if (line["name"], line["mode"]) == (name, mode) and line["kind"] in LEVELS["low"]
        ]
        assert len(kinds) == 3
        return sum(kinds) / 3

    row = next(line for line in page.splitlines() if line.startswith(f"| `{SINGLE}` | "))
    shown = [cell.strip() for cell in row.split("|")[2:5]]
    assert shown == [f"{level(SINGLE, mode):.1f}" for mode in MODES]
    apart = next(
        one
        for one in numbers["differences"]
        if (one["name"], one["mode"], one["row"]) == (SINGLE, "as trained", "low")
    )
    expected = level(SINGLE, "single") - level(BASE.name, "both")
    assert apart["mean"] == pytest.approx(expected, abs=0.01)
    assert "3 trainings took" in page
    assert "single-to-two" in page
    for picture in re.findall(r"\((images/\S+)\)", page):
        assert (small.out / "page" / picture).read_text().lstrip().startswith("<?xml")


def test_what_is_finished_is_not_computed_again(
    small: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("computed again")

    for name in ("pretrain", "finetune", "evaluate"):
        monkeypatch.setattr(run_module, name, never)
    before = (small.out / "page" / "study.md").read_text()
    assert run_study(small).read_text() == before
    assert cost(small.trainings("ideal"), 1).startswith("0 of 3 trainings are left")
    more = Plan(out=small.out, size=FULL, parts=small.parts, only=small.only)
    with pytest.raises(ConfigError, match="must be empty or hold a study of this size"):
        run_study(more)


def test_published_results_are_not_computed_again(
    small: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("computed again")

    known = small.out / "page" / "results.json"
    for name in ("pretrain", "finetune", "evaluate"):
        monkeypatch.setattr(run_module, name, never)
    again = dataclasses.replace(small, out=tmp_path / "again")
    page = run_study(again, known=known)
    assert page.read_text() == (small.out / "page" / "study.md").read_text()

    # A transfer that is not known needs the weights of what it starts from, so that is computed.
    document = json.loads(known.read_text())
    trainings = document["ideal"]["trainings"]
    document["ideal"]["trainings"] = [one for one in trainings if one["name"] != "single-to-two"]
    without = tmp_path / "without.json"
    without.write_text(json.dumps(document))
    more = dataclasses.replace(small, out=tmp_path / "more")
    with pytest.raises(AssertionError, match="computed again"):
        run_study(more, known=without)
    kept = {one.what.name for one in more.trainings("ideal") if one.result()}
    assert kept == {BASE.name}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{}", InputError, "must be results.json of a study's page"),
        ("[1]", InputError, "must be results.json of a study's page"),
        ('{"size": {}, "ideal": {"trainings": [{}]}}', InputError, "must be results.json"),
        ('{"size": {"steps": 1}}', ConfigError, "must hold results of a study of this size"),
    ],
)
def test_other_results_are_refused(
    small: Plan, tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    known = tmp_path / "known.json"
    known.write_text(text)
    again = dataclasses.replace(small, out=tmp_path / "again")
    with pytest.raises(error, match=message):
        run_study(again, known=known)


def test_a_killed_cell_goes_on_from_its_checkpoint(
    small: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepare("ideal", small.out, SMALL)
    training = Training(part="ideal", what=BASE, seed=7, steps=8, out=tmp_path)
    train = Loop._train

    def killed(loop: Loop, step: int, *rest: Any) -> Any:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return train(loop, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_train", killed)
        with pytest.raises(Interrupted):
            training.run(data)
    stopped = newest(training.folder / "run")
    assert stopped is not None
    assert (stopped.state.step, training.result()) == (3, None)

    steps: list[int] = []

    def counted(loop: Loop, step: int, *rest: Any) -> Any:
        steps.append(step)
        return train(loop, step, *rest)

    monkeypatch.setattr(Loop, "_train", counted)
    training.run(data)
    assert steps == [4, 5, 6, 7, 8]
    assert training.result() is not None
    assert read_lines(training.folder / "run" / "metrics.jsonl")[-1]["step"] == 8


def test_a_training_that_another_process_computes_is_left_to_it(
    small: Plan, tmp_path: Path
) -> None:
    data = prepare("ideal", small.out, SMALL)
    training = Training(part="ideal", what=BASE, seed=8, steps=8, out=tmp_path)
    with atomic.locked(training.folder):
        training.run(data)
    assert training.result() is None
    # A transfer waits for the cell that it starts from.
    waiting = Training(part="ideal", what=transfers("ideal")[0], seed=8, steps=8, out=tmp_path)
    waiting.run(data)
    assert waiting.result() is None


def test_helpers_are_waited_for_and_stopped_where_the_study_is(
    small: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, program = tmp_path / "mark", "import sys, time; time.sleep({}); open({!r}, 'w')"
    helper = [sys.executable, "-c", program.format(1, str(mark))]
    run_study(small, helpers=helper, jobs=2)
    assert mark.exists()
    mark.unlink()

    def stopped(*arguments: Any) -> None:
        raise Interrupted("stopped")

    monkeypatch.setattr(plan_module, "_run", stopped)
    with pytest.raises(Interrupted):
        run_study(small, helpers=[sys.executable, "-c", program.format(60, str(mark))], jobs=2)
    assert not mark.exists()


def test_a_name_that_no_cell_has_is_refused(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "out"), "--only", "sideways-*"]) == 2
    assert not (tmp_path / "out").exists()


def test_the_cost_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    plan = Plan(out=tmp_path, size=FULL)
    trainings = [one for part in PARTS for one in plan.trainings(part)]
    assert len(trainings) == 5 * (22 + 8 + 8)
    assert cost(trainings, 2).startswith("190 of 190 trainings are left; at ")


def test_the_cost_is_told_by_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as slow as expected: the rest, a whole cell and a tenth of one, takes twice as long."""
    monkeypatch.setattr(plan_module, "SECONDS_A_STEP", 1.0)
    monkeypatch.setattr(plan_module, "SECONDS_BESIDE", 0.0)
    done, left = (
        Training(part="ideal", what=BASE, seed=n, steps=100, out=tmp_path) for n in (0, 1)
    )
    tuned = Training(part="ideal", what=transfers("ideal")[0], seed=0, steps=100, out=tmp_path)
    written = dataclasses.asdict(dataclasses.replace(result("a", 0, 60, 60), seconds=200.0))
    done.folder.mkdir(parents=True)
    atomic.write_json(done.folder / "result.json", written)
    assert cost([done, left, tuned], 2) == (
        "2 of 3 trainings are left; at 110 s each they take about 1m50s of 2 processes, each on a "
        "core of its own"
    )
