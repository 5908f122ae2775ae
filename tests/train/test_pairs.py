"""Which text goes with which image."""

from collections import Counter

import pytest

from semvlp.shards.record import Question, Sample, Texts
from semvlp.shards.stream import Visit
from semvlp.train.pairs import Pair, pairs_of, split

CAPTIONS = ("a cat", "a dog")
QUESTION = Question(question="what?", answers={"cat": 1.0})
OTHER = Texts(captions=("a tree", "a car"), questions=(Question(question="where?"),))


def visit(position: int, texts: Texts, negative: Texts = OTHER) -> Visit:
    sample = Sample(key="key", regions=None, texts=texts)  # type: ignore[arg-type]
    return Visit(position=position, epoch=0, sample=sample, negative=negative)


def draw(texts: Texts, *, count: int = 1, rate: float = 0.5, n: int = 2000) -> list[Pair]:
    visits = (visit(position, texts) for position in range(n))
    return [p for v in visits for p in pairs_of(v, count=count, mismatch_rate=rate, seed=0)]


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
    pairs = pairs_of(same, count=2, mismatch_rate=1.0, seed=0)
    assert {(pair.text, pair.match) for pair in pairs} == {("a cat", "match"), ("a dog", "match")}


def test_another_image_without_captions_replaces_nothing() -> None:
    pairs = pairs_of(visit(0, Texts(captions=CAPTIONS), Texts()), count=2, mismatch_rate=1, seed=0)
    assert {pair.match for pair in pairs} == {"match"}


def test_an_image_without_texts_gets_empty_ones() -> None:
    pairs = pairs_of(visit(0, Texts()), count=2, mismatch_rate=1.0, seed=0)
    assert [(pair.text, pair.match) for pair in pairs] == [("", "none")] * 2


def test_no_text_twice_before_all_once() -> None:
    texts = Texts(captions=CAPTIONS, questions=(QUESTION,))
    for position in range(20):
        pairs = pairs_of(visit(position, texts), count=5, mismatch_rate=0.0, seed=0)
        assert {pair.text for pair in pairs[:3]} == {"a cat", "a dog", "what?"}
        assert [pair.text for pair in pairs[3:]] == [pair.text for pair in pairs[:2]]
        assert [pair.number for pair in pairs] == [0, 1, 2, 3, 4]


def test_position_and_seed_decide() -> None:
    texts = Texts(captions=tuple(f"caption {n}" for n in range(50)))
    first = [pairs_of(visit(7, texts), count=3, mismatch_rate=0.5, seed=0) for _ in range(2)]
    assert first[0] == first[1]
    assert first[0] != pairs_of(visit(8, texts), count=3, mismatch_rate=0.5, seed=0)
    assert first[0] != pairs_of(visit(7, texts), count=3, mismatch_rate=0.5, seed=1)


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_split_keeps_order_and_all(parts: int) -> None:
    visits = [visit(position, Texts()) for position in range(5)]
    pieces = split(visits, parts)
    assert [v for piece in pieces for v in piece] == visits
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1
