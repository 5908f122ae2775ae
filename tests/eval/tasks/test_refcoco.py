"""RefCOCO: the official pickles and the JSON of others, what is refused, boxes and their scores."""

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semvlp.errors import InputError
from semvlp.eval.score_table import score
from semvlp.eval.task import Example, Reach, Referent
from semvlp.eval.tasks.refcoco import RefCoco, iou

INSTANCES: dict[str, Any] = {
    "images": [
        {"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "width": 100, "height": 100},
        {"id": 25, "file_name": "COCO_train2014_000000000025.jpg", "width": 100, "height": 100},
    ],
    "annotations": [
        {"id": 70, "image_id": 9, "category_id": 1, "iscrowd": 0, "bbox": [10, 20, 30, 40]},
        {"id": 71, "image_id": 25, "category_id": 2, "iscrowd": 0, "bbox": [0.5, 0, 9.5, 5]},
        {"id": 72, "image_id": 25, "category_id": 2, "iscrowd": 1, "bbox": [0, 0, 50, 50]},
        {"id": 73, "image_id": 25, "category_id": 2, "iscrowd": 0},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "cat"}],
}


def ref(ref_id: int, ann_id: int, split: str, *sentences: tuple[int, str]) -> dict[str, Any]:
    image_id = 9 if ann_id == 70 else 25
    return {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "category_id": 1,
        "image_id": image_id,
        "file_name": f"COCO_train2014_{image_id:012d}_{ann_id}.jpg",
        "split": split,
        "sent_ids": [key for key, _ in sentences],
        "sentences": [
            {"sent_id": key, "sent": text, "raw": text.upper(), "tokens": text.split()}
            for key, text in sentences
        ],
    }


REFS = [
    ref(3, 70, "train", (4, "man on left"), (5, "guy")),
    ref(1, 71, "testA", (7, "the cat")),
    ref(2, 71, "val", (6, "small cat")),
]


def python_2(value: object) -> bytes:
    """Pickle at protocol 2 as Python 2 does: its `str` are bytes, here of UTF-8."""
    data = pickle.dumps(value, 2)
    out, at = bytearray(), 0
    # BINUNICODE `X`, four bytes of length, becomes BINSTRING `T`, which is laid out alike.
    while (found := data.find(b"X", at)) >= 0:
        size = int.from_bytes(data[found + 1 : found + 5], "little")
        text = data[found + 5 : found + 5 + size]
        if size < 200 and len(text) == size and data[found + 5 + size : found + 6 + size] in b"qr":
            out += data[at:found] + b"T" + data[found + 1 : found + 5 + size]
            at = found + 5 + size
        else:
            out += data[at : found + 1]
            at = found + 1
    return bytes(out + data[at:])


@pytest.fixture
def refer(tmp_path: Path) -> Callable[..., Path]:
    """`refer(refs)` writes an official folder and returns its `refs(unc).p`."""

    def write(refs: object = REFS, instances: object = INSTANCES) -> Path:
        (tmp_path / "instances.json").write_text(json.dumps(instances))
        path = tmp_path / "refs(unc).p"
        path.write_bytes(python_2(refs))
        return path

    return write


def read(path: Path, split: str = "train") -> list[Example]:
    return RefCoco().read([path], split=split)


def test_the_boxes_beside_it_are_named_where_they_are_read(refer: Callable[..., Path]) -> None:
    path = refer()
    beside = path.with_name("instances.json")
    assert RefCoco().read_beside([path]) == [beside]
    assert RefCoco().read_beside([path, beside]) == []
    beside.rename(beside.with_name("other.json"))
    assert RefCoco().read_beside([path]) == []


def test_the_official_pickle_with_the_boxes_beside_it(refer: Callable[..., Path]) -> None:
    path = refer()
    assert b"T\x0b\x00\x00\x00man on left" in path.read_bytes()
    first, second = read(path)
    assert (first.example_id, first.text, second.text) == (4, "man on left", "guy")
    assert first.images == ("COCO_train2014_000000000009.jpg",)
    assert first.meta["ref_id"] == 3
    assert first.meta["box"] == (10, 20, 30, 40)
    assert first.meta["parts"] == {"category": ["person"]}
    (test,) = read(path, "testA")
    assert test.meta["box"] == (0.5, 0, 9.5, 5)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_every_protocol_and_the_list_as_json(tmp_path: Path, protocol: int) -> None:
    instances = tmp_path / "elsewhere.json"
    instances.write_text(json.dumps(INSTANCES))
    path, again = tmp_path / "refs(umd).p", tmp_path / "refs.json"
    path.write_bytes(pickle.dumps(REFS, protocol))
    again.write_text(json.dumps(REFS))
    examples = RefCoco().read([path, instances], split="val")
    assert [example.text for example in examples] == ["small cat"]
    assert RefCoco().read([instances, again], split="val") == examples


def test_words_that_python_2_kept_as_bytes(refer: Callable[..., Path]) -> None:
    (example,) = read(refer([ref(1, 70, "train", (1, "the café"))]))
    assert example.text == "the café"


def test_a_file_of_one_split_is_read_whatever_it_is_called(refer: Callable[..., Path]) -> None:
    assert len(read(refer(REFS[:1]), "test")) == 2


def test_a_split_that_is_not_there(refer: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"unc\)\.p: holds the splits train, testA, val, but not"):
        read(refer(), "test")


@pytest.mark.parametrize(
    ("refs", "message"),
    [
        ([ref(8, 99, "train", (1, "a"))], r"unc\)\.p: ref_id 8: .*has no id 99"),
        ([ref(8, 73, "train", (1, "a"))], r"ref_id 8, sent_id 1: a box must be four numbers"),
        ([ref(8, 72, "train", (1, "a"))], r"ref_id 8: must speak of one thing, but id 72 is a cro"),
        ([ref(8, 70, "train", (1, " "))], r"ref_id 8, sent_id 1: an expression must have words"),
        ([{**REFS[0], "image_id": 25}], r"ref_id 3: must have a box in image 25, but that of id"),
        ([{**REFS[0], "split": None}], r"ref_id 3: 'split' must be a string, got None"),
        ([*REFS, REFS[0]], r"every id must be unique, 4 is not"),
        ([3], r"unc\)\.p: must hold a list of references"),
    ],
)
def test_what_is_refused(refer: Callable[..., Path], refs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(refer(refs))


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        ([1], r"instances\.json: must be boxes and images as COCO has them"),
        ({**INSTANCES, "categories": 5}, r"instances\.json: 'categories' must be a list, got 5"),
        ({**INSTANCES, "images": [{"id": []}]}, r"instances\.json: image 1: 'id' must be an int"),
        ({**INSTANCES, "images": INSTANCES["images"][1:]}, r"ref_id 3: must have a box in image 9"),
    ],
)
def test_damaged_boxes(refer: Callable[..., Path], instances: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(refer(REFS, instances))


def test_boxes_must_be_somewhere(tmp_path: Path, refer: Callable[..., Path]) -> None:
    path = refer()
    with pytest.raises(InputError, match=r"given together with a refs"):
        read(tmp_path / "instances.json")
    (tmp_path / "instances.json").unlink()
    with pytest.raises(InputError, match=r"give that file as a further --annotations"):
        read(path)


def test_no_code_of_a_pickle_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps([Evil()], 2))
    with pytest.raises(InputError, match="only NumPy arrays and plain containers are read"):
        read(path)
    assert not (tmp_path / "ran").exists()


def test_a_file_of_another_task(save: Callable[..., Path], make: type) -> None:
    with pytest.raises(InputError, match=r"one of the JSON forms.*looks like NLVR2 JSON lines"):
        read(save("dev.json", [make.nlvr2("dev-1-0-0")]))


def test_mattnet(save: Callable[..., Path]) -> None:
    document = {
        "refs": [
            {
                **{"ref_id": 3, "ann_id": 70, "box": [1, 2, 3, 4], "image_id": 9},
                **{"split": "val", "category_id": 1, "sent_ids": [4, 5]},
            }
        ],
        "images": [{"image_id": 9, "file_name": "a.jpg", "width": 10, "height": 10}],
        "sentences": [
            {"sent_id": 4, "tokens": ["left", "man"]},
            {"sent_id": 5, "tokens": ["guy"]},
        ],
        "cat_to_ix": {"person": 1},
    }
    first, second = read(save("data.json", document))
    assert (first.text, second.text, first.images) == ("left man", "guy", ("a.jpg",))
    assert first.meta == {"ref_id": 3, "box": (1, 2, 3, 4), "parts": {"category": ["person"]}}
    document["sentences"] = document["sentences"][:1]
    with pytest.raises(InputError, match=r"ref_id 3, sent_id 5: an expression must have words"):
        read(save("data.json", document))


def test_mdetr(save: Callable[..., Path]) -> None:
    image = {"id": 12, "file_name": "a.jpg", "original_id": 9, "caption": "left man"}
    box = {"id": 5, "image_id": 12, "original_id": 70, "iscrowd": 0, "bbox": [1, 2, 3, 4]}
    document = {"images": [image], "annotations": [box], "categories": []}
    (example,) = read(save("finetune_refcoco_val.json", document))
    assert (example.example_id, example.text, example.images) == (12, "left man", ("a.jpg",))
    assert (example.meta["ref_id"], example.meta["box"]) == (70, (1, 2, 3, 4))
    with pytest.raises(InputError, match=r"image id 12: an expression must have one box, got 0"):
        read(save("x.json", {**document, "annotations": [{**box, "image_id": 13}]}))


@pytest.mark.parametrize(("image", "text"), [("image", "sent"), ("img_path", "expression")])
def test_lines_hold_corners(save: Callable[..., Path], image: str, text: str) -> None:
    line = {image: "train2014/a.jpg", text: "left man", "bbox": [1, 2, 4, 6.5], "width": 100}
    first, second = read(save("refcoco_val.jsonl", [line, line]))
    assert first.meta["box"] == second.meta["box"] == (1, 2, 3, 4.5)
    assert (first.example_id, second.example_id, second.meta["ref_id"]) == (0, 1, 1)
    with pytest.raises(InputError, match=r"\.jsonl:2: a box must have a width and a height"):
        read(save("refcoco_val.jsonl", [line, {**line, "bbox": [4, 2, 1, 6]}]))


def test_intersection_over_union() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 5, 10], [20, 20, 30, 30], [5, 5, 5, 5]])
    np.testing.assert_allclose(iou(boxes, (0, 0, 10, 10)), [1, 0.5, 0, 0])


def test_a_half_is_enough(refer: Callable[..., Path]) -> None:
    task, example = RefCoco(), read(refer())[0]
    assert task.example_score(example, Referent(3, (10, 20, 30, 20))) == 1
    assert task.example_score(example, Referent(3, (10, 20, 30, 19.9))) == 0


def test_regions_become_targets_and_answers(refer: Callable[..., Path]) -> None:
    task, (example, second) = RefCoco(), read(refer())
    boxes = np.array([[0, 0, 90, 90], [10, 20, 40, 60], [11, 20, 40, 60]], np.float32)
    seen = np.zeros((3, 8), np.float16), boxes, 100, 100
    assert task.targets(example, {}, [seen]) == [0, 1, 1]
    scores = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], np.float32)
    given = task.answers([example, second], ["referred"], scores, lambda names: [seen])
    assert given[4] == Referent(3, (11, 20, 29, 40), Reach(1, 1200 / 8100, 1200 / 8100))
    assert task.score([example, second], given) == {
        "accuracy": 50,
        "upper_bound": 100,
        "first_region": 0,
        "largest_region": 0,
    }
    credits = task.credits([example, second], given)["accuracy"]
    assert (list(credits.values), credits.clusters) == ([1, 0], [example.images, second.images])


def test_an_image_without_regions_is_answered_as_a_whole(refer: Callable[..., Path]) -> None:
    task, examples = RefCoco(), read(refer())[:1]
    nothing = np.zeros((0, 8)), np.zeros((0, 4)), 100, 50
    assert task.targets(examples[0], {}, [nothing]) == []
    scores = np.zeros((1, 2), np.float32)
    given = task.answers(examples, ["referred"], scores, lambda names: [nothing])
    assert given == {4: Referent(3, (0, 0, 100, 50), Reach(0, 0, 0))}


def test_the_predictions_file(refer: Callable[..., Path], tmp_path: Path) -> None:
    path = refer()
    task, examples = RefCoco(), read(path)
    boxes = {4: Referent(3, (10.25, 20, 30, 40), Reach(1, 1, 1)), 5: Referent(3, (1, 2, 3, 4))}
    file = tmp_path / task.file_name("train")
    assert file.name == "refcoco_train.json"
    task.write(boxes, file)
    entry = {"ref_id": 3, "sent_id": 4, "box": [10.25, 20, 30, 40]}
    assert json.loads(file.read_text())[0] == entry
    scored = score(task, [path], file, split="train")
    assert scored["accuracy"] == 50
    assert scored["accuracy_interval"] == [0, 100]  # one image alone tells nothing
    assert "upper_bound" not in scored
    assert len(examples) == scored["counts"]["examples"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box": [1, 2, 3]}, r"entry 1 \(sent_id 4\): a box must be four numbers"),
        ({"box": [1, 2, 3, -4]}, r"entry 1 \(sent_id 4\): a box must have a width and a height"),
        ({"box": [1, 2, 3, None]}, r"must be four numbers"),
        ({"sent_id": "4"}, r"entry 1: 'sent_id' must be of type int"),
        ({"ref_id": 8}, r"sent_id 4 must have the ref_id 3, got 8"),
        ({"sent_id": 99}, r"1 missing \(4\) and 1 not in the annotations \(99\)"),
    ],
)
def test_predictions_that_are_refused(
    refer: Callable[..., Path], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    entries = [{"ref_id": 3, "sent_id": key, "box": [1, 2, 3, 4]} for key in (4, 5)]
    entries[0] |= change
    file = tmp_path / "given.json"
    file.write_text(json.dumps(entries))
    with pytest.raises(InputError, match=message):
        score(RefCoco(), [refer()], file, split="train")


def test_corners_for_sizes_are_told(
    refer: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    thing = {"id": 70, "image_id": 9, "bbox": [40, 50, 30, 40]}
    entries = [{"ref_id": 3, "sent_id": key, "box": [40, 50, 70, 90]} for key in (4, 5)]
    file = tmp_path / "given.json"
    file.write_text(json.dumps(entries))
    path = refer(REFS[:1], {**INSTANCES, "annotations": [thing]})
    with caplog.at_level(logging.WARNING):
        score(RefCoco(), [path], file, split="train")
    assert "100.00 if the boxes are read as x0, y0, x1, y1" in caplog.text
