"""What is said of scenes is true by construction, balanced, and means what the words mean."""

import re
from collections import Counter
from collections.abc import Callable
from random import Random

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
from semvlp.demo.language.pairs import Pair, pair_statement
from semvlp.demo.language.questions import ANSWERS, question
from semvlp.demo.language.scatter_statements import scatter_statement
from semvlp.demo.language.square_statements import square_statement
from semvlp.demo.language.tower_statements import tower_statement
from semvlp.demo.language.words import Quantity, any_quantity, article, noun, there_is
from semvlp.demo.world.draw import seen_items
from semvlp.demo.world.random_scenes import draw_lots
from semvlp.demo.world.scene import COLORS, KINDS, Kind, Scene
from tests.demo.language.lots import NUMBERS, normal

STATEMENTS: dict[Kind, Callable[[Random], Claim[Scene]]] = {
    "towers": tower_statement,
    "scatter": scatter_statement,
    "square": square_statement,
}
COLOR_WORDS = set(COLORS)


def lot(kind: Kind, count: int, *, covered: bool = False) -> list[Scene]:
    return draw_lots(kind, {"train": count}, seed="3", seen=set(), covered=covered)["train"]


def number(word: str) -> int:
    return NUMBERS[word] if word in NUMBERS else int(word)


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
