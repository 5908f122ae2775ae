"""Statements by level: what they say is true, and neither words nor things alone tell it."""

from collections import Counter, defaultdict
from functools import partial
from random import Random

import pytest

from semvlp.demo.language.claims import FALSE, TRUE, spread
from semvlp.demo.language.kinds import LEVELS, TOPICS, statement_of
from semvlp.demo.world.random_scenes import draw_lots, thing_of
from semvlp.demo.world.scene import Item, Scene
from tests.demo.language.lots import Lot

# A red star upper left, a blue star below it, a big green circle at the right.
SCENE = Scene(
    "square",
    (
        (
            Item("star", "red", 10, 10, 26),
            Item("star", "blue", 30, 180, 26),
            Item("circle", "green", 150, 80, 66),
        ),
    ),
)


LOTS = {topic: Lot(partial(statement_of, topic), most=80_000) for topic in TOPICS}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return draw_lots("square", {"test": 240}, seed="1", seen=set(), most=4, variety=4)["test"]


@pytest.mark.parametrize(
    ("topic", "text", "truth"),
    [
        ("exist", "there is a star", True),
        ("exist", "there is a red circle", False),
        ("exist", "there is no purple thing", True),
        ("count", "there are exactly two stars", True),
        ("count", "there are exactly two circles", False),
        ("count", "there are at least two small things", True),
        ("attribute", "the circle is green", True),
        ("attribute", "the circle is red", False),
        ("attribute", "the blue thing is a star", True),
        ("attribute", "the big thing is a star", False),
        ("relation", "the red thing is to the left of the circle", True),
        ("relation", "the blue thing is above the circle", False),
        ("relation", "the circle is below the red thing", True),
        ("extreme", "the rightmost thing is a circle", True),
        ("extreme", "the topmost thing is blue", False),
        ("extreme", "the lowest thing is small", True),
        ("two-clause", "the red thing is to the left of the circle and above it", True),
        ("two-clause", "the red thing is to the left of the circle and below it", False),
        ("two-clause", "the topmost thing is red and the lowest thing is red", False),
        ("two-clause", "the topmost thing is red and the lowest thing is a star", True),
        ("two-clause", "the leftmost thing is also the topmost thing", True),
        ("two-clause", "the lowest thing is also the rightmost thing", False),
    ],
)
def test_statements_mean_what_they_say(topic: str, text: str, truth: bool) -> None:
    claim = LOTS[topic].claim(text)
    assert claim.topic == topic
    assert claim.answer(SCENE) == (TRUE if truth else FALSE)


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        # Nothing to count, nobody or two who could be meant, a trait that nothing has or all have.
        ("count", "there is exactly one cross"),
        ("attribute", "the cross is red"),
        ("attribute", "the star is red"),
        ("attribute", "the circle is yellow"),
        ("relation", "the star is to the left of the circle"),
        ("relation", "the circle is to the left of the big thing"),
        ("extreme", "the leftmost thing is purple"),
        # Of a conjunction one clause must hold.
        ("two-clause", "the red thing is to the right of the circle and below it"),
        ("two-clause", "the leftmost thing is blue and the topmost thing is green"),
    ],
)
def test_a_statement_that_makes_no_sense_of_a_scene_has_no_answer(topic: str, text: str) -> None:
    assert LOTS[topic].claim(text).answer(SCENE) is None


@pytest.mark.parametrize(
    ("topic", "text"),
    [("relation", "the red thing is above the circle"), ("extreme", "the topmost thing is red")],
)
def test_nobody_is_asked_which_of_two_level_things_is_higher(topic: str, text: str) -> None:
    def beside(y: int) -> Scene:
        things = Item("star", "red", 10, 100, 26), Item("circle", "green", 150, y, 26)
        return Scene("square", (things,))

    claim = LOTS[topic].claim(text)
    assert claim.answer(beside(107)) is None
    assert claim.answer(beside(108)) == TRUE


@pytest.mark.parametrize("topic", TOPICS)
def test_every_sentence_is_used_equally_often_true_and_false(
    topic: str, scenes: list[Scene]
) -> None:
    used: dict[str, Counter[str]] = defaultdict(Counter)
    count = 0
    for asked in spread(partial(statement_of, topic), scenes, each=2, rng=Random(3), tries=12):
        assert asked.claim.topic == topic
        for index, answer in asked.answers:
            assert asked.claim.answer(scenes[index]) == answer
            used[asked.claim.text][answer] += 1
            count += 1
    assert count >= 2 * len(scenes)
    assert len(used) > 25
    assert all(answers[TRUE] == answers[FALSE] for answers in used.values())


@pytest.mark.parametrize("topic", TOPICS)
def test_only_the_high_level_asks_how_things_stand(topic: str, scenes: list[Scene]) -> None:
    """Pictures with the same things in other places agree on the low level, and else differ."""
    twins = defaultdict(list)
    for scene in scenes:
        twins[tuple(sorted(map(thing_of, scene.items)))].append(scene)
    pairs = [group[:2] for group in twins.values() if len(group) > 1]
    rng, differ = Random(5), 0
    for _ in range(500):
        claim = statement_of(topic, rng)
        answers = [{claim.answer(scene) for scene in pair} for pair in pairs]
        differ += sum(of_pair == {TRUE, FALSE} for of_pair in answers)
    assert bool(differ) == (topic in LEVELS["high"])
