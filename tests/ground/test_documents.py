"""JSON and TOML that are made to break their readers are damaged files, as others are."""

import json
import tomllib

import pytest

from semvlp.documents import MOST_PARTS, from_json, from_toml
from semvlp.errors import shown

DEEP = 100_000
DIGITS = "9" * 5000


@pytest.mark.parametrize(
    "text",
    ["[" * DEEP, "[" * DEEP + "]" * DEEP, '{"a":' * DEEP, '[{"a":' * DEEP, DIGITS, f"[-{DIGITS}]"],
)
def test_hostile_json_is_damaged_json(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        from_json(text)
    with pytest.raises(json.JSONDecodeError):
        from_json(text.encode())


def test_json_is_read_as_before() -> None:
    assert from_json('{"a": [1, 2.5, null], "b": "\\u00e9"}') == {"a": [1, 2.5, None], "b": "é"}
    assert from_json('{"a": 1, "a": 2}', object_pairs_hook=tuple) == (("a", 1), ("a", 2))
    assert from_json("9" * 4000) == int("9" * 4000)
    with pytest.raises(UnicodeDecodeError):
        from_json(b'"\xff"')


@pytest.mark.parametrize(
    "text",
    [
        f"a = {'[' * DEEP}",
        f"a = {'{a = ' * DEEP}",
        f"a = {DIGITS}",
        f"{'a.' * DEEP}a = 1",
        f"[{'a . ' * DEEP}a]",
    ],
)
def test_hostile_toml_is_damaged_toml(text: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError):
        from_toml(text)


def test_toml_is_read_as_before() -> None:
    nested = "[" * 50 + "]" * 50
    assert from_toml(f'[train.data]\npath = "../../a.b.c"\ndeep = {nested}')["train"]["data"]
    assert from_toml(f"{'a.' * (MOST_PARTS - 1)}a = 1")


def test_a_value_as_deep_as_can_be_read_is_shown_by_its_kind() -> None:
    depth = 1
    while True:
        try:
            value = from_json("[" * depth + "]" * depth)
        except json.JSONDecodeError:
            break
        depth += 20
    assert shown(value) in ("a list", "[[[[[...]]]]]")
    assert shown(10**5000) == "a int"
    assert shown({"a": 1}, 5) == "{'a':"
