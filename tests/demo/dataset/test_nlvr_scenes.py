"""NLVR v1: the order of boxes in its pictures, its pixels, and what its people meant."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from semvlp.demo.dataset.nlvr_scenes import (
    ORDERS,
    read_scenes,
    scene_of,
    structured_rep,
    write_boxes,
)
from semvlp.demo.language.scatter_statements import scatter_statement
from semvlp.demo.language.tower_statements import tower_statement
from semvlp.demo.world.draw import draw
from semvlp.errors import InputError

RECORD = {
    "sentence": "There is a black block.",
    "label": "true",
    "identifier": "12-0",
    "directory": "3",
    "structured_rep": [
        [{"y_loc": 80, "type": "square", "color": "Black", "x_loc": 40, "size": 20}],
        [{"y_loc": 80, "type": "square", "color": "#0099ff", "x_loc": 40, "size": 20}],
        [{"y_loc": 80, "type": "square", "color": "Yellow", "x_loc": 40, "size": 20}],
    ],
}
# Borders of circles differ by the rasteriser, by 0.12 levels of 255 in the worst picture.
MEAN_PIXEL_DIFFERENCE = 0.2
# People make mistakes; 98.8 % agree with the sentences that the world writes in the same words.
LEAST_AGREEMENT = 0.97
# Of 248 sentences; 65 were written before towers were spoken of as boxes.
LEAST_SENTENCES = 85
# `Above` as anywhere higher; four squares for exactly three; a corner of two that is doubtful.
HUMAN_EXCEPTIONS = {"3257-3", "1845-3", "862-2"}


@pytest.fixture
def nlvr(tmp_path: Path) -> Path:
    """One example with two of its six pictures."""
    folder = tmp_path / "images" / "3"
    folder.mkdir(parents=True)
    (tmp_path / "dev.json").write_text(json.dumps(RECORD) + "\n")
    for k in (0, 4):
        draw(scene_of(RECORD["structured_rep"]).permuted(ORDERS[k])).save(
            folder / f"dev-12-0-{k}.png"
        )
    return tmp_path


def test_structured_representation_and_scene_are_the_same() -> None:
    scene = scene_of(RECORD["structured_rep"])
    assert scene.kind == "towers"
    assert structured_rep(scene) == RECORD["structured_rep"]


def test_boxes_of_the_pictures_that_are_there(nlvr: Path) -> None:
    assert write_boxes(nlvr / "dev.json", nlvr / "images", nlvr / "boxes.json", split="dev") == 2
    boxes = json.loads((nlvr / "boxes.json").read_text())
    names = [image["file_name"] for image in boxes["images"]]
    assert names == ["3/dev-12-0-0.png", "3/dev-12-0-4.png"]
    classes = {entry["id"]: entry["name"] for entry in boxes["categories"]}
    colors = {entry["id"]: entry["name"] for entry in boxes["attributes"]}
    squares = [
        (entry["image_id"], colors[entry["attribute_ids"][0]], entry["bbox"])
        for entry in boxes["annotations"]
        if classes[entry["category_id"]] == "square"
    ]
    # Picture 4 shows box 2, then 0, then 1.
    assert squares == [
        (1, "black", [40, 80, 20, 20]),
        (1, "blue", [190, 80, 20, 20]),
        (1, "yellow", [340, 80, 20, 20]),
        (2, "yellow", [40, 80, 20, 20]),
        (2, "black", [190, 80, 20, 20]),
        (2, "blue", [340, 80, 20, 20]),
    ]


def test_a_folder_without_pictures_is_an_error(nlvr: Path) -> None:
    with pytest.raises(InputError, match="must hold pictures train-n-m-k"):
        write_boxes(nlvr / "dev.json", nlvr / "images", nlvr / "boxes.json", split="train")


@pytest.mark.parametrize("line", ["{", "[1]", '{"identifier": "1-0"}'])
def test_a_damaged_line_is_named(nlvr: Path, line: str) -> None:
    with (nlvr / "dev.json").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"dev\.json:2: must be an NLVR v1 record"):
        list(read_scenes(nlvr / "dev.json"))


def test_real_pictures_show_the_boxes_in_this_order_in_these_pixels(real_data: Path) -> None:
    records = list(read_scenes(real_data / "nlvr/dev/dev.json"))[::12]
    differences = []
    for record, scene in records:
        folder = real_data / "nlvr/dev/images" / record["directory"]
        for k, order in enumerate(ORDERS):
            with Image.open(folder / f"dev-{record['identifier']}-{k}.png") as image:
                real = np.asarray(image.convert("RGB"), np.int16)
            difference = np.abs(real - np.asarray(draw(scene.permuted(order)), np.int16))
            differences.append(difference.mean())
    assert len(differences) == 6 * 83
    assert max(differences) < MEAN_PIXEL_DIFFERENCE


def test_people_mean_the_same_by_the_same_words(real_data: Path) -> None:
    human = [
        (" ".join(record["sentence"].lower().rstrip(". ").split()), record, scene)
        for record, scene in read_scenes(real_data / "nlvr/dev/dev.json")
    ]
    wanted = {(text, scene.kind) for text, _, scene in human}
    rng, claims = Random(0), {}
    for kind, write in (("towers", tower_statement), ("scatter", scatter_statement)):
        for _ in range(30_000):
            claim = write(rng)
            key = claim.text.lower().rstrip("."), kind
            if key in wanted:
                claims[key] = claim
    judged = {
        record["identifier"]: claims[text, scene.kind].answer(scene) == record["label"]
        for text, record, scene in human
        if (text, scene.kind) in claims
    }
    assert len(claims) >= LEAST_SENTENCES
    assert len(judged) > 300
    assert sum(judged.values()) >= LEAST_AGREEMENT * len(judged)
    assert {name for name, agrees in judged.items() if not agrees} <= HUMAN_EXCEPTIONS
