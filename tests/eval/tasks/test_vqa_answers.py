"""The official VQA answer processing, by golden vectors of the official evaluator."""

import json
from pathlib import Path

import pytest

from semvlp.eval.tasks.vqa_answers import normalise, soft_target, vqa_score

# Outputs of GT-Vision-Lab/VQA vqaEval.py at a013f00.
GOLDEN = {
    "Yes.": "yes",
    "100,978": "100978",
    "1,2 - 3": "12 3",
    "t-shirt": "t shirt",
    "2:50 pm": "2:50 pm",
    "girl's": "girl's",
    "none": "0",
    "Ten": "10",
    "the a an": "",
    "$5": "$5",
    "5%": "5%",
    "#1": "#1",
    "oclock": "o'clock",
    "Im": "im",
    "U.S.A.": "usa",
    "1.": "1",
    ".5": ".5",
    "6.5": "6.5",
    "no,thanks": "no thanks",
    "dont": "don't",
    "couldn'tve": "couldn't've",
    "yall'd've": "y'all'd've",
    "somebody'd": "somebodyd",
    "a\tred\ncar ": "red car",
}


@pytest.mark.parametrize(("raw", "expected"), GOLDEN.items())
def test_normalise_is_the_official_processing(raw: str, expected: str) -> None:
    assert normalise(raw) == expected


def test_only_thirty_two_periods_go() -> None:
    """The evaluator hands a flag to the parameter that limits replacements."""
    assert normalise("." * 40 + "a") == "." * 8 + "a"


@pytest.mark.parametrize(
    ("matches", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_score_by_number_of_people(matches: int, expected: float) -> None:
    people = ["red"] * matches + [f"other {n}" for n in range(10 - matches)]
    assert vqa_score("red", people) == pytest.approx(expected)


def test_unanimous_people_are_compared_as_they_wrote() -> None:
    """The rule since March 2021; before, the prediction was always processed."""
    assert vqa_score("Yes", ["yes"] * 10) == 0
    assert vqa_score("t-shirt", ["t-shirt"] * 10) == 1
    assert vqa_score("Yes", ["yes"] * 9 + ["no"]) == 1


def test_a_target_is_what_the_evaluator_would_give() -> None:
    people = ["T-shirt", "t shirt", "shirt", "shirt", "the shirt", "a", "b", "c", "Two", "2"]
    target = soft_target(people)
    assert target == pytest.approx(
        {"t shirt": 0.6, "shirt": 0.9, "": 0.3, "b": 0.3, "c": 0.3, "2": 0.6}
    )
    assert all(vqa_score(label, people) == pytest.approx(target[label]) for label in target)


def test_published_vocabulary_is_made_of_fixed_points(real_data: Path) -> None:
    """LXMERT's 3,129 answers went through the official processing."""
    labels = json.loads((real_data / "vocab" / "vqa_trainval_label2ans.json").read_text())
    assert len(labels) == 3129
    assert [label for label in labels if normalise(label) != label] == []
