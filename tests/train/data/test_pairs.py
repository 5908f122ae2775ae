"""Which text goes with which image."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from semvlp.shards.record import Question, Texts
from semvlp.train.config import Negatives
from semvlp.train.data.pairs import Pair, StepImage, object_overlap, pairs_of

CAPTIONS = ("a cat", "a dog")
QUESTION = Question(question="what?", answers={"cat": 1.0})
OTHER = Texts(captions=("a tree", "a car"), questions=(Question(question="where?"),))


def visit(
    position: int,
    texts: Texts,
    negative: Texts = OTHER,
    *,
    number: int = 0,
    name: str = "key",
    objects: Sequence[int] = (),
) -> StepImage:
    return StepImage(
        number=number,
        position=position,
        image_id=name,
        width=1,
        height=1,
        texts=texts,
        negative=negative,
        start=0,
        object_ids=np.array(objects),
    )


def draw(texts: Texts, *, count: int = 1, rate: float = 0.5, n: int = 2000) -> list[Pair]:
    visits = (visit(position, texts) for position in range(n))
    return [p for v in visits for p in pairs_of(v, count=count, negative_rate=rate, seed=0)]


def test_every_text_is_equally_likely() -> None:
    texts = Texts(captions=CAPTIONS, questions=(QUESTION,))
    counts = Counter(pair.text for pair in draw(texts, rate=0.0, n=3000))
    assert set(counts) == {"a cat", "a dog", "what?"}
    assert all(count / 3000 == pytest.approx(1 / 3, abs=0.04) for count in counts.values())


def test_half_of_the_captions_are_replaced() -> None:
    pairs = draw(Texts(captions=CAPTIONS))
    replaced = [pair for pair in pairs if pair.match == "mismatch"]
    assert len(replaced) / len(pairs) == pytest.approx(0.5, abs=0.05)
    assert {pair.text for pair in replaced} == set(OTHER.captions)
    assert {pair.text for pair in pairs if pair.match == "match"} == set(CAPTIONS)


def test_questions_are_never_replaced_and_keep_their_answers() -> None:
    pairs = draw(Texts(questions=(QUESTION,)), rate=1.0, n=50)
    assert {(p.text, p.match) for p in pairs} == {("what?", "none")}
    assert all(pair.answers == {"cat": 1.0} for pair in pairs)


def test_captions_have_no_answers() -> None:
    assert all(not pair.answers for pair in draw(Texts(captions=CAPTIONS), n=50))


def test_a_caption_that_is_right_here_too_is_no_mismatch() -> None:
    same = visit(0, Texts(captions=CAPTIONS), Texts(captions=("a dog",)))
    pairs = pairs_of(same, count=2, negative_rate=1.0, seed=0)
    assert {(pair.text, pair.match) for pair in pairs} == {("a cat", "match"), ("a dog", "match")}


def test_another_image_without_captions_replaces_nothing() -> None:
    pairs = pairs_of(visit(0, Texts(captions=CAPTIONS), Texts()), count=2, negative_rate=1, seed=0)
    assert {pair.match for pair in pairs} == {"match"}


def test_an_image_without_texts_gets_empty_ones() -> None:
    pairs = pairs_of(visit(0, Texts()), count=2, negative_rate=1.0, seed=0)
    assert [(pair.text, pair.match) for pair in pairs] == [("", "none")] * 2


def test_no_text_twice_before_all_once() -> None:
    texts = Texts(captions=CAPTIONS, questions=(QUESTION,))
    for position in range(20):
        pairs = pairs_of(visit(position, texts), count=5, negative_rate=0.0, seed=0)
        assert {pair.text for pair in pairs[:3]} == {"a cat", "a dog", "what?"}
        assert [pair.text for pair in pairs[3:]] == [pair.text for pair in pairs[:2]]
        assert [pair.number for pair in pairs] == [0, 1, 2, 3, 4]


def test_position_and_seed_decide() -> None:
    texts = Texts(captions=tuple(f"caption {n}" for n in range(50)))
    first = [pairs_of(visit(7, texts), count=3, negative_rate=0.5, seed=0) for _ in range(2)]
    assert first[0] == first[1]
    assert first[0] != pairs_of(visit(8, texts), count=3, negative_rate=0.5, seed=0)
    assert first[0] != pairs_of(visit(7, texts), count=3, negative_rate=0.5, seed=1)


def image(number: int, name: str, objects: list[int], *captions: str) -> StepImage:
    position, texts = hash(name) % 1000, Texts(captions=captions)
    return visit(position, texts, number=number, name=name, objects=objects)


STEP = [
    image(0, "cat", [1, 2, 3], "a cat"),
    image(1, "dog", [4, 5], "a dog"),
    image(2, "kitten", [1, 2, 9], "a kitten", "something small"),
    image(3, "again", [1, 2, 3], "a cat"),
]


def mismatches(negatives: Negatives, first: StepImage = STEP[0], n: int = 200) -> list[Pair]:
    return [
        pair
        for position in range(n)
        for pair in pairs_of(
            replace(first, position=position),
            count=1,
            negative_rate=1.0,
            seed=0,
            negatives=negatives,
            step=STEP,
        )
    ]


def test_captions_of_the_batch_need_no_second_read() -> None:
    counts = Counter((p.text, STEP[p.image].image_id, p.match) for p in mismatches("batch_text"))
    told = {text: match for text, _, match in counts}
    assert {name for _, name, _ in counts} == {"cat"}
    # The same caption stands under another image too: there it is no mismatch.
    assert told == {
        "a cat": "match",
        "a dog": "mismatch",
        "a kitten": "mismatch",
        "something small": "mismatch",
    }


def test_regions_of_the_batch_take_the_place_of_the_image() -> None:
    made = {(p.text, STEP[p.image].image_id, p.match) for p in mismatches("batch_image")}
    assert made == {
        ("a cat", "dog", "mismatch"),
        ("a cat", "kitten", "mismatch"),
        ("a cat", "cat", "match"),
    }


def test_hard_negatives_are_the_most_alike() -> None:
    alike = STEP[:3]
    assert object_overlap(alike[0].object_ids, alike[2].object_ids) == pytest.approx(0.5)
    assert object_overlap(alike[0].object_ids, alike[1].object_ids) == 0
    for negatives in ("hard_text", "hard_image"):
        pairs = pairs_of(
            alike[0],
            count=1,
            negative_rate=1.0,
            seed=0,
            negatives=negatives,  # type: ignore[arg-type]
            step=alike,
        )
        (pair,) = pairs
        assert pair.match == "mismatch"
        if negatives == "hard_text":
            assert pair.text in ("a kitten", "something small")
        else:
            assert (pair.text, STEP[pair.image].image_id) == ("a cat", "kitten")


def test_a_batch_of_one_image_has_no_mismatch() -> None:
    (pair,) = pairs_of(
        STEP[0], count=1, negative_rate=1.0, seed=0, negatives="batch_text", step=STEP[:1]
    )
    assert pair.match == "match"
