"""JSON that is decoded an entry at a time is what `json` makes of it, and errs in its words."""

import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.shards.texts import json_stream
from semvlp.shards.texts.annotation_files import Document, Lines, parse, read_any
from semvlp.shards.texts.json_stream import JsonDamage, JsonText, entries, members, survey
from semvlp.shards.texts.texts import gather, read_texts

VALUES: list[Any] = [
    {"info": {"a": [1, {"b": None}]}, "images": [{"id": 1}, {"id": 2}], "annotations": []},
    {"annotations": [[1], 'ab\\"\u00e9\U0001f415', -1.5e-7, 12, True, None], "": {"x": []}},
    [{"image_id": "a", "captions": ["x, ]", "}{"]}, {"image_id": 2}],
    {},
    [],
    {"q1": {"question": "?", "imageId": "7"}, "q2": {"question": "??", "imageId": "8"}},
]
TEXTS = [
    json.dumps(value, ensure_ascii=n % 2 == 0, indent=n % 3 or None)
    for n, value in enumerate(VALUES)
]
ODD = ' \t\r\n{}[]",:0-.eEtfnNI\\u\x01\u00e9'


@pytest.fixture(params=[1, 3, 1 << 20])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of so many bytes: a value may be cut anywhere."""
    monkeypatch.setattr(json_stream, "CHUNK", request.param)
    monkeypatch.setattr(json_stream, "AT_ONCE", 40)


def streamed(text: str) -> Any:
    """Read a text as its files are read: once to know it, then its lists by their places."""
    data = text.encode()
    first = JsonText(io.BytesIO(data))
    known = survey(first)
    if first.skip():
        raise JsonDamage("Extra data")
    if isinstance(known.head, list):
        return list(entries(JsonText(io.BytesIO(data), known.places[None])))
    second = JsonText(io.BytesIO(data))
    second.skip()
    value = {name: second.value() for name in members(second)}
    for name, place in known.places.items():
        assert list(entries(JsonText(io.BytesIO(data), place))) == value[name]
        assert known.head[name] == value[name][:1]
    return value


def outcome(read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except ValueError as error:
        return "Extra data" if "Extra data" in str(error) else str(error)


def check_same(text: str) -> None:
    if text.lstrip(" \t\r\n")[:1] in ("{", "["):
        assert outcome(streamed, text) == outcome(from_json, text), text


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("text", TEXTS)
def test_it_is_what_json_makes_of_it(text: str) -> None:
    check_same(text)
    check_same(f"\n  {text}\n")
    check_same(f"{text} {text}")


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("text", TEXTS)
def test_a_damaged_text_errs_in_the_words_of_json(text: str) -> None:
    for place in range(1, len(text)):
        check_same(text[:place])
        check_same(text[:place] + text[place + 1 :])
        for odd in ODD:
            check_same(text[:place] + odd + text[place:])


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize(
    "text",
    [
        '{"a": ' + "[" * 100_000,
        '{"annotations": [' + "9" * 5000 + "]}",
        '{"annotations": [{"a": "' + "x" * 50_000,
        '[{"a": NaN}, Infinity, -Infinity, 1E400, "\\ud800", "\\ud83d\\udc15"]',
        '{"a": [1], "b": 2, "a": 3}',
        '{"a": 3, "b": 2, "a": [1, 2]}',
    ],
    ids=["deep", "digits", "unended", "odd", "twice", "listed"],
)
def test_odd_values(text: str) -> None:
    assert repr(outcome(streamed, text)) == repr(outcome(from_json, text))


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "data",
    [b"", b" \n", b"\xef\xbb\xbf[1, 2]", b"[\xff]", b'{"a": 1}\n{"a": 2}\n', b'{"a": 1}{"a": 2}',
     b'{\n"a": 1}\n{"a": 2}', b"[1]\n[2]", b"a\tb\r\nc\td", b'{"a": 1,}\n{}'],
)  # fmt: skip
def test_files_are_told_apart_as_when_they_are_read_whole(
    tmp_path: Path, data: bytes, zipped: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(data) if zipped else data)
    expected: Any
    try:
        expected = parse(data.decode("utf-8-sig"), path)
    except InputError as error:
        expected = str(error)
    except ValueError as error:
        expected = f"{path}: cannot be read as a UTF-8 text file: {error}"
    try:
        read: Any = read_any(path)
        if isinstance(read, Document):
            is_list = isinstance(read.head, list)
            read = list(read.entries()) if is_list else dict(read.items())
        read = list(read) if isinstance(read, Lines) else read or []
    except InputError as error:
        read = str(error)
    assert read == expected


@pytest.mark.parametrize("zipped", [False, True])
def test_memory_does_not_grow_with_the_captions(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 1 << 12)
    listed = [{"image_id": 1, "id": n, "caption": "a dog " * 15} for n in range(5000)]
    data = json.dumps({"images": [], "annotations": listed}).encode()
    path = tmp_path / "captions.json"
    path.write_bytes(gzip.compress(data, 1) if zipped else data)
    tracemalloc.start()
    try:
        gather([path]).close()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < len(data) / 2


def test_names_of_an_id_that_is_listed_twice(tmp_path: Path) -> None:
    images = [(1, "a.jpg"), ("1", "b.jpg"), (1, "c.jpg"), (2, "d.jpg")]
    value = {
        "annotations": [{"image_id": image, "caption": "x"} for image in (1, "1", 2, 3)],
        "images": [{"id": image, "file_name": name} for image, name in images],
    }
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(value))
    assert list(read_texts([path])) == ["c.jpg", "b.jpg", "d.jpg", "3"]
