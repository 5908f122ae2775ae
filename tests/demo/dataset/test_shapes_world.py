"""SHAPES: what stands in the cells of a picture, and what is true of it."""

from pathlib import Path
from random import Random

import numpy as np
import pytest

from semvlp.demo.dataset.shapes_world import (
    Picture,
    Question,
    compose_pictures,
    every_question,
    read_split,
    things_of,
)
from semvlp.demo.world.draw import Drawn
from semvlp.errors import InputError

RED, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.fixture
def picture() -> Picture:
    """A red square in the middle, a green triangle to its right; all else is empty."""
    pixels = np.zeros((30, 30, 3), np.uint8)
    pixels[12:18, 12:18] = RED
    for row in range(6):
        pixels[12 + row, 25 - row // 2 - 1 : 25 + row // 2 + 1] = GREEN
    return pixels


def test_cells_tell_what_stands_in_them(picture: Picture) -> None:
    assert things_of(picture) == {
        (1, 1): Drawn("square", "red", (12, 12, 18, 18)),
        (1, 2): Drawn("triangle", "green", (22, 12, 28, 18)),
    }


@pytest.mark.parametrize(
    ("query", "text", "answer"),
    [
        ("(is red square)", "is a red shape a square", True),
        ("(is square red)", "is a square red", True),
        ("(is square green)", "is a square green", False),
        ("(is red (left_of green))", "is a red shape left of a green shape", True),
        ("(is green (left_of red))", "is a green shape left of a red shape", False),
        ("(is square (above triangle))", "is a square above a triangle", False),
        ("(is red (left_of (right_of red)))", "is a red shape left of right of a red shape", True),
        # The triangle stands at the edge: nothing is right of it to be left of.
        (
            "(is green (left_of (right_of green)))",
            "is a green shape left of right of a green shape",
            False,
        ),
    ],
)
def test_questions_are_answered(picture: Picture, query: str, text: str, answer: bool) -> None:
    question = Question.parse(query)
    assert question.text == text
    assert question.answer(things_of(picture)) is answer
    assert question in set(every_question())


def test_pictures_are_made_of_the_cells_of_others(picture: Picture) -> None:
    cells = {picture[r : r + 10, c : c + 10].tobytes() for r in (0, 10, 20) for c in (0, 10, 20)}
    made = [*compose_pictures([picture], 20, Random(0))]
    places = {place for other in made for place in things_of(other)}
    assert len(places) == 9
    for other in made:
        assert {other[r : r + 10, c : c + 10].tobytes() for r in (0, 10) for c in (0, 20)} <= cells


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.query", "(is red (behind blue))\n"),
        ("train.query", "(is red blue)\n(is red blue)\n"),
        ("train.output", "yes\n"),
        ("train.input.npy", "none"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, text: str, picture: Picture) -> None:
    np.save(tmp_path / "train.input.npy", picture[None])
    (tmp_path / "train.query").write_text("(is red (left_of green))\n")
    (tmp_path / "train.output").write_text("true\n")
    assert len(read_split(tmp_path, "train").pictures) == 1
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=r"train\.input\.npy"):
        read_split(tmp_path, "train")


@pytest.mark.parametrize("name", ["train.small", "val"])
def test_every_published_question_gets_its_answer(real_data: Path, name: str) -> None:
    split = read_split(real_data / "shapes", name)
    said = (real_data / "shapes" / f"{name}.query_str.txt").read_text().splitlines()
    assert [question.text for question in split.questions] == said
    things = map(things_of, split.pictures)
    answers = [
        question.answer(found) for question, found in zip(split.questions, things, strict=True)
    ]
    assert answers == split.answers
