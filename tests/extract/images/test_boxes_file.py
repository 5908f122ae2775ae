"""Boxes in every form that people have them in, and what is said of damaged ones."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semvlp.errors import InputError
from semvlp.extract.images.boxes_file import ImageBoxes, boxes_sha256, read_boxes

BOXES = {"a": [[1, 2, 4, 6], [0, 0, 3, 3]], "b": [[5, 5, 6.5, 9]]}


def check(read: list[ImageBoxes], labels: dict[str, tuple[str, ...]]) -> None:
    assert [each.image for each in read] == list(BOXES)
    for each in read:
        assert each.boxes.dtype == np.float32
        np.testing.assert_array_equal(each.boxes, np.float32(BOXES[each.image]))
        assert each.labels == labels.get(each.image, ())


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_json_lines_keep_order_and_labels(tmp_path: Path) -> None:
    lines = [{"image": "a", "boxes": BOXES["a"], "labels": ["cat", "cup"]}]
    lines.append({"image": "b", "boxes": BOXES["b"]})
    text = "\ufeff" + "\r\n".join(map(json.dumps, lines)) + "\r\n\r\n"
    read = read_boxes(write(tmp_path / "boxes.jsonl", text))
    check(read, {"a": ("cat", "cup")})
    assert read[1].where.endswith("boxes.jsonl, line 2")
    (alone,) = read_boxes(write(tmp_path / "one.jsonl", json.dumps(lines[0])))
    assert alone.labels == ("cat", "cup")


def coco(**changes: Any) -> dict[str, Any]:
    images = [{"id": 7, "file_name": "a"}, {"id": 3, "file_name": "b"}]
    rows = [(7, [1, 2, 3, 4], 1), (3, [5, 5, 1.5, 4], 2), (7, [0, 0, 3, 3], 2)]
    annotations = [{"image_id": a, "bbox": b, "category_id": c} for a, b, c in rows]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "cup"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return content | changes


def test_coco_annotations_are_gathered_by_image(tmp_path: Path) -> None:
    labels = {"a": ("cat", "cup"), "b": ("cup",)}
    check(read_boxes(write(tmp_path / "boxes.json", coco())), labels)
    check(read_boxes(write(tmp_path / "plain.json", coco(categories=[]))), {})


def test_results_in_cocos_form_name_images_by_number(tmp_path: Path) -> None:
    read = read_boxes(write(tmp_path / "boxes.json", coco()["annotations"]))
    assert [(each.image, len(each.boxes)) for each in read] == [("7", 2), ("3", 1)]


@pytest.mark.parametrize("names", [("ids", "boxes"), ("indexes", "boxes")])
def test_proposals_of_detectron2(tmp_path: Path, names: tuple[str, str]) -> None:
    path = tmp_path / "proposals.pkl"
    boxes = [np.float32(each) for each in BOXES.values()]
    content = {names[0]: list(BOXES), names[1]: boxes, "objectness_logits": [[1, 0], [0]]}
    path.write_bytes(pickle.dumps(content))
    check(read_boxes(path), {})
    for each in boxes:
        each[:, 2:] -= each[:, :2]
    path.write_bytes(pickle.dumps(content | {"bbox_mode": 1}))
    check(read_boxes(path), {})


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "proposals.pkl"
    path.write_bytes(pickle.dumps({"ids": [1], "boxes": [Evil()]}))
    with pytest.raises(InputError, match=r"proposals\.pkl cannot be read: it names"):
        read_boxes(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"image": "a", "boxes": [[1, 2, 3]]}', r"line 1: a box must be four numbers"),
        ("x.jsonl", '{"image": "a"}\n{"image": "b"}', r"line 1: 'boxes' must be a list"),
        ("x.jsonl", '{"boxes": []}\n{"boxes": []}', r"line 1: 'image' must be"),
        ("x.jsonl", '{"image": "a", "boxes": [[0, 0, 1, 1]], "labels": []}\nx', r"x\.jsonl:2"),
        ("x.jsonl", '{"image": 1, "boxes": [], "labels": ["a"]}', r"`labels` must be 0 names"),
        ("x.json", "{}", "boxes are given as COCO annotations"),
        ("x.json", "[]", "boxes are given as COCO annotations"),
        ("x.json", "{", "the JSON is damaged"),
        ("x.txt", "a b c", "line 1: must be an object"),
        ("x.json", '{"annotations": [{"image_id": 1}]}', "annotation 1: 'bbox' must be a list"),
        ("x.json", json.dumps(coco(images=[{"id": 7}])), "images, entry 1: 'file_name'"),
        (
            "x.json",
            json.dumps(coco(images=[{"id": 7, "file_name": "a"}])),
            "annotation 2: image_id 3 is not among the file's `images`",
        ),
    ],
)
def test_damage_names_the_place(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_boxes(write(tmp_path / name, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "must be proposals of detectron2"),
        ({"ids": [1, 2], "boxes": [[]]}, "with an entry for each image"),
        ({"ids": [1], "boxes": [[]], "bbox_mode": 4}, "bbox_mode must be 0 or 1, got 4"),
        ({"ids": [1], "boxes": [np.zeros((2, 5))]}, "image 1: a box must be four numbers"),
    ],
)
def test_damaged_proposals(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "proposals.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=message):
        read_boxes(path)


def test_other_bytes_have_another_hash(tmp_path: Path) -> None:
    one, other = (write(tmp_path / name, text) for name, text in (("a.json", "1"), ("b.json", "2")))
    assert boxes_sha256(one) != boxes_sha256(other)
    with pytest.raises(InputError, match="no such file of boxes"):
        read_boxes(tmp_path / "none.json")
