"""Scenes: what the lot gives, what is drawn, and what the boxes say."""

from collections import Counter

import numpy as np
import pytest

from semvlp.demo.world.draw import draw, objects, seen_items
from semvlp.demo.world.random_scenes import FAMILY, draw_lots
from semvlp.demo.world.scene import (
    BOX_SIDE,
    BOX_SIZES,
    BOX_STEP,
    COLORS,
    KINDS,
    SQUARE_SIDE,
    Item,
    Kind,
    Scene,
)
from semvlp.demo.world.shapes import SHAPES, box_gap, coverage, extent, touching, visible

PAPER = (211, 211, 211)


def lot(kind: Kind, count: int, *, covered: bool = False) -> list[Scene]:
    return draw_lots(kind, {"train": count}, seed="7", seen=set(), covered=covered)["train"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_scenes_and_another_seed_others(kind: Kind) -> None:
    counts = {"train": 20, "valid": 12}
    once = draw_lots(kind, counts, seed="1", seen=set())
    assert draw_lots(kind, counts, seed="1", seen=set()) == once
    assert draw_lots(kind, counts, seed="2", seen=set()) != once


@pytest.mark.parametrize("kind", KINDS)
def test_no_scene_is_drawn_twice_whatever_the_split(kind: Kind) -> None:
    splits = draw_lots(kind, {"train": 200, "valid": 80, "test": 80}, seed="1", seen=set())
    keys = Counter(scene.key for scenes in splits.values() for scene in scenes)
    assert len(keys) == 360
    assert max(keys.values()) == 1


def test_scenes_already_seen_are_not_drawn() -> None:
    first = lot("towers", 40)
    seen = {scene.key for scene in first}
    again = draw_lots("towers", {"train": 40}, seed="7", seen=seen)["train"]
    assert not {scene.key for scene in first} & {scene.key for scene in again}


def test_the_key_ignores_the_order_of_boxes_and_items() -> None:
    scene = lot("scatter", 1)[0]
    turned = Scene("scatter", tuple(panel[::-1] for panel in scene.permuted((2, 0, 1)).panels))
    assert turned.key == scene.key
    assert Scene("scatter", scene.panels[:2]).key != scene.key


def test_towers_stand_as_in_nlvr() -> None:
    for scene in lot("towers", 60):
        for panel in scene.panels:
            assert 1 <= len(panel) <= 4
            assert [item.y for item in panel] == [80, 59, 38, 17][: len(panel)]
            assert {(item.shape, item.x, item.size) for item in panel} == {("square", 40, 20)}


def test_lying_items_stay_in_their_box_and_do_not_touch_each_other() -> None:
    counts = Counter()
    for scene in lot("scatter", 60):
        for panel in scene.panels:
            counts[len(panel)] += 1
            assert all(i.x >= 0 and i.y >= 0 and i.size in BOX_SIZES for i in panel)
            assert all(i.right <= BOX_SIDE and i.bottom <= BOX_SIDE for i in panel)
            pairs = [(a, b) for a in panel for b in panel if a is not b]
            assert all(box_gap(a, b) >= 1 for a, b in pairs)
    assert set(counts) == set(range(1, 9))


def test_a_family_shows_the_same_things_in_other_places() -> None:
    def things(scene: Scene) -> Counter[tuple[str, str, int]]:
        return Counter((item.shape, item.color, item.size) for item in scene.items)

    scenes = lot("scatter", 80)
    alike = [
        things(scenes[start + index]) == things(scenes[start + index + 2])
        for start in range(0, len(scenes), FAMILY)
        for index in (0, 1)
    ]
    assert all(alike)


def test_square_scenes_show_no_more_than_asked_for() -> None:
    scenes = draw_lots("square", {"train": 80}, seed="7", seen=set(), most=3)["train"]
    assert {len(scene.items) for scene in scenes} == {1, 2, 3}


@pytest.mark.parametrize(("variety", "colors", "shapes"), [(3, 3, 3), (7, 7, 7), (8, 8, 7)])
def test_square_scenes_have_things_of_the_first_colours_and_shapes_alone(
    variety: int, colors: int, shapes: int
) -> None:
    given = draw_lots("square", {"train": 200}, seed="7", seen=set(), variety=variety)["train"]
    items = [item for scene in given for item in scene.items]
    assert {item.color for item in items} == set(list(COLORS)[:colors])
    assert {item.shape for item in items} == set(SHAPES[:shapes])
    assert variety < 8 or given == lot("square", 200)


def test_square_scenes_are_crowded_or_clear_and_every_item_shows() -> None:
    contacts = 0
    for scene in lot("square", 80):
        items = scene.items
        assert 1 <= len(items) <= 7
        masks = visible(items, SQUARE_SIDE)
        full = [(coverage(item.shape, item.size) >= 128).sum() for item in items]
        assert all(mask.sum() >= 0.65 * ink for mask, ink in zip(masks, full, strict=True))
        for a in items:
            for b in items:
                if a is not b and box_gap(a, b) < 4:
                    assert touching(a, b)
                    assert a.color != b.color
                    contacts += 1
    assert contacts > 40


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [10, 30, 66])
def test_shapes_are_symmetric_and_fill_their_square(shape: str, size: int) -> None:
    mask = coverage(shape, size)
    assert (mask == mask[:, ::-1]).all()
    left, top, right, bottom = extent(shape, size)
    assert left <= 0.05 * size
    assert right >= 0.95 * size
    assert bottom - top >= 0.8 * size


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="shape must be one of"):
        coverage("blob", 10)


def test_touching_means_pixels_not_squares() -> None:
    left = Item("circle", "red", 0, 0, 42)
    assert touching(left, Item("square", "blue", 42, 0, 42))
    assert not touching(left, Item("square", "blue", 43, 0, 42))
    # The squares overlap at the corner, where a circle has no pixels.
    assert not touching(left, Item("circle", "blue", 39, 39, 42))


def test_a_box_is_tight_around_what_is_seen() -> None:
    for scene in lot("square", 20):
        pixels = np.asarray(draw(scene))
        for thing, item in zip(objects(scene), scene.items, strict=True):
            left, top, right, bottom = thing.box
            own = (pixels[top:bottom, left:right] == COLORS[item.color]).all(axis=2)
            # Coverage below a whole pixel paints a mixture, so a border may miss the pure colour.
            assert own[:, :3].any()
            assert own[:, -3:].any()
            assert own[:3].any()
            assert own[-3:].any()
            assert (thing.label, thing.attribute) == (item.shape, item.color)


def test_boxes_of_a_box_scene_stand_where_the_items_are() -> None:
    scene = Scene("scatter", ((Item("circle", "blue", 70, 0, 30),), (), ()))
    drawn = [(thing.label, thing.attribute, thing.box) for thing in objects(scene)]
    assert drawn[-1] == ("circle", "blue", (70, 0, 100, 30))
    boxes = [("box", "grey", (left, 0, left + BOX_SIDE, BOX_SIDE)) for left in (0, 150, 300)]
    assert drawn[:-1] == boxes


def test_the_drawing_has_the_colours_of_nlvr() -> None:
    scene = Scene("scatter", ((), (Item("square", "yellow", 10, 20, 30),), ()))
    pixels = np.asarray(draw(scene))
    assert pixels.shape == (100, 400, 3)
    assert tuple(pixels[5, 5]) == PAPER
    assert tuple(pixels[5, 120]) == (128, 128, 128)
    yellow = np.argwhere((pixels == (255, 255, 0)).all(axis=2))
    assert yellow.min(axis=0).tolist() == [20, BOX_STEP + 10]
    assert yellow.max(axis=0).tolist() == [49, BOX_STEP + 39]


def test_nothing_behind_a_curtain_is_an_object() -> None:
    curtained = [scene for scene in lot("square", 80, covered=True) if scene.cover]
    assert 25 <= len(curtained) <= 55
    hidden = 0
    for scene in curtained:
        things = objects(scene)
        assert (things[0].label, things[0].box) == ("curtain", scene.cover)
        assert len(things) - 1 == len(seen_items(scene))
        hidden += len(scene.items) - len(seen_items(scene))
    assert hidden > 20


def test_a_curtain_hides_things_wholly_or_hardly() -> None:
    for scene in lot("square", 80, covered=True):
        if scene.cover is None:
            continue
        left, top, right, bottom = scene.cover
        for mask in visible(scene.items, SQUARE_SIDE):
            share = mask[top:bottom, left:right].sum() / mask.sum()
            assert share == 1 or share < 0.36
