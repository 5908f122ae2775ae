"""The one binary encoding: exact, aligned, readable by stock tools, refusing what is damaged."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from semvlp.errors import InputError
from semvlp.shards.codec import ALIGNMENT, decode, decode_entry, encode, replace_texts
from semvlp.shards.record import TENSORS, Question, Sample, Texts, key_of, make_key
from tests.shards.datasets import sample_of


@pytest.mark.parametrize("regions", [0, 1, 3, 100])
def test_a_sample_comes_back_bit_by_bit(regions: int) -> None:
    sample = sample_of("img-1", regions=regions)
    text, blob = encode(sample)
    decoded = decode(text, memoryview(blob))
    assert len(decoded.regions) == regions
    for name in TENSORS:
        np.testing.assert_array_equal(
            getattr(decoded.regions, name), getattr(sample.regions, name), strict=True
        )
    assert decoded.texts == sample.texts
    assert encode(decoded) == (text, blob)


def test_every_array_of_regions_is_stored() -> None:
    regions = sample_of("img-1").regions
    arrays = {f.name for f in fields(regions) if isinstance(getattr(regions, f.name), np.ndarray)}
    assert arrays == set(TENSORS)


def test_the_blob_is_safetensors_aligned_and_in_the_documented_order() -> None:
    sample = sample_of("img-1", regions=3)
    _, blob = encode(sample)
    tensors = safetensors.numpy.load(blob)
    for name, (tensor, _, _) in TENSORS.items():
        np.testing.assert_array_equal(tensors[tensor], getattr(sample.regions, name), strict=True)
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size])
    assert (8 + size) % ALIGNMENT == 0
    order = sorted(header, key=lambda tensor: header[tensor]["data_offsets"])
    assert order == [
        *("regions", "boxes", "proposals"),
        *("class_ids", "class_conf", "attr_ids", "attr_conf"),
    ]


def test_unknown_tensors_are_ignored_and_missing_ones_named() -> None:
    sample = sample_of("img-1", regions=3)
    text, blob = encode(sample)
    tensors = safetensors.numpy.load(blob)

    def rewritten(tensors: dict[str, Any]) -> Sample:
        other = safetensors.numpy.save(tensors)
        entry = json.loads(text) | {"regions_bytes": len(other)}
        return decode(json.dumps(entry).encode(), other, check=False)

    decoded = rewritten({**tensors, "grid": np.zeros((2, 2), np.float64)})
    np.testing.assert_array_equal(decoded.regions.boxes, sample.regions.boxes)
    del tensors["attr_conf"]
    with pytest.raises(InputError, match="img-1: the regions lack the tensor 'attr_conf'"):
        rewritten(tensors)


def test_any_changed_byte_of_the_regions_is_noticed() -> None:
    text, blob = encode(sample_of("img-1", regions=2))
    for offset in range(0, len(blob), 7):
        damaged = bytearray(blob)
        damaged[offset] ^= 4
        with pytest.raises(InputError, match="img-1: checksum"):
            decode(text, bytes(damaged))
    with pytest.raises(InputError, match=f"{len(blob)} bytes expected, {len(blob) - 1} found"):
        decode(text, blob[:-1])


@pytest.mark.parametrize(
    "header", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b"\x01\0\0\0\0\0\0\0{"]
)
def test_a_damaged_header_is_an_input_error(header: bytes) -> None:
    entry = json.loads(encode(sample_of("img-1"))[0]) | {"regions_bytes": len(header)}
    with pytest.raises(InputError, match="img-1"):
        decode(json.dumps(entry).encode(), header, check=False)


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"5", b"\xff\xfe", b"null", b'{"key": "a"}'])
def test_damaged_json_is_an_input_error(text: bytes) -> None:
    with pytest.raises(InputError, match="JSON"):
        decode_entry(text)


def test_damaged_texts_are_an_input_error() -> None:
    text, blob = encode(sample_of("img-1"))
    for questions in ([{"answers": {}}], ["why?"], 5):
        entry = json.loads(text) | {"questions": questions}
        with pytest.raises(InputError, match="img-1: its texts are damaged"):
            decode(json.dumps(entry).encode(), blob)


def test_replaced_texts_leave_every_other_entry() -> None:
    text, blob = encode(sample_of("img-1"))
    text = json.dumps(json.loads(text) | {"from_later": [1, {"x": None}]}).encode()
    question = Question(question="why?", answers={"so": 0.3}, question_id="q1")
    changed = replace_texts(text, Texts(captions=("new",), questions=(question,)))
    assert decode(changed, blob).texts == Texts(captions=("new",), questions=(question,))
    kept = json.loads(changed)
    for name, value in json.loads(text).items():
        assert name in ("captions", "questions") or kept[name] == value
    assert list(kept) == list(json.loads(text))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("boxes", lambda a: a.astype(np.float64), r"boxes must be float32 \(3, 4\), got float64"),
        ("boxes", lambda a: a[:2], r"boxes must be float32 \(3, 4\), got float32 \(2, 4\)"),
        ("features", lambda a: a[0], "features must be"),
        ("object_ids", lambda a: a[:, None], r"got int16 \(3, 1\)"),
        ("features", lambda a: a * np.float16(np.nan), "features holds a NaN or an infinity"),
        ("features", lambda a: -a * np.float16(np.inf), "features holds a NaN or an infinity"),
        ("boxes", lambda a: a * np.float32(np.nan), "boxes holds a NaN or an infinity"),
        ("attribute_conf", lambda a: a + np.float16(np.inf), "attribute_conf holds a NaN"),
    ],
)
def test_regions_refuse_what_is_not_of_their_shape(
    name: str, change: Callable[[Any], Any], message: str
) -> None:
    regions = sample_of("img-1", regions=3).regions
    with pytest.raises(InputError, match=message):
        replace(regions, **{name: change(getattr(regions, name))})


def test_the_largest_half_floats_are_finite() -> None:
    regions = sample_of("img-1", regions=3).regions
    largest = np.full_like(regions.features, np.finfo(np.float16).max)
    assert replace(regions, features=largest).features.max() == 65504
    assert replace(regions, features=-largest).features.min() == -65504


def test_top_takes_the_first_rows_of_every_array() -> None:
    regions = sample_of("img-1", regions=4).regions
    top = regions.top(2)
    assert len(top) == 2
    assert top.profile == regions.profile
    for name in TENSORS:
        np.testing.assert_array_equal(getattr(top, name), getattr(regions, name)[:2])


@pytest.mark.parametrize("image_id", ["a", "COCO_train2014_000000000009", "x" * 80, "-_"])
def test_ids_that_are_keys_stay_as_they_are(image_id: str) -> None:
    assert make_key(image_id) == image_id


@pytest.mark.parametrize("image_id", ["", "a.b", "a/b", "x" * 81, "ü", "a b", "a\n", "!meta"])
def test_ids_that_cannot_be_keys_are_refused(image_id: str) -> None:
    with pytest.raises(InputError, match="cannot be a key"):
        make_key(image_id)


def test_names_that_are_no_keys_get_keys_of_their_own() -> None:
    names = ["IMG 1", "IMG.1", "фото", "写真", "x" * 81, "x" * 82, "", "ok\udcff", "a\n"]
    keys = [key_of(name) for name in names]
    assert len({*keys}) == len(names)
    assert [make_key(key) for key in keys] == keys
    assert key_of("caf\u00e9") == key_of("cafe\u0301") == "caf_-850f7dc439"


def test_a_name_is_kept_where_it_differs_from_the_key() -> None:
    plain = sample_of("img-1", regions=3)
    named = replace(plain, name="IMG 1.v2")
    assert b'"name"' not in encode(plain)[0]
    assert decode(*encode(named)).name == "IMG 1.v2"
    assert decode(*encode(plain)).name == ""
