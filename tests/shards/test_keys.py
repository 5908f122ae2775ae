"""Lists of names in arrays: they are what they were made of, and look-ups agree with a dict's."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semvlp.shards.dataset.hashes import list_sha256
from semvlp.shards.keys import KeyCollector, Keys

NAMES = st.lists(st.text(st.sampled_from("ab1_\n é日\ud800"), max_size=4), max_size=12)
LINES = st.lists(st.text(st.sampled_from("ab1_ é日"), max_size=4), max_size=12)


@settings(deadline=None)
@given(NAMES, st.text(st.sampled_from("ab1_"), max_size=2))
def test_keys_are_a_list_that_is_looked_up(names: list[str], other: str) -> None:
    keys = Keys(names)
    assert (list(keys), len(keys), keys) == (names, len(names), names)
    assert [keys[row] for row in range(-len(names), len(names))] == 2 * names
    assert keys[1:] == names[1:]
    for name in [*names, other]:
        assert keys.find(name) == (names.index(name) if name in names else None)
        assert (name in keys) == (name in names)
    assert keys.rows_of(Keys([*names, "none"])).tolist() == [*map(names.index, names), -1]
    again = [name for row, name in enumerate(names) if name in names[:row]]
    assert keys.first_repeated() == next(iter(again), None)
    assert pickle.loads(pickle.dumps(keys)) == keys
    collector = KeyCollector()
    for name in names:
        collector.add(name)
    assert collector.keys() == keys
    assert keys != [*names, "x"]


@settings(deadline=None)
@given(LINES)
def test_lines_are_keys_without_a_copy(names: list[str]) -> None:
    joined = np.frombuffer("\n".join(names).encode(), np.uint8)
    keys = Keys.split(joined)
    # A file of one empty name is one of none.
    assert keys == ([] if names == [""] else names)
    assert np.shares_memory(keys.joined(), joined) or not len(joined)
    assert keys.joined().tobytes() == joined.tobytes()
    assert keys.sha256 == list_sha256(list(keys))


def test_lines_that_are_no_text() -> None:
    with pytest.raises(UnicodeDecodeError):
        Keys.split(np.frombuffer(b"a\n\xff", np.uint8))


def test_names_that_share_a_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semvlp.shards.keys.hash", lambda name: len(name), raising=False)
    keys = Keys(["ab", "cd", "e", "ab"])
    assert [keys.find(name) for name in ("cd", "ab", "e", "fg")] == [1, 0, 2, None]
    assert keys.first_repeated() == "ab"
    assert Keys(["ab", "cd"]).first_repeated() is None
