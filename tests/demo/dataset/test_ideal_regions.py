"""Ideal regions: what an item is and where, and statements about them scored by their kind."""

import json
from pathlib import Path

import numpy as np
import pytest

from semvlp.demo.dataset.annotations import gqa_statements
from semvlp.demo.dataset.compose import facts_of
from semvlp.demo.dataset.ideal_regions import write_ideal_regions
from semvlp.demo.dataset.split_world import Picture, SplitWorld
from semvlp.demo.language.claims import Asked, statement
from semvlp.demo.world.scene import Item, Scene
from semvlp.errors import ConfigError
from semvlp.eval.tasks.table import load_task
from semvlp.shards.open import open_store

THINGS = (Item("star", "red", 10, 20, 26), Item("cross", "white", 100, 150, 66))
PICTURES = [
    Picture("test_1", Scene("square", (THINGS,)), 1),
    Picture("test_2", Scene("square", (THINGS[1:],)), 2),
]


def test_a_region_tells_shape_colour_size_and_place(tmp_path: Path) -> None:
    with open_store(write_ideal_regions(tmp_path / "regions", PICTURES)) as store:
        regions = store.sample(store.index_of("test_1")).regions
        assert len(store.sample(store.index_of("test_2")).regions) == 1
        manifest = store.manifest
    np.testing.assert_array_equal(regions.boxes, [[10, 20, 36, 46], [100, 150, 166, 216]])
    assert (regions.width, regions.height) == (224, 224)
    names = [manifest.object_labels[index] for index in regions.object_ids]
    colours = [manifest.attribute_labels[index] for index in regions.attribute_ids]
    assert (names, colours) == (["star", "cross"], ["red", "white"])
    np.testing.assert_array_equal(regions.features.sum(1), [3, 3])
    np.testing.assert_array_equal(np.flatnonzero(regions.features[0]), [3, 7 + 3, 7 + 8 + 0])
    np.testing.assert_array_equal(np.flatnonzero(regions.features[1]), [6, 7 + 7, 7 + 8 + 2])


def test_ideal_regions_that_are_there_stay_and_others_are_refused(tmp_path: Path) -> None:
    out = write_ideal_regions(tmp_path / "regions", PICTURES)
    before = (out / "manifest.json").read_bytes()
    write_ideal_regions(out, PICTURES)
    assert (out / "manifest.json").read_bytes() == before
    with pytest.raises(ConfigError):
        write_ideal_regions(out, PICTURES[:1])


def test_statements_in_the_form_of_gqa_are_scored_by_their_kind(tmp_path: Path) -> None:
    asked = [
        (statement("there is a star", lambda scene: len(scene.items) == 2), "exist"),
        (statement("the lowest thing is white", lambda scene: True), "extreme"),
    ]
    facts = [
        fact
        for claim, _ in asked
        for fact in facts_of(
            PICTURES, iter([Asked(claim, ((0, "true"), (1, str(claim is asked[1][0]).lower())))])
        )
    ]
    topics = {claim.text: topic for claim, topic in asked}
    facts = [type(f)(f.picture, f.text, f.answer, topics[f.text]) for f in facts]
    world = SplitWorld(split="test", scenes=PICTURES, questions=[], statements=facts)
    (tmp_path / "test.json").write_text(json.dumps(gqa_statements(world)))
    examples = load_task("gqa").read([tmp_path / "test.json"])
    assert [list(example.target) for example in examples] == [
        ["true"],
        ["false"],
        ["true"],
        ["true"],
    ]
    kinds = [example.meta["parts"]["semantic type"] for example in examples]
    assert kinds == [["exist"], ["exist"], ["extreme"], ["extreme"]]
    assert load_task("gqa").warnings(examples, {e.example_id: "true" for e in examples}) == []
