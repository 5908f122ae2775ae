"""Pickles are read without running code: arrays and containers pass, everything else is refused."""

import collections
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semvlp.errors import InputError
from semvlp.shards.formats.safe_pickle import dump_npy, dumps, load_npy, loads

VALUE = {
    "image_id": "a",
    "image_h": 480,
    "features": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.arange(3, dtype=np.float16),
    "scalar": np.int64(7),
    "text": np.array(["a", "bc"]),
    "objects": np.array([{"x": 1}, None], object),
    "nested": [(1, 2.5), {3}, b"bytes", collections.OrderedDict(a=1), None, True],
}


def assert_equal(actual: Any, expected: Any) -> None:
    assert type(actual) is type(expected)
    if isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(actual, expected)
        assert actual.dtype == expected.dtype
    elif isinstance(expected, dict):
        assert list(actual) == list(expected)
        for name in expected:
            assert_equal(actual[name], expected[name])
    else:
        assert actual == expected


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_of_every_protocol_are_read(protocol: int) -> None:
    assert_equal(loads(pickle.dumps(VALUE, protocol), "x"), VALUE)


def test_the_names_of_old_numpy_are_read_and_written() -> None:
    data = dumps(VALUE)
    assert b"numpy._core" not in data
    assert b"numpy.core.multiarray" in data
    assert_equal(loads(data, "x"), VALUE)
    assert_equal(pickle.loads(data), VALUE)


class Runs:
    """Pickles as the call of a function, the way an attack does."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_does_not_execute(tmp_path: Path, protocol: int) -> None:
    victim = tmp_path / "victim"
    attacks = [
        Runs(os.mkdir, str(victim)),
        Runs(eval, f"__import__('os').mkdir({str(victim)!r})"),
        Runs(getattr, dict, "fromkeys"),
        {"features": np.array([Runs(os.mkdir, str(victim))], object)},
        [VALUE, (Runs(exec, f"import os; os.mkdir({str(victim)!r})"),)],
    ]
    for attack in attacks:
        data = pickle.dumps(attack, protocol)
        with pytest.raises(InputError, match="it names"):
            loads(data, "the entry")
        stream = io.BytesIO()
        np.save(stream, np.array(attack, object), allow_pickle=True)
        with pytest.raises(InputError, match="it names"):
            load_npy(stream.getvalue(), "info")
    assert not victim.exists()
    pickle.loads(pickle.dumps(attacks[0], protocol))  # the attack does work
    assert victim.exists()


def test_bytes_of_python_2_use_no_other_codec() -> None:
    data = pickle.dumps(b"\xff\x00", 2)
    assert b"_codecs" in data
    assert loads(data, "x") == b"\xff\x00"
    with pytest.raises(InputError, match="encoding 'zip'"):
        loads(
            data.replace(b"latin1", b"zip").replace(b"\x06\x00\x00\x00zip", b"\x03\x00\x00\x00zip"),
            "x",
        )


@pytest.mark.parametrize("length", range(0, 120, 7))
def test_cut_pickles_are_input_errors(length: int) -> None:
    data = pickle.dumps(VALUE)
    with pytest.raises(InputError, match="the entry is a damaged pickle"):
        loads(data[:length], "the entry")


def test_npy_files_of_both_kinds() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert_equal(load_npy(dump_npy(array), "x"), array)
    assert_equal(load_npy(dump_npy(VALUE), "x"), VALUE)
    stream = io.BytesIO()
    np.save(stream, VALUE, allow_pickle=True)  # type: ignore[arg-type]
    assert_equal(load_npy(stream.getvalue(), "x"), VALUE)
    assert_equal(np.load(io.BytesIO(dump_npy(VALUE)), allow_pickle=True).item(), VALUE)


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x10\x00{}", b"x" * 200])
def test_damaged_npy_files_are_input_errors(data: bytes) -> None:
    with pytest.raises(InputError, match="info is a damaged"):
        load_npy(data, "info")


def test_an_array_that_python_2_pickled_is_read() -> None:
    data = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(L2L\nt"
        b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
        b"I00\nS'\\x00\\x00\\x80?\\x00\\x00\\xa0A'\ntb."
    )
    assert_equal(loads(data, "x"), np.array([1, 20], np.float32))
