"""Expressions are read by a reader of its own: one thing fits, the one that is meant."""

import re

import pytest

from semvlp.demo.dataset.annotations import instances, refs
from semvlp.demo.dataset.compose import compose
from semvlp.demo.dataset.split_world import SplitWorld
from semvlp.demo.language.item_words import SYNONYMS
from semvlp.demo.world.config import WorldConfig
from semvlp.demo.world.scene import COLORS, Item, Scene
from semvlp.demo.world.shapes import SHAPES

ENDS = {"leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "lowest": (1, -1)}
PLACES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
WORLD = WorldConfig(
    **{"towers": 0, "scatter": 0, "square": 1, "covered": 0, "nlvr": 0, "pairs": 0},
    **{"captions": 1, "questions": 0, "statements": 0, "expressions": 6, "most_items": 5},
)


@pytest.fixture(scope="module")
def world() -> SplitWorld:
    (world,) = compose({"train": 60}, seed=3, config=WORLD)
    return world


def center(item: Item) -> tuple[float, float]:
    return item.x + item.size / 2, item.y + item.size / 2


def of_kind(words: str, scene: Scene) -> list[Item]:
    """Items of a phrase such as `middle sized red square`."""
    found = list(scene.items)
    for size, names in SYNONYMS.items():
        if any(re.search(rf"\b{name}\b", words) for name in names):
            found = [item for item in found if item.size_word == size]
    for word in words.split():
        if word in COLORS:
            found = [item for item in found if item.color == word]
        if word in SHAPES:
            found = [item for item in found if item.shape == word]
    return found


def meant(text: str, scene: Scene) -> list[Item]:
    """Read an expression as anybody would: an extreme, a place beside one thing, or a kind."""
    for name, (axis, sign) in ENDS.items():
        if name in text:
            chosen = of_kind(text, scene)
            return [min(chosen, key=lambda item: sign * center(item)[axis])]
    for name, (axis, sign) in PLACES.items():
        if name in text:
            words, landmark = text.split(f" {name} the ")
            (other,) = of_kind(landmark, scene)
            limit = center(other)[axis]
            return [
                item
                for item in of_kind(words, scene)
                if item is not other and sign * (center(item)[axis] - limit) > 0
            ]
    return of_kind(text, scene)


def test_each_is_true_of_one_thing_and_of_the_one_that_is_meant(world: SplitWorld) -> None:
    assert len(world.expressions) > 150
    for one in world.expressions:
        scene = one.picture.scene
        assert meant(one.text, scene) == [scene.items[one.item]], (one.text, scene)
    texts = " ".join(one.text for one in world.expressions)
    assert all(name in texts for name in (*ENDS, *PLACES))


def test_other_texts_are_as_they_were_without_expressions(world: SplitWorld) -> None:
    without = WorldConfig(square=1, covered=0, expressions=0)
    with_some = WorldConfig(square=1, covered=0, expressions=2)
    (one,), (other,) = (compose({"train": 12}, seed=1, config=c) for c in (without, with_some))
    assert not one.expressions
    assert other.expressions
    assert (one.questions, one.captions) == (other.questions, other.captions)


def test_references_name_the_boxes_of_their_things(world: SplitWorld) -> None:
    boxes = instances(world)
    things = {thing["id"]: thing for thing in boxes["annotations"]}
    names = {image["id"]: image["file_name"] for image in boxes["images"]}
    labels = {entry["id"]: entry["name"] for entry in boxes["categories"]}
    references = refs(world, boxes)
    spoken = {s["sent_id"]: ref for ref in references for s in ref["sentences"]}
    assert len({ref["ann_id"] for ref in references}) == len(references)
    for sent_id, one in enumerate(world.expressions):
        item, ref = one.picture.scene.items[one.item], spoken[sent_id]
        thing = things[ref["ann_id"]]
        assert names[ref["image_id"]] == f"{one.picture.image_id}.png"
        assert labels[thing["category_id"]] == labels[ref["category_id"]] == item.shape
        x, y, width, height = thing["bbox"]
        # What shows of it lies within its square.
        assert item.x <= x
        assert x + width <= item.right
        assert item.y <= y
        assert y + height <= item.bottom
