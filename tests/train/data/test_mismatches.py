"""Wrong pairs of retrieval: where they come from, what they never are, who decides."""

from collections import Counter
from typing import Any

import pytest

from semvlp.eval.task import Example
from semvlp.train.config import RetrievalConfig
from semvlp.train.data.hard_negatives import HardNegatives

CAPTIONS = 3
TOLD_TWICE = "the same of two images"


def caption(image: int, number: int) -> Example:
    return Example(
        example_id=10 * image + number,
        text=TOLD_TWICE if (image in (0, 1) and number == 0) else f"caption {image} {number}",
        images=(f"image {image}",),
        target={"match": 1.0},
    )


EXAMPLES = [caption(image, number) for image in range(8) for number in range(CAPTIONS)]
# The step holds images 0 to 3 only, and every caption of image 2.
STEP = [caption(image, number) for image in (0, 1, 3) for number in range(2)] + [
    caption(2, number) for number in range(CAPTIONS)
]
TRUE = {(example.text, example.images[0]) for example in EXAMPLES}


def drawn(n: int = 300, example: Example = STEP[1], **fields: Any) -> list[list[Example]]:
    mismatches = HardNegatives(
        EXAMPLES, RetrievalConfig(**{"negative_rate": 1.0, **fields}), seed=0
    )
    return [mismatches.of(example, position, STEP) for position in range(n)]


def flat(rows: list[list[Example]]) -> list[Example]:
    return [example for row in rows for example in row]


@pytest.mark.parametrize("negatives", ["random", "batch", "hard"])
@pytest.mark.parametrize("replaced", ["text", "image", "either"])
def test_no_caption_of_the_image_is_a_wrong_one(negatives: str, replaced: str) -> None:
    for example in STEP:
        found = flat(drawn(50, example, negatives=negatives, replaced=replaced))
        assert all(wrong.target == {"mismatch": 1.0} for wrong in found)
        assert TRUE.isdisjoint((wrong.text, wrong.images[0]) for wrong in found)


def test_random_ones_are_of_all_examples_alike() -> None:
    rows = drawn(3000, negatives="random")
    assert all(len(row) == 1 for row in rows)
    counts = Counter(wrong.text for wrong in flat(rows))
    # What is true of image 0 is left out: its own three captions, one of which image 1 has too.
    assert counts.keys() == {e.text for e in EXAMPLES} - {e.text for e in EXAMPLES[:CAPTIONS]}
    assert all(count == pytest.approx(3000 / len(counts), rel=0.4) for count in counts.values())


def test_those_of_the_batch_are_of_the_batch() -> None:
    texts = {e.text for e in STEP} - {e.text for e in EXAMPLES[:CAPTIONS]}
    rows = drawn(negatives="batch")
    assert all(len(row) == 1 for row in rows)
    assert {wrong.text for wrong in flat(rows)} == texts
    assert {wrong.images for wrong in flat(rows)} == {STEP[1].images}
    images = flat(drawn(negatives="batch", replaced="image"))
    assert {wrong.images[0] for wrong in images} == {"image 1", "image 2", "image 3"}
    assert {wrong.text for wrong in images} == {STEP[1].text}


def test_either_replaces_texts_and_images_equally_often() -> None:
    found = flat(drawn(1000, negatives="batch", replaced="either"))
    with_text = sum(wrong.images == STEP[1].images for wrong in found)
    assert with_text / len(found) == pytest.approx(0.5, abs=0.05)


def test_hard_ones_are_offered_as_a_pool_without_repetition() -> None:
    for row in drawn(100, negatives="hard", pool=4):
        assert len({wrong.text for wrong in row}) == len(row) == 4
    # Three other images are all there is: captions of the same image are one choice.
    for row in drawn(100, negatives="hard", pool=8, replaced="image"):
        assert sorted(wrong.images[0] for wrong in row) == ["image 1", "image 2", "image 3"]


def test_a_batch_of_one_image_has_no_wrong_pair() -> None:
    mismatches = HardNegatives(
        EXAMPLES, RetrievalConfig(negative_rate=1.0, negatives="batch"), seed=0
    )
    step = EXAMPLES[:CAPTIONS]
    assert mismatches.of(step[0], 5, step) == [step[0]]


@pytest.mark.parametrize("negatives", ["random", "batch", "hard"])
def test_seed_and_position_decide(negatives: str) -> None:
    config = RetrievalConfig(negatives=negatives, replaced="either")  # type: ignore[arg-type]
    runs = [
        [HardNegatives(EXAMPLES, config, seed).of(STEP[1], p, STEP) for p in range(40)]
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    kept = sum(row == [STEP[1]] for row in runs[0])
    assert 0 < kept < 40
