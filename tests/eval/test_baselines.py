"""What can be answered without looking."""

from pathlib import Path

import pytest

from semvlp.eval import baselines
from semvlp.eval.baselines import baseline_scores, majority, text_only
from semvlp.eval.task import Example
from semvlp.eval.tasks.gqa import Gqa


def _example(number: int, text: str, **target: float) -> Example:
    return Example(example_id=number, text=text, images=("i",), target=target)


TRAIN = [
    _example(0, "is the box red", red=1.0, blue=0.3),
    _example(1, "is the box not red", blue=1.0),
    _example(2, "is the tower red", red=1.0),
    _example(3, "is the tower not red", blue=1.0),
]


def test_majority_sums_the_scores() -> None:
    assert majority(TRAIN, [_example(7, "x"), _example(8, "y")]) == {7: "blue", 8: "blue"}
    assert majority(TRAIN[:1], [_example(7, "x")]) == {7: "red"}


def test_majority_does_not_depend_on_the_order() -> None:
    even = [_example(0, "x", red=1.0), _example(1, "x", blue=1.0)]
    assert majority(even, even) == majority(even[::-1], even) == {0: "blue", 1: "blue"}


def test_words_and_pairs_of_words_tell() -> None:
    valid = [_example(4, "is the thing red"), _example(5, "the thing is not red")]
    assert text_only(TRAIN, valid) == {4: "red", 5: "blue"}


def test_text_only_is_deterministic_and_blind_to_images() -> None:
    valid = [_example(4, "is the thing red"), _example(5, "")]
    moved = [Example(example_id=e.example_id, text=e.text, images=("other",)) for e in valid]
    assert text_only(TRAIN, valid) == text_only(TRAIN, moved) == text_only(TRAIN[::-1], valid)


@pytest.mark.parametrize("baseline", [majority, text_only])
def test_training_needs_labels(baseline: object) -> None:
    assert callable(baseline)
    with pytest.raises(ValueError, match="training examples with labels"):
        baseline([_example(0, "x")], [_example(1, "x")])


@pytest.mark.parametrize(
    ("name", "most"), [("MAX_EXAMPLES", 3), ("MAX_LOGITS", 2 * 4 - 1)], ids=["time", "memory"]
)
def test_the_classifier_is_left_out_where_it_would_take_too_much(
    name: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four examples with two labels."""
    path, task = tmp_path / "train.json", Gqa()
    path.touch()
    monkeypatch.setattr(task, "baseline_examples", lambda paths: TRAIN)
    monkeypatch.setattr(task, "score", lambda examples, given: {})
    monkeypatch.setattr(task, "credits", lambda examples, given: {})
    assert list(baseline_scores(task, [path], TRAIN)) == ["majority", "text only"]
    monkeypatch.setattr(baselines, name, most)
    assert list(baseline_scores(task, [path], TRAIN)) == ["majority"]


def test_questions_alone_answer_twice_as_many_as_the_majority(real_data: Path) -> None:
    folder = real_data / "gqa_ood"
    paths = [folder / "ood_testdev_head.json", folder / "ood_testdev_tail.json"]
    examples = Gqa().read(paths)
    images = sorted({e.images[0] for e in examples})
    halves: list[list[Example]] = [[], []]
    for example in examples:
        halves[images.index(example.images[0]) % 2].append(example)
    accuracy = {
        baseline.__name__: Gqa().score(halves[1], baseline(*halves))["accuracy"]
        for baseline in (majority, text_only)
    }
    assert accuracy["text_only"] > 1.8 * accuracy["majority"] > 15
