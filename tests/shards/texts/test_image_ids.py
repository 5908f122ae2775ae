"""Annotation files and stores name one image in different ways."""

import pytest

from semvlp.errors import InputError
from semvlp.shards.record import key_of
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


@pytest.mark.parametrize("name", ["IMG 1", "photo.v2", "caf\u00e9", "写真", "COCO x_000000000009"])
def test_a_name_finds_the_key_that_is_made_of_it(name: str) -> None:
    ids = ImageIds([key_of(name), "IMG_1", "photo_v2", "000000000009"])
    assert ids.find(f"folder/{name}.jpg") == ids.find(name) == key_of(name)
    assert ids.find("cafe\u0301.jpg") == (key_of(name) if name.startswith("caf") else None)
    assert ids.find("IMG_1.jpg") == "IMG_1"


def test_a_name_finds_the_key_of_version_0_1() -> None:
    ids = ImageIds(["IMG_1", "____"])
    assert ids.find("x/IMG 1.jpg") == ids.find("IMG 1") == "IMG_1"
    assert ids.find("фото.jpg") == "____"
    with pytest.raises(InputError, match="'фото' and '写真的照' not apart"):
        ids.find("写真的照.jpg")
    assert ImageIds(["IMG_1", key_of("a b")]).find("IMG 1.jpg") is None
