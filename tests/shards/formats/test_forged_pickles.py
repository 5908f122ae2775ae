"""Pickles that name only allowed things and lie about arrays: refused, before memory is touched.

Each runs in a process of its own, for what is tested against ends the process that reads it.
"""

import io
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import InputError
from semvlp.shards.formats.foreign_lmdb import write_database
from semvlp.shards.formats.npz import npz_bytes
from semvlp.shards.formats.safe_pickle import dump_npy, load_npy, loads
from tests.train.processes import CONTEXT

RECONSTRUCT, BEGUN, _ = np.empty(0).__reduce__()
FROM_BUFFER = np.empty(0).__reduce_ex__(5)[0]
SCALAR = np.float32(0).__reduce__()[0]
ADDRESS = b"\x41" * 8
OBJECT_FLAGS, NUMBER = 63, (3, "<", None, None, None, -1, -1, 0)


class Reduced:
    """Pickles as the call of a function, then filled with a state."""

    def __init__(self, function: Any, arguments: Any, *state: Any) -> None:
        self.parts = function, arguments, *state

    def __reduce__(self) -> Any:
        return self.parts


def dtype(spec: str, *state: Any) -> Reduced:
    return Reduced(np.dtype, (spec, False, True), *([state] if state else []))


def array(kind: Any, shape: Any, data: Any) -> Reduced:
    return Reduced(RECONSTRUCT, BEGUN, (1, shape, kind, False, data))


NUMBERS_AS_OBJECTS = dtype("f8", *NUMBER[:-1], OBJECT_FLAGS)
FORGED: dict[str, Callable[[], Any]] = {
    "numbers that claim to be objects": lambda: array(NUMBERS_AS_OBJECTS, (1,), ADDRESS),
    "objects that claim to be numbers": lambda: array(
        dtype("O8", 3, "|", None, None, None, -1, -1, 0), (1,), ADDRESS
    ),
    "an object of bytes": lambda: array(np.dtype(object), (1,), ADDRESS),
    "fewer objects than the shape says": lambda: array(np.dtype(object), (2**30,), [1]),
    "a size that is not the kind's": lambda: array(
        dtype("f8", 3, "<", None, None, None, 1, 1, 0), (8,), ADDRESS
    ),
    "text of another size": lambda: array(
        dtype("U2", 3, "<", None, None, None, -8, 4, 8), (1,), ADDRESS
    ),
    "a field that is an object": lambda: array(
        dtype("V8", 3, "|", None, ("a",), {"a": (np.dtype(object), 0)}, 8, 1, 0),
        (1,),
        ADDRESS,
    ),
    "an array of objects in each value": lambda: array(
        dtype("f8", 3, "<", (np.dtype(object), (1,)), None, None, -1, -1, 0), (1,), ADDRESS
    ),
    "a negative shape": lambda: array(np.dtype(float), (-1, -1), ADDRESS),
    "a shape whose size is over 64 bits": lambda: array(np.dtype(float), (2**62, 4), b""),
    "fewer bytes than the shape says": lambda: array(np.dtype(float), (2,), ADDRESS),
    "no bytes for a great many values": lambda: array(np.dtype("S0"), (2**60,), b""),
    "an array begun at another size": lambda: Reduced(RECONSTRUCT, (np.ndarray, (2**40,), b"b")),
    "an array made by its class": lambda: Reduced(np.ndarray, ((1,), "O", ADDRESS)),
    "a buffer of objects": lambda: Reduced(FROM_BUFFER, (ADDRESS, np.dtype(object), (1,), "C")),
    "a buffer of numbers as objects": lambda: Reduced(
        FROM_BUFFER, (ADDRESS, NUMBERS_AS_OBJECTS, (1,), "C")
    ),
    "a scalar that is an address": lambda: Reduced(SCALAR, (NUMBERS_AS_OBJECTS, ADDRESS)),
    "a scalar of too few bytes": lambda: Reduced(SCALAR, (np.dtype("f8"), b"1")),
    "a scalar that is an object": lambda: Reduced(SCALAR, (np.dtype(object), ADDRESS)),
    "a text of what is no character": lambda: array(np.dtype("U2"), (1,), b"\xff" * 8),
    "a scalar text of no character": lambda: Reduced(SCALAR, (np.dtype("U2"), b"\xff" * 8)),
    "a bytearray of a number": lambda: Reduced(bytearray, (2**40,)),
}

READ = """
import sys
from pathlib import Path
from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import InputError
from semvlp.shards.formats.safe_pickle import loads
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        value = loads(path.read_bytes(), "the entry")
        print(path.name, "|", repr(value))
    except InputError as error:
        print(path.name, "|", "refused:", error)
"""


def in_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def forged_entry(kind: str = "objects that claim to be numbers", protocol: int = 4) -> bytes:
    return pickle.dumps({"features": FORGED[kind]()}, protocol)


@pytest.fixture(scope="module", params=[2, 4])
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a process says that reads all of them."""
    folder = tmp_path_factory.mktemp("forged")
    for kind in FORGED:
        (folder / kind).write_bytes(forged_entry(kind, request.param))
    ended = in_process("-c", READ, folder)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_array_is_refused(answers: list[str], kind: str) -> None:
    said = [answer for answer in answers if answer.startswith(f"{kind} |")]
    assert len(said) == 1
    assert said[0].startswith(f"{kind} | refused: the entry is a damaged pickle: ")


def test_the_forged_arrays_do_end_a_process_that_believes_them(tmp_path: Path) -> None:
    file = tmp_path / "forged"
    file.write_bytes(forged_entry("objects that claim to be numbers"))
    believing = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')))"
    assert in_process("-c", believing, file).returncode < 0


@pytest.mark.parametrize("attribute", ["__defaults__", "__code__", "_function"])
def test_a_pickle_changes_none_of_the_functions_it_may_call(attribute: str) -> None:
    names_encode = pickle.dumps(b"\xff", 2)[2:].partition(b"\n")[0]
    data = b"\x80\x02" + names_encode + b"\nencode\n" + b"N}X"
    data += len(attribute).to_bytes(4, "little") + attribute.encode() + b"Ns\x86b."
    with pytest.raises(InputError, match="it changes a function"):
        loads(data, "the entry")
    assert loads(pickle.dumps(b"\xff", 2), "the entry") == b"\xff"


def test_a_pickle_gives_a_dictionary_no_methods() -> None:
    forged = Reduced(OrderedDict, (), {"items": 1, "keys": 2}, None, iter({"a": 1}.items()))
    value = loads(pickle.dumps(forged), "the entry")
    assert (list(value.items()), list(value.keys())) == ([("a", 1)], ["a"])


def test_the_memo_of_a_pickle_takes_no_more_than_it_holds() -> None:
    assert loads(b"\x80\x02Nr\xff\xff\xff\x7f.", "the entry") is None


@pytest.mark.parametrize(
    "end",
    [
        b"}(" + b"h\x00NuN.",
        b"}h\x00Ns.",
        b"(h\x00Nd.",
        b"\x8f(h\x00\x90.",
        b"(h\x00\x91.",
        b"cbuiltins\nset\n]h\x00a\x85R.",
        b"cbuiltins\nfrozenset\n]h\x00a\x85R.",
        b"ccollections\nOrderedDict\n]h\x00N\x86a\x85R.",
        b"cnumpy\ndtype\nh\x00\x85R.",
    ],
)
def test_a_tuple_of_itself_twice_sixty_levels_deep_takes_no_time(end: bytes) -> None:
    """Its hash and its text take two to the power of sixty steps."""
    deep = b")q\x00" + b"0h\x00h\x00\x86q\x00" * 60 + b"0"
    with pytest.raises(InputError):
        loads(b"\x80\x04" + deep + end, "it")


def test_keys_of_every_plain_kind_are_read() -> None:
    keys = ("a", b"b", 1, 2.5, 1j, None, True, (1, "a"), np.int64(3), np.float32(0.5))
    value = {"dict": dict.fromkeys(keys), "set": set(keys), "frozen": frozenset(keys)}
    value["ordered"] = OrderedDict.fromkeys(keys)  # type: ignore[assignment]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert loads(pickle.dumps(value, protocol), "it") == value


def test_an_array_that_holds_itself_is_refused() -> None:
    held = np.empty(1, object)
    held[0] = [held]
    with pytest.raises(InputError, match="holds itself"):
        loads(pickle.dumps(held), "the entry")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_order_and_kind_are_read(protocol: int) -> None:
    rows = np.arange(24).reshape(2, 3, 4)
    arrays = [rows.astype(kind) for kind in ("?", ">f4", "<i2", ">u8", "f2", "c16", "S3", ">U2")]
    arrays += [np.asfortranarray(rows), rows.transpose(1, 0, 2), rows[:, ::2], np.array(5)]
    arrays += [np.zeros((0, 4)), np.zeros((3, 0, 2)), np.array([""]), np.array(["\U0001f600"])]
    objects = np.asfortranarray(np.array([[1, rows], [[rows], None]], object))
    data = pickle.dumps([*arrays, objects, np.str_(""), np.float16(2)], protocol)
    read = loads(data, "x")
    for own, again, array in zip(pickle.loads(data), read, arrays, strict=False):
        assert type(again) is np.ndarray
        assert (again.dtype, again.strides) == (own.dtype, own.strides)
        np.testing.assert_array_equal(again, array)
    assert read[-2:] == ["", 2]
    assert [type(value) for value in read[-2:]] == [np.str_, np.float16]
    assert read[-3][0, 0] == 1
    np.testing.assert_array_equal(read[-3][0, 1], rows)
    assert read[-3][0, 1] is read[-3][1, 0][0]


def test_an_npy_file_is_as_long_as_its_header_says() -> None:
    data = dump_npy(np.arange(3.0))
    for changed in (data[:-1], data.replace(b"(3,)", b"(9,)"), data.replace(b"'<f8'", b"'V8' ")):
        with pytest.raises(InputError, match=r"x is a damaged \.npy file"):
            load_npy(changed, "x")
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (2**62, 4)}
    np.lib.format.write_array_header_1_0(stream, header)
    with pytest.raises(InputError, match="0 bytes for 18446744073709551616 values"):
        load_npy(stream.getvalue(), "x")


def npy_of(pickled: bytes) -> bytes:
    """Return an .npy file that holds one pickled object."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    return header.getvalue() + pickled


def forged_file(kind: str, folder: Path) -> Path:
    """Write what an import reads, every pickle in it forged."""
    path = folder / kind
    if kind.endswith("lmdb"):
        listed = forged_entry() if kind == "volta-lmdb" else pickle.dumps([b"a"])
        write_database(path, [(b"a", forged_entry()), (b"keys", listed)])
        return path
    path.mkdir()
    features = np.ones((1, 8), np.float32)
    if kind == "mmf-npy":
        (path / "a.npy").write_bytes(dump_npy(features))
        (path / "a_info.npy").write_bytes(npy_of(forged_entry()))
    else:
        archive = npz_bytes({"x": features, "bbox": np.array([[0, 0, 9, 9]])}, compress=False)
        numbers = dict.fromkeys(("num_bbox", "image_w", "image_h"), npy_of(forged_entry()))
        (path / "a.npz").write_bytes(_with_members(archive, numbers | {"info": numbers["image_w"]}))
    return path


def _with_members(archive: bytes, members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO(archive)
    with zipfile.ZipFile(stream, "a") as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["vilbert-lmdb", "volta-lmdb", "mmf-npy", "milvlg-npz"])
def test_an_import_of_forged_pickles_is_one_error(tmp_path: Path, kind: str) -> None:
    path = forged_file(kind, tmp_path)
    ended = in_process("-m", "semvlp.cli", "shards", "import", path, tmp_path / "s", "--from", kind)
    assert ended.returncode == 3, ended.stderr
    assert "is a damaged pickle: " in ended.stderr
    assert f"error: {path}" in ended.stderr or f"of {path}" in ended.stderr


def test_forged_weights_are_one_error(tmp_path: Path) -> None:
    weights, image = tmp_path / "x.pkl", tmp_path / "a.png"
    weights.write_bytes(forged_entry())
    Image.new("RGB", (64, 64)).save(image)
    command = ["extract", image, "--detector", "coco-r50-c4", "--weights", weights]
    command += ["--out", tmp_path / "s"]
    process = CONTEXT.Process(target=_run, args=(list(map(str, command)), tmp_path / "told"))
    process.start()
    process.join()
    told = (tmp_path / "told").read_text()
    assert process.exitcode == 3, told
    assert f"error: {weights} is a damaged pickle: " in told


def _run(command: list[str], told: Path) -> None:
    with told.open("w") as file, redirect_stderr(file):
        code = run(cli, "semvlp", command)
    sys.exit(code)


FUZZED = """
import pickle, random, sys
import numpy as np
from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import InputError
from semvlp.shards.formats.safe_pickle import load_npy, loads
value = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([[1], None], object), "c": np.int8(3)}
value |= {"d": [np.array(["a", "bc"]), {1}, (2.5, b"x")], "e": bytearray(b"y")}
random.seed(int(sys.argv[1]))
refused = 0
for count in range(int(sys.argv[2])):
    data = bytearray(pickle.dumps(value, count % 6))
    for _ in range(random.choice((1, 1, 2, 5))):
        data[random.randrange(len(data))] = random.choice((random.randrange(256), *b"0.(bRtdu}]"))
    try:
        repr(loads(bytes(data), "x"))
    except InputError:
        refused += 1
print(refused)
"""


@pytest.mark.parametrize("count", [1000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_changed_bytes_are_another_value_or_refused(count: int) -> None:
    ended = in_process("-c", FUZZED, count, count)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert count / 4 < int(ended.stdout) < count
