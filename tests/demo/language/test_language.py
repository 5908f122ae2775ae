"""What is said of scenes is true by construction, balanced, and means what the words mean."""

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import pytest

from semvlp.demo.language.captions import (
    CONTRADICTION,
    ENTAILMENT,
    LABELS,
    NEUTRAL,
    caption,
    hypothesis,
    judge,
    remark,
)
from semvlp.demo.language.claims import FALSE, TRUE, Claim, spread, statement
from semvlp.demo.language.item_words import ItemKind, topmost, touched_walls
from semvlp.demo.language.pairs import Pair, pair_statement
from semvlp.demo.language.questions import ANSWERS, question
from semvlp.demo.language.scatter_statements import scatter_statement
from semvlp.demo.language.square_statements import square_statement
from semvlp.demo.language.tower_boxes import boxed_tower_statement
from semvlp.demo.language.tower_statements import tower_statement
from semvlp.demo.language.words import Quantity, any_quantity, article, noun, there_is
from semvlp.demo.world.draw import seen_items
from semvlp.demo.world.random_scenes import draw_lots
from semvlp.demo.world.scene import COLORS, KINDS, Item, Kind, Scene

STATEMENTS: dict[Kind, Callable[[Random], Claim[Scene]]] = {
    "towers": tower_statement,
    "scatter": scatter_statement,
    "square": square_statement,
}
COLOR_WORDS = set(COLORS)
NUMBERS = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}


def lot(kind: Kind, count: int, *, covered: bool = False) -> list[Scene]:
    return draw_lots(kind, {"train": count}, seed="3", seen=set(), covered=covered)["train"]


def normal(text: str) -> str:
    return " ".join(text.lower().rstrip(".").split())


def number(word: str) -> int:
    return NUMBERS[word] if word in NUMBERS else int(word)


def tower(*colors: str) -> tuple[Item, ...]:
    """Blocks from the base up."""
    return tuple(Item("square", color, 40, 80 - 21 * i, 20) for i, color in enumerate(colors))


@pytest.mark.parametrize(
    ("quantity", "true_of"),
    [
        (Quantity("exactly", 2), {2}),
        (Quantity("bare", 3), {3}),
        (Quantity("at least", 2), {2, 3, 4}),
        (Quantity("at most", 1), {0, 1}),
        (Quantity("more than", 2), {3, 4}),
        (Quantity("less than", 2), {0, 1}),
        (Quantity("some"), {1, 2, 3, 4}),
        (Quantity("no"), {0}),
    ],
)
def test_a_quantity_holds_for_its_counts(quantity: Quantity, true_of: set[int]) -> None:
    assert {count for count in range(5) if quantity.holds(count)} == true_of


def test_grammatical_number_follows_the_quantity() -> None:
    rng = Random(0)
    what = noun("box", rng=rng, before="grey")
    for _ in range(400):
        quantity = any_quantity(rng, 3)
        text = there_is(quantity, what, rng)
        words = text.split()
        plural = words[-1] == "boxes"
        assert words[1] == ("are" if plural else "is")
        if quantity.relation != "no":
            assert plural == (quantity.n not in (0, 1))
    assert article("orange star") == "an orange star"


def oracle(text: str, scene: Scene) -> bool | None:
    """A second reading of the simplest sentences, by regular expressions; None for others."""
    amount = r"(?:(exactly|only|precisely|at least|atleast|at most|no more than|more than) )?(\w+)"
    compare = {
        "at least": int.__ge__,
        "atleast": int.__ge__,
        "at most": int.__le__,
        "no more than": int.__le__,
        "more than": int.__gt__,
    }

    def counted(relation: str | None, word: str, count: int) -> bool | None:
        if word in ("a", "an", "no"):
            return (count == 0) == (word == "no")
        if word not in NUMBERS and not word.isdigit():
            return None
        return compare.get(relation or "", int.__eq__)(count, number(word))

    end = re.fullmatch(
        rf"there (?:is|are) {amount} towers? (?:with|having) an? (\w+) block at the (top|base)",
        text,
    )
    if end:
        index = -1 if end[4] == "top" else 0
        count = sum(panel[index].color == end[3] for panel in scene.panels)
        return counted(end[1], end[2], count)
    shapes = "circle|triangle|square|star|hexagon|diamond|cross|crosse"
    plain = re.fullmatch(rf"there (?:is|are) {amount} (\w+) ({shapes}|item|object)s?", text)
    if plain and plain[3] in COLOR_WORDS:
        shape = plain[4].removesuffix("e") if plain[4] == "crosse" else plain[4]
        generic = shape in ("item", "object")
        count = sum(
            item.color == plain[3] and (generic or item.shape == shape) for item in scene.items
        )
        return counted(plain[1], plain[2], count)
    over = re.fullmatch(r"there is a (\w+) block (?:on|over|above) a (\w+) block", text)
    if over:
        columns = [[item.color for item in panel] for panel in scene.panels]
        return any(
            column[i + 1] == over[1] and column[i] == over[2]
            for column in columns
            for i in range(len(column) - 1)
        )
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_statements_agree_with_a_second_reading_of_their_words(kind: Kind) -> None:
    scenes, rng, checked = lot(kind, 24), Random(1), Counter[bool]()
    for _ in range(3000):
        claim = STATEMENTS[kind](rng)
        for scene in scenes[:: 1 + rng.randrange(8)]:
            expected = oracle(normal(claim.text), scene)
            if expected is not None:
                assert claim.answer(scene) == (TRUE if expected else FALSE), claim.text
                checked[expected] += 1
    assert min(checked.values()) > 100


WRITERS: dict[str, Callable[[Random], Claim[Any]]] = {
    "towers": tower_statement,
    "towers as boxes": boxed_tower_statement,
    "scatter": scatter_statement,
    "scatter questions": lambda rng: question("scatter", rng),
    "scatter pairs": lambda rng: pair_statement("scatter", rng),
}


@cache
def many_claims(writer: str) -> dict[str, Claim[Any]]:
    """Sixty thousand claims by lot, by their plain text."""
    rng = Random(0)
    return {plain(claim.text): claim for claim in (WRITERS[writer](rng) for _ in range(60_000))}


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


def claim_of(writer: str, text: str) -> Claim[Any]:
    """The claim that says what the text says."""
    return many_claims(writer)[plain(text)]


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
    assert claim_of("towers", text).answer(TOWERS) == str(truth).lower()


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
    assert claim_of("scatter", text).answer(BOXES) == str(truth).lower()


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
    assert claim_of("towers as boxes", text).answer(TOWERS) == str(truth).lower()


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
    assert claim_of("towers", text).answer(TOWERS) == str(truth).lower()


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
    assert claim_of("scatter", text).answer(BOXES) == expected


def test_walls_are_touched_without_a_gap() -> None:
    assert touched_walls(Item("circle", "black", 0, 70, 30), 100) == {"left", "bottom"}
    assert touched_walls(Item("circle", "black", 1, 69, 30), 100) == set()
    assert topmost(BOXES.panels[0]).color == "yellow"


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_is_used_equally_often_true_and_false(kind: Kind) -> None:
    scenes = lot(kind, 96)
    used: dict[str, Counter[str]] = {}
    per_scene: Counter[int] = Counter()
    for asked in spread(STATEMENTS[kind], scenes, each=4, rng=Random(2)):
        for index, answer in asked.answers:
            assert asked.claim.answer(scenes[index]) == answer
            used.setdefault(asked.claim.text, Counter())[answer] += 1
            per_scene[index] += 1
    assert all(counts[TRUE] == counts[FALSE] for counts in used.values())
    assert sum(per_scene.values()) >= 4 * len(scenes)
    assert min(per_scene[index] for index in range(len(scenes))) >= 2


def test_a_claim_that_all_scenes_answer_alike_is_not_used() -> None:
    always = statement("it is so", lambda scene: True)
    assert list(spread(lambda rng: always, lot("towers", 24), each=2, rng=Random(0))) == []


def test_a_claim_without_an_answer_is_not_put_to_that_scene() -> None:
    scenes = list(range(24))
    claim: Claim[int] = statement("even", lambda n: None if n < 12 else n % 2 == 0)
    asked = [
        i
        for one in spread(lambda rng: claim, scenes, each=1, rng=Random(0))
        for i, _ in one.answers
    ]
    assert asked
    assert min(asked) >= 12


@pytest.mark.parametrize("kind", KINDS)
def test_questions_have_short_answers_from_a_closed_list(kind: Kind) -> None:
    scenes = lot(kind, 72)
    given: Counter[str] = Counter()
    for asked in spread(lambda rng: question(kind, rng), scenes, each=4, rng=Random(2)):
        assert asked.claim.text.endswith("?")
        given.update(answer for _, answer in asked.answers)
    assert set(given) <= set(ANSWERS)
    assert given["yes"] == given["no"] > 20
    assert len(given) > 8


def test_a_question_about_the_only_one_needs_one() -> None:
    def ask(text: str) -> str | None:
        return claim_of("scatter questions", text).answer(BOXES)

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
    assert claim_of("scatter pairs", text).answer((BOXES, empty)) == str(truth).lower()


def test_one_image_and_the_other_takes_either_order() -> None:
    rng = Random(0)
    claims = (pair_statement("towers", rng) for _ in range(3000))
    both = [claim for claim in claims if " and the other " in claim.text]
    scenes = lot("towers", 40)
    pairs: list[Pair] = list(zip(scenes[::2], scenes[1::2], strict=True))
    for claim in both[:100]:
        for left, right in pairs:
            assert claim.answer((left, right)) == claim.answer((right, left))


@pytest.mark.parametrize(
    ("quantity", "seen", "covered", "label"),
    [
        (Quantity("some"), 1, True, ENTAILMENT),
        (Quantity("some"), 0, True, NEUTRAL),
        (Quantity("some"), 0, False, CONTRADICTION),
        (Quantity("no"), 0, False, ENTAILMENT),
        (Quantity("no"), 0, True, NEUTRAL),
        (Quantity("no"), 1, True, CONTRADICTION),
        (Quantity("exactly", 2), 2, False, ENTAILMENT),
        (Quantity("exactly", 2), 2, True, NEUTRAL),
        (Quantity("exactly", 2), 3, True, CONTRADICTION),
        (Quantity("at least", 2), 2, True, ENTAILMENT),
    ],
)
def test_a_curtain_leaves_open_what_may_be_behind(
    quantity: Quantity, seen: int, covered: bool, label: str
) -> None:
    assert judge(quantity, seen, covered) == label


def test_hypotheses_are_used_equally_often_with_each_label() -> None:
    scenes = lot("square", 72, covered=True)
    labels: Counter[str] = Counter()
    for asked in spread(hypothesis, scenes, each=2, rng=Random(0), answers=LABELS):
        counts = Counter(answer for _, answer in asked.answers)
        assert len(counts) == 3
        assert len(set(counts.values())) == 1
        labels.update(counts)
        for index, answer in asked.answers:
            assert scenes[index].cover or answer != NEUTRAL
    assert labels[NEUTRAL] > 40


@pytest.mark.parametrize("kind", KINDS)
def test_captions_name_every_colour_and_count(kind: Kind) -> None:
    rng = Random(0)
    for scene in lot(kind, 20):
        text = caption(scene, rng)
        assert {word for word in re.findall(r"\w+", text) if word in COLOR_WORDS} == {
            item.color for item in scene.items
        }
        assert remark(scene, rng)


def test_captions_tell_nothing_of_what_a_curtain_hides() -> None:
    rng = Random(0)
    for scene in lot("square", 30, covered=True):
        if scene.cover:
            told = {word for word in re.findall(r"\w+", caption(scene, rng)) if word in COLOR_WORDS}
            assert told == {item.color for item in seen_items(scene)}


def test_a_kind_counts_by_colour_shape_and_size() -> None:
    kind = ItemKind(("black", "yellow"), "square", "big")
    assert kind.count(BOXES.items) == 1
    assert ItemKind().count(BOXES.items) == 4
