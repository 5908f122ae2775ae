"""SHAPES (Andreas et al. 2016): its pictures, its questions, and more of both.

A picture is a grid of three by three cells, each empty or with one thing. What stands in a cell
follows from its pixels, so pictures can be put together from the cells of others, and any question
of the language answered about them: `(is red (left_of circle))` asks whether a cell holds something
red and has a circle in the next cell to its right.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semvlp.demo.world.draw import Drawn
from semvlp.errors import InputError

SIDE = 3
PIXELS = 10
"""Side of a cell."""
SIZE = SIDE * PIXELS
"""Side of a picture in pixels."""
COLORS = ("red", "green", "blue")
FORMS = ("circle", "square", "triangle")
WORDS = (*COLORS, *FORMS)
# A thing left of another stands in the column before the other's.
STEPS = {"left_of": (0, -1), "right_of": (0, 1), "above": (-1, 0), "below": (1, 0)}

_ANSWERS = {"true": True, "false": False}

Cell = NDArray[np.uint8]
"""Pixels [10, 10, 3], RGB."""
Picture = NDArray[np.uint8]
"""Pixels [30, 30, 3], RGB."""
Place = tuple[int, int]
"""Row and column of a cell."""


@dataclass(frozen=True, slots=True)
class Question:
    """Whether something is `subject` and stands, from something `object`, by these steps."""

    subject: str
    relations: tuple[str, ...]
    object: str

    @classmethod
    def parse(cls, query: str) -> "Question":
        """Read `(is red (left_of circle))`.

        Raises:
            ValueError: it is no such query.
        """
        words = query.replace("(", " ").replace(")", " ").split()
        if len(words) < 3 or words[0] != "is":
            raise ValueError(f"not a query of SHAPES: {query!r}")
        subject, *relations, thing = words[1:]
        if {subject, thing} - set(WORDS) or set(relations) - set(STEPS):
            raise ValueError(f"not a query of SHAPES: {query!r}")
        return cls(subject, tuple(relations), thing)

    @property
    def text(self) -> str:
        """The question in the words of SHAPES."""
        steps = [step.replace("_", " ") for step in self.relations]
        last = self.object if not steps and self.object in COLORS else _noun(self.object)
        return " ".join(["is", _noun(self.subject), *steps, last])

    def answer(self, things: dict[Place, Drawn]) -> bool:
        """Answer it about the things of a picture."""
        places = _of(self.object, things)
        for relation in reversed(self.relations):
            down, right = STEPS[relation]
            places = {(row + down, column + right) for row, column in places}
            places = {place for place in places if all(0 <= at < SIDE for at in place)}
        return bool(places & _of(self.subject, things))


class Split(NamedTuple):
    """The pictures of a split, with one question each."""

    pictures: list[Picture]
    questions: list[Question]
    answers: list[bool]


def read_split(folder: Path, name: str) -> Split:
    """Read `NAME.input.npy`, whose channels are BGR, `NAME.query` and `NAME.output`.

    Raises:
        InputError: a file is missing or damaged, or they are not of one length.
    """
    path = folder / f"{name}.input.npy"
    try:
        pixels = np.load(path, allow_pickle=False)
        questions = [Question.parse(line) for line in _lines(path, "query")]
        answers = [_ANSWERS[line] for line in _lines(path, "output")]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: must be SHAPES, its query and output beside it: {error}"
        ) from error
    count = len(questions)
    if pixels.shape != (count, SIZE, SIZE, 3) or len(answers) != count:
        raise InputError(
            f"{path}: holds pixels {pixels.shape}, but {count} queries, {len(answers)} answers"
        )
    return Split([*pixels[..., ::-1].astype(np.uint8)], questions, answers)


def every_question() -> Iterator[Question]:
    """Give all questions of at most two steps."""
    for steps in range(3):
        for subject, *relations, thing in product(WORDS, *([STEPS] * steps), WORDS):
            yield Question(subject, tuple(relations), thing)


def things_of(picture: Picture) -> dict[Place, Drawn]:
    """Find the things of a picture by their cells; boxes are xyxy in pixels of the picture."""
    found = ((place, _thing_of(place, cell)) for place, cell in cells_of(picture))
    return {place: thing for place, thing in found if thing is not None}


def cells_of(picture: Picture) -> Iterator[tuple[Place, Cell]]:
    """Give the cells of a picture, row by row."""
    for row, column in product(range(SIDE), repeat=2):
        top, left = row * PIXELS, column * PIXELS
        yield (row, column), picture[top : top + PIXELS, left : left + PIXELS]


def compose_pictures(pictures: Sequence[Picture], count: int, rng: Random) -> Iterator[Picture]:
    """Put pictures together from the cells of others, each taken from anywhere."""
    cells = [cell for picture in pictures for _, cell in cells_of(picture)]
    for _ in range(count):
        rows = [np.concatenate(rng.choices(cells, k=SIDE), axis=1) for _ in range(SIDE)]
        yield np.concatenate(rows)


def _thing_of(place: Place, cell: Cell) -> Drawn | None:
    """Tell what stands in a cell by its pixels, None where it is empty.

    A triangle is narrow at its top. The corner of a square that ends within a pixel is as dark as
    both its sides there together; that of a circle is darker.
    """
    bright = cell.max(axis=2).astype(np.float64)
    if bright.max() < 60:
        return None
    bright /= bright.max()
    rows, columns = np.nonzero(bright > 0.15)
    top, bottom, left, right = (
        int(edge) for edge in (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)
    )
    inside = bright[top:bottom, left:right]
    middle = inside.shape[0] // 2, inside.shape[1] // 2
    if inside[:2].sum() < 0.7 * inside[-2:].sum():
        form = "triangle"
    elif inside[0, 0] > 0.6 * inside[0, middle[1]] * inside[middle[0], 0]:
        form = "square"
    else:
        form = "circle"
    color = COLORS[int(cell.sum(axis=(0, 1), dtype=np.int64).argmax())]
    down, across = (at * PIXELS for at in place)
    return Drawn(form, color, (across + left, down + top, across + right, down + bottom))


def _noun(word: str) -> str:
    return f"a {word} shape" if word in COLORS else f"a {word}"


def _of(word: str, things: dict[Place, Drawn]) -> set[Place]:
    return {place for place, thing in things.items() if word in (thing.attribute, thing.label)}


def _lines(path: Path, kind: str) -> list[str]:
    name = path.name.replace(".input.npy", f".{kind}")
    return path.with_name(name).read_text(encoding="utf-8").split("\n")[:-1]
