"""The table of tasks, and what holds for all of them."""

import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from semvlp.errors import ConfigError
from semvlp.eval.task import Answer, Example, ExampleId, Rank, Referent, Task
from semvlp.eval.tasks.table import TASKS, load_task


def _perfect(task: Task, examples: list[Example]) -> dict[ExampleId, Answer]:
    if task.name == "retrieval":
        return {key: Rank(1, 0) for key in task.ids(examples)}
    if task.name == "refcoco":
        return {e.example_id: Referent(e.meta["ref_id"], e.meta["box"]) for e in examples}
    return {e.example_id: max(e.target, key=lambda label: e.target[label]) for e in examples}


def _worst(answer: Answer) -> Answer:
    if isinstance(answer, Referent):
        return answer._replace(box=(900, 900, 1, 1))
    return Rank(9, 2) if isinstance(answer, Rank) else "wrong"


def test_names_are_those_of_the_command_line() -> None:
    assert list(TASKS) == [
        *("vqa", "gqa", "nlvr2", "nlvr", "snli-ve", "retrieval", "refcoco", "table"),
    ]


def test_unknown_task() -> None:
    with pytest.raises(ConfigError, match="did you mean 'snli-ve'"):
        load_task("snli_ve")
    with pytest.raises(ConfigError, match="tasks: vqa, gqa"):
        load_task("xyz")


@pytest.mark.parametrize("name", TASKS)
def test_perfect_answers_score_100(name: str, official: dict[str, Path]) -> None:
    task = TASKS[name]
    examples = task.read([official[name]], split="test")
    found = task.score(examples, _perfect(task, examples))
    zero, total = {"ties", "distribution"} & found.keys(), {"rsum"} & found.keys()
    assert {found[key] for key in zero} <= {0}
    assert {found[key] for key in total} <= {600}
    assert {found[key] for key in found.keys() - zero - total} == {100}
    assert task.metric in found


@pytest.mark.parametrize("name", TASKS)
def test_the_order_changes_nothing(name: str, official: dict[str, Path]) -> None:
    task = TASKS[name]
    examples = task.read([official[name]], split="test")
    answers = _perfect(task, examples)
    for key in list(answers)[::2]:
        answers[key] = _worst(answers[key])
    expected = task.score(examples, answers)
    for seed in range(5):
        mixed, entries = list(examples), list(answers.items())
        random.Random(seed).shuffle(mixed)
        random.Random(seed).shuffle(entries)
        assert task.score(mixed, dict(entries)) == expected


@pytest.mark.parametrize("name", TASKS)
def test_labels_hold_every_target_once(name: str, official: dict[str, Path]) -> None:
    task = TASKS[name]
    examples = task.read([official[name]], split="test")
    labels = task.labels(examples)
    assert len(set(labels)) == len(labels)
    assert {label for e in examples for label in e.target} <= {*labels, "3"}


@pytest.mark.parametrize("name", TASKS)
def test_number_of_images_fits_the_head(name: str, official: dict[str, Path]) -> None:
    task = TASKS[name]
    sizes = {len(e.images) for e in task.read([official[name]], split="test")}
    assert sizes == {2 if task.head == "pair" else 1}


@pytest.mark.parametrize("name", TASKS)
def test_pairs_are_compared_for_retrieval_alone(
    name: str, official: dict[str, Path], make: type, save: Callable[..., Path]
) -> None:
    """Wrong pairs in training, shortlists, the matching head as it is."""
    task, pairs = TASKS[name], name == "retrieval"
    train = save("train.json", make.karpathy({"a.jpg": 2}, {"a.jpg": "train"}))
    assert task.draws_negatives == pairs
    assert task.zero_shot_labels([]) == (["mismatch", "match"] if pairs else [])
    # Neither a caption nor an expression has a label that a text alone could tell.
    learned = task.baseline_examples([train if pairs else official[name]])
    assert bool(learned) == (name not in ("retrieval", "refcoco"))
    with nullcontext() if pairs else pytest.raises(ConfigError, match="shortlist is for retrieval"):
        task.check_shortlist()


def test_tasks_load_without_torch() -> None:
    """Scoring a file and naming the tasks must not wait for it."""
    program = "import sys, semvlp.eval; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, check=False)
    assert done.returncode == 0
