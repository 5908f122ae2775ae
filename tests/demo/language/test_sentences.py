"""Sentences about towers, boxes and pairs mean what their words mean."""

import re
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from semvlp.demo.language.claims import Claim
from semvlp.demo.language.item_words import ItemKind, topmost, touched_walls
from semvlp.demo.language.pairs import pair_statement
from semvlp.demo.language.questions import question
from semvlp.demo.language.scatter_statements import scatter_statement
from semvlp.demo.language.tower_boxes import boxed_tower_statement
from semvlp.demo.language.tower_statements import tower_statement
from semvlp.demo.world.scene import Item, Scene
from tests.demo.language.lots import NUMBERS, Lot, normal


def tower(*colors: str) -> tuple[Item, ...]:
    """Blocks from the base up."""
    return tuple(Item("square", color, 40, 80 - 21 * i, 20) for i, color in enumerate(colors))


# Words that say the same; so a sentence of a test is found whatever the lot has made of its words.
ALIKE = {
    r"atleast": "at least",
    r"objects?\b|shapes?\b": "item",
    r"items\b": "item",
    r"(closely|that is|that are) touching": "touching",
    r"touching (the|an?|any) (wall|edge|side)\b": "touching the wall",
    r"touching (the|an?) ((box )?corner|corner of a box)\b": "touching the corner",
    r"touching the bottom( edge| of a box)?\b": "touching the base",
    r"multiple|no less than 2": "at least 2",
    r"^(the \w+ of) an? ": r"\1 the ",
    r"gr[ae]y (box|square)": "box",
    r"having|(that|which) (have|has|contains?)": "with",
    r"\b(have|contains?)\b": "has",
    r"\b(only|precisely) (?=\d)": "exactly ",
    r"^the bottom block of": "the base of",
    r"with exactly (\d block)": r"with \1",
    r"(\d) blocks? tower\b": r"tower with \1 blocks",
    r"^(there (is|are) )?no (\w+?)s? ((is|are) )?touching": r"no \3s are touching",
    r"of the (3 )?(?=box|tower)": "of the ",
    r"colour": "color",
}


def plain(text: str) -> str:
    words = [str(NUMBERS.get(word, word)) for word in normal(text).split()]
    text = " ".join(words)
    for said, meant in ALIKE.items():
        text = re.sub(said, meant, text)
    return text


def lot(write: Callable[[Random], Claim[Any]], seed: int) -> Lot[Any]:
    return Lot(write, most=60_000, seed=seed, plain=plain)


# Under these seeds the sentences of the tests come soonest.
LOTS = {
    "towers": lot(tower_statement, 7),
    "towers as boxes": lot(boxed_tower_statement, 4),
    "scatter": lot(scatter_statement, 4),
    "scatter questions": lot(lambda rng: question("scatter", rng), 7),
    "scatter pairs": lot(lambda rng: pair_statement("scatter", rng), 2),
}

TOWERS = Scene("towers", (tower("black", "yellow"), tower("blue"), tower("blue", "blue", "black")))
BOXES = Scene(
    "scatter",
    (
        (Item("circle", "black", 0, 30, 20), Item("square", "yellow", 40, 5, 10)),
        (Item("triangle", "black", 70, 70, 30),),
        (Item("square", "black", 1, 50, 30),),
    ),
)


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("all the towers have different heights", True),
        ("the tallest tower has a black block at the top", True),
        ("the tallest tower has no black blocks", False),
        ("there are more blue blocks than black blocks", True),
        ("there is a tower with only one color", True),
        ("there is only one tower with only one color", True),
        ("each tower contains only one color", False),
        ("all three towers have a yellow block at the base", False),
    ],
)
def test_tower_sentences_mean_what_they_say(text: str, truth: bool) -> None:
    assert LOTS["towers"].claim(text).answer(TOWERS) == str(truth).lower()


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("there is atleast 1 black object touching the wall", True),
        ("there are no blue objects closely touching the wall", True),
        ("there are exactly two triangles touching the wall", False),
        ("there is 1 square touching a corner", False),
        ("no circles are touching the base", True),
        ("all the squares are black", False),
        ("there is 1 grey box with only black items", False),
        ("there is only one color touching the wall", True),
        ("there is a yellow item on top of other items", True),
        ("there are more squares than triangles", True),
    ],
)
def test_box_sentences_mean_what_they_say(text: str, truth: bool) -> None:
    assert LOTS["scatter"].claim(text).answer(BOXES) == str(truth).lower()


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("there is a box with 3 items and a black item on top", True),
        ("there is a box with 2 items and the black one is on top", False),
        ("there is a box with only two items of black and yellow color", True),
        ("there is a box with 3 items of only blue and black color", True),
        ("there are two blue items touching the wall", True),
        ("there are two black items touching the wall", False),
        ("all 3 different colors are touching the wall", False),
        ("only two blue and one black item are touching the wall", True),
        ("there is a black square on top of other items", True),
        ("there is a blue square on top of other items", False),
    ],
)
def test_towers_are_spoken_of_as_boxes_of_items(text: str, truth: bool) -> None:
    assert LOTS["towers as boxes"].claim(text).answer(TOWERS) == str(truth).lower()


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("there is a black tower", False),
        ("there is a blue tower", True),
        ("there is no tower with exactly two blocks", False),
        ("there is no tower with exactly four blocks", True),
        ("there are 2 towers that contain black blocks", True),
        ("there are 2 towers that contain yellow blocks", False),
        ("the tower with four blocks has a black block at the top", False),
        ("the base of a three blocks tower is blue", True),
        ("the base of a three blocks tower is black", False),
    ],
)
def test_towers_are_there_or_missing(text: str, truth: bool) -> None:
    assert LOTS["towers"].claim(text).answer(TOWERS) == str(truth).lower()


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("one of the grey square contains exactly one object", True),
        ("one of the grey square contains exactly one object which is blue", False),
        ("there is a square touching the corner that is not black", False),
        ("there is a triangle touching the corner that is not black", False),
        ("there is a triangle touching the corner that is not blue", True),
        ("triangles are touching the edge", None),
        ("yellow triangles are touching the edge", False),
        ("squares are not touching any edge", True),
    ],
)
def test_boxes_are_spoken_of_in_further_forms(text: str, truth: bool | None) -> None:
    expected = None if truth is None else str(truth).lower()
    assert LOTS["scatter"].claim(text).answer(BOXES) == expected


def test_walls_are_touched_without_a_gap() -> None:
    assert touched_walls(Item("circle", "black", 0, 70, 30), 100) == {"left", "bottom"}
    assert touched_walls(Item("circle", "black", 1, 69, 30), 100) == set()
    assert topmost(BOXES.panels[0]).color == "yellow"


def test_a_question_about_the_only_one_needs_one() -> None:
    def ask(text: str) -> str | None:
        return LOTS["scatter questions"].claim(text).answer(BOXES)

    assert ask("what color is the triangle?") == "black"
    assert ask("what color is the square?") is None
    assert ask("how many black items are there?") == "3"
    assert ask("how many black items are touching a wall?") == "2"


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("the left image has exactly one yellow object", True),
        ("there is a yellow shape in the left image", True),
        ("both images have 1 yellow item", False),
        ("exactly one image contains a yellow object", True),
        ("there are at least two black squares in total", False),
        ("there is a yellow object in total", True),
        ("the right image has more black circles than the left image", False),
        ("the left image has more black things than the right image", True),
    ],
)
def test_pair_sentences_mean_what_they_say(text: str, truth: bool) -> None:
    empty = Scene("scatter", ((Item("circle", "blue", 5, 5, 10),),) * 3)
    assert LOTS["scatter pairs"].claim(text).answer((BOXES, empty)) == str(truth).lower()


def test_a_kind_counts_by_colour_shape_and_size() -> None:
    kind = ItemKind(("black", "yellow"), "square", "big")
    assert kind.count(BOXES.items) == 1
    assert ItemKind().count(BOXES.items) == 4
