"""Annotation files and stores name one image in different ways."""

import pytest

from semvlp.errors import InputError
from semvlp.shards.texts.image_ids import ImageIds, stem


@pytest.mark.parametrize("stored", ["150367", "000000150367", "COCO_train2014_000000150367"])
@pytest.mark.parametrize(
    "asked",
    [
        150367,
        "150367",
        "000000150367",
        "000000150367.jpg",
        "COCO_train2014_000000150367",
        "coco_train2014_000000150367.npz",
        "train2014/COCO_train2014_000000150367.jpg",
    ],
)
def test_coco_spellings_are_one_image(stored: str, asked: str | int) -> None:
    assert ImageIds([stored, "000000000009"]).find(asked) == stored


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("n54424", "n54424.jpg"),
        ("n54424.jpg", "n54424"),
        ("img.0.v1", "img.0.v1"),
        ("img.0.v1", "folder/img.0.v1.png"),
        ("dev-850-0-img0", "dev-850-0-img0.png"),
        ("3415809451", "3415809451.jpg"),
        ("0", 0),
        ("a\u00e9 b", "x/a\u00e9 b.JPEG"),
    ],
)
def test_other_spellings(stored: str, asked: str | int) -> None:
    assert ImageIds([stored]).find(asked) == stored


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("54424", "n54424"),
        ("n54424", 54424),
        ("COCO_train2014_000000000009", "COCO_val2014_000000000009"),
        ("dev-1-9", "dev-2-9"),
        ("dev-850-0-img1", "dev-850-0-img0"),
        ("img.0", "img.1"),
        ("1", "dev-1572-0-1"),
        ("12", "1"),
        ("12", ""),
    ],
)
def test_other_images_are_not_found(stored: str, asked: str | int) -> None:
    assert ImageIds([stored]).find(asked) is None


def test_the_exact_name_wins_over_every_other_reading() -> None:
    ids = ImageIds(["000000000009", "9", "9.jpg", "COCO_train2014_000000000009"])
    assert ids.find("9") == ids.find(9) == "9"
    assert ids.find("9.jpg") == "9.jpg"
    assert ids.find("COCO_train2014_9") == "COCO_train2014_000000000009"


def test_an_ambiguous_name_is_an_error_naming_the_images() -> None:
    ids = ImageIds(["COCO_train2014_000000000009", "COCO_test2015_000000000009", "a.jpg", "a.png"])
    with pytest.raises(InputError, match=r"'9'.*COCO_train2014_000000000009, COCO_test2015_0"):
        ids.find(9)
    with pytest.raises(InputError, match=r"a\.jpg, a\.png"):
        ids.find("a")


def test_stem_keeps_dots_that_are_no_extension() -> None:
    assert stem("a/b.c/d.e.jpg") == "d.e"
    assert stem("2008.000123") == "2008.000123"
    assert stem("dir\\x.PNG") == "x"
