"""Annotations of boxes in COCO's form: what they become, and what is wrong with them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from semvlp.errors import InputError
from semvlp.extract.images.resize import ResizeRule
from semvlp.extract.networks import SMALL
from semvlp.train.detector.batches import load_groups
from semvlp.train.detector.coco import Annotations, read_annotations, read_pixels


@pytest.fixture
def tree(drawn: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((drawn / "boxes.json").read_text())
    return loaded


def read(drawn: Path, folder: Path, tree: dict[str, Any]) -> Annotations:
    path = folder / "changed.json"
    path.write_text(json.dumps(tree))
    return read_annotations(path, drawn)


def test_ids_become_indices_and_boxes_corners(drawn: Path) -> None:
    data = read_annotations(drawn / "boxes.json", drawn)
    assert data.object_labels == ("square", "circle")
    assert data.attribute_labels == ("red", "blue")
    assert len(data.images) == 8
    each = data.images[0].objects[0]
    assert each.box[2] - each.box[0] == each.box[3] - each.box[1] == 18


def test_missing_and_empty_attributes_differ(
    drawn: Path, tmp_path: Path, tree: dict[str, Any]
) -> None:
    first, second, third = tree["annotations"][:3]
    del first["attribute_ids"]
    second["attribute_ids"] = []
    third["attribute_ids"] = [1, 2]
    data = read(drawn, tmp_path, tree)
    given = [each.attributes for image in data.images[:2] for each in image.objects]
    assert given[:3] == [None, (), (0, 1)]
    targets = [
        t
        for _, ts in load_groups(data.images[:2], [False] * 2, ResizeRule.of(SMALL), 2)
        for t in ts
    ]
    assert targets[0].attributes.tolist() == [[0, 0, 0], [0, 0, 1]]
    assert targets[1].attributes[0].tolist() == [0.5, 0.5, 0]


def test_crowds_are_no_objects(drawn: Path, tmp_path: Path, tree: dict[str, Any]) -> None:
    whole = read(drawn, tmp_path, tree).images[0]
    tree["annotations"][0]["iscrowd"] = 1
    data = read(drawn, tmp_path, tree)
    assert data.num_crowds == 1
    assert data.images[0].crowds == whole.objects[:1]
    assert data.images[0].objects == whole.objects[1:]


def test_the_area_is_the_files_own(drawn: Path, tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["annotations"][0]["area"] = 7.5
    tree["annotations"][1].pop("area", None)
    first, second = read(drawn, tmp_path, tree).images[0].objects
    assert first.area == 7.5
    _, _, w, h = tree["annotations"][1]["bbox"]
    assert second.area == pytest.approx(w * h)
    tree["annotations"][0]["area"] = "large"
    with pytest.raises(InputError, match="area must be a number of square pixels, found 'large'"):
        read(drawn, tmp_path, tree)


@pytest.mark.parametrize(
    "bbox", [[1, 2, 0, 5], [1, 2, 5, 0.0], [64, 2, 0.5, 4], [90, 2, 5, 5], [3, -5, 5, 5]]
)
def test_boxes_without_area_are_counted_and_left_out(
    drawn: Path, tmp_path: Path, tree: dict[str, Any], bbox: list[float]
) -> None:
    tree["annotations"][1]["bbox"] = bbox
    data = read(drawn, tmp_path, tree)
    assert (data.num_crowds, data.empty) == (0, 1)
    whole = read_annotations(drawn / "boxes.json", drawn)
    assert whole.empty == 0
    assert data.images[0].objects == whole.images[0].objects[:1]
    assert data.images[1:] == whole.images[1:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_id": 99}, "annotation 101: its id 99 is not in `categories`"),
        ({"image_id": 99}, "annotation 101: its image_id 99 is not in `images`"),
        ({"attribute_ids": [9]}, "annotation 101: its id 9 is not in `attributes`"),
        ({"attribute_ids": 1}, "annotation 101: attribute_ids must be a list"),
        ({"bbox": [1, 2, 3, None]}, "annotation 101: bbox must be four numbers"),
        ({"bbox": [1, 2, 3]}, r"annotation 101: bbox must be four .* found \[1, 2, 3\]"),
        ({"bbox": [9, 2, -5, 5]}, r"annotation 101: .* no side negative, found \[9, 2, -5, 5\]"),
    ],
)
def test_a_malformed_annotation_is_named(
    drawn: Path, tmp_path: Path, tree: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    tree["annotations"][1] |= change
    with pytest.raises(InputError, match=message) as caught:
        read(drawn, tmp_path, tree)
    assert "changed.json" in str(caught.value)


def test_a_missing_image_is_named(drawn: Path, tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["images"][3]["file_name"] = "gone.png"
    with pytest.raises(InputError, match=r"image 3 must be at .*gone\.png"):
        read(drawn, tmp_path, tree)


def test_an_image_of_another_size_is_named(
    drawn: Path, tmp_path: Path, tree: dict[str, Any]
) -> None:
    tree["images"][0]["height"] = 50
    data = read(drawn, tmp_path, tree)
    with pytest.raises(InputError, match=r"0\.png: must have the 64x50 pixels .* found 64x48"):
        load_groups(data.images[:1], [False], ResizeRule.of(SMALL), 2)


@pytest.mark.parametrize(("orientation", "turned"), [(6, True), (8, True), (3, False)])
def test_a_photograph_that_is_turned_wants_upright_annotations(
    drawn: Path, tmp_path: Path, tree: dict[str, Any], orientation: int, turned: bool
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    with Image.open(drawn / "0.png") as picture:
        picture.save(tmp_path / "0.jpg", exif=exif)
    record = tree["images"][0] | {"file_name": "0.jpg"}
    boxes = [each for each in tree["annotations"] if each["image_id"] == 0]
    stored = tree | {"images": [record], "annotations": boxes}
    (tmp_path / "stored.json").write_text(json.dumps(stored))
    (image,) = read_annotations(tmp_path / "stored.json", tmp_path).images
    if not turned:
        assert read_pixels(image).shape == (48, 64, 3)
        return
    with pytest.raises(InputError, match=r"0\.jpg: must have the 64x48 .* found 48x64 .* EXIF"):
        read_pixels(image)
    upright = replace(image, width=48, height=64)
    assert read_pixels(upright).shape == (64, 48, 3)
