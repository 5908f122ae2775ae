"""Pickles and pickled `.npy` of community formats, read without running any code of theirs.

Only NumPy arrays, scalars and plain containers are built; anything else a pickle names is refused
before it is imported. What it says of an array is checked before NumPy is told
(`pickled_arrays.py`).
"""

import io
import pickle
import struct
import tokenize
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from semvlp.errors import InputError
from semvlp.shards.formats.pickled_arrays import (
    NAMES,
    Call,
    check_kind,
    check_size,
    check_text,
    count_of,
    plain_value,
)

PROTOCOL = 3
"""For writing: the readers of these formats were written for Python 3.6."""


class ForeignPickle(InputError):
    """A pickle that holds values of other classes, which may be no fault of it."""


def loads(data: bytes | memoryview, name: str) -> Any:
    """Return the value of a pickle of arrays, numbers, text and containers.

    Raises:
        ForeignPickle: it names any other class or function.
        InputError: it is damaged, or says of an array what NumPy never says.
    """
    try:
        return plain_value(_Restricted(io.BytesIO(data), encoding="latin1").load())
    except _Foreign as error:
        raise ForeignPickle(f"{name} cannot be read: {error}") from error
    except _DAMAGE as error:
        raise InputError(f"{name} is a damaged pickle: {error or type(error).__name__}") from error


def dumps(value: Any) -> bytes:
    """Pickle arrays, numbers, text and containers so that old NumPy versions read them too."""
    data = pickle.dumps(value, PROTOCOL)
    # NumPy 2 renamed `numpy.core`; it still reads the old name, older versions only know that.
    return data.replace(b"cnumpy._core.", b"cnumpy.core.")


def load_npy(data: bytes, name: str) -> Any:
    """Return the array of an `.npy` file, or the object itself where it is a single pickled one.

    Raises:
        InputError: the file is damaged, or `loads` refuses its pickle.
    """
    stream = io.BytesIO(data)
    try:
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, _, kind = readers[np.lib.format.read_magic(stream)](stream)
        count = count_of(shape)
        if not check_kind(kind).hasobject:
            # Before NumPy makes room for what the header announces.
            check_size(len(data) - stream.tell(), kind, count)
            check_text(data[stream.tell() :], kind)
            return np.load(io.BytesIO(data), allow_pickle=False)
    except (*_DAMAGE, SyntaxError, tokenize.TokenError) as error:
        raise InputError(f"{name} is a damaged .npy file: {error}") from error
    array = loads(data[stream.tell() :], name)
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name} must hold an array, got {type(array).__name__}")
    return array.item() if shape == () else array


def dump_npy(value: Any) -> bytes:
    """Return an `.npy` file of an array, or of any other value as one pickled object."""
    stream = io.BytesIO()
    if isinstance(value, np.ndarray):
        np.save(stream, value, allow_pickle=False)
        return stream.getvalue()
    array = np.empty((), object)
    array[()] = value
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
    return stream.getvalue() + dumps(array)


def _encode(text: str, encoding: str) -> bytes:
    """Encode as Python 2 pickles bytes; any other codec could unpack to anything."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _bytearray(data: Any = b"", encoding: str = "latin1") -> bytearray:
    """Make a bytearray of bytes; of a number it would be that many zeros."""
    if isinstance(data, str):
        data = _encode(data, encoding.replace("-", ""))
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError(f"a bytearray of a {type(data).__name__}")
    return bytearray(data)


def _set(values: Any = ()) -> set[Any]:
    return set(map(_plain_key, values))


def _ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((_plain_key(key), value) for key, value in pairs)


def _plain_key(key: Any) -> Any:
    """Return a key of a dictionary or a member of a set, if it is plain or a tuple of plain ones.

    Tuples of one tuple twice, and so on, take twice the time to be hashed for each level.
    """
    for part in key if type(key) is tuple else (key,):
        if not isinstance(part, str | bytes | int | float | complex | np.generic | None):
            raise pickle.UnpicklingError(f"a key that holds a {type(part).__name__}")
    return key


_ALLOWED: dict[tuple[str, str], Any] = {
    **NAMES,
    ("collections", "OrderedDict"): Call(_ordered),
    ("_codecs", "encode"): Call(_encode),
    **{
        (module, name): Call(function)
        for module in ("builtins", "__builtin__")
        for name, function in (
            ("set", _set),
            ("frozenset", lambda values=(): frozenset(_set(values))),
            ("bytearray", _bytearray),
            ("bytes", lambda: b""),  # the empty ones, which protocol 2 has no word for
            ("complex", complex),
        )
    },
}

# What the unpickler raises on bytes that are no pickle, or not of these values.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    IndexError,
    KeyError,
    NameError,
    BufferError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
)


class _Foreign(Exception):
    """It names what is not read."""


def _checked(opcode: bytes, keys: slice) -> Callable[[Any], None]:
    """Return what an opcode does, done once those of the values at hand are checked as keys."""
    load = pickle._Unpickler.dispatch[opcode[0]]

    def check_and_load(unpickler: Any) -> None:
        for key in unpickler.stack[keys]:
            _plain_key(key)
        load(unpickler)

    return check_and_load


# Of the two unpicklers of Python the one written in Python: the other one makes room for whatever
# number a pickle gives its memo, 64 GB for six bytes. Arrays are one step for either.
class _Restricted(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Foreign(
                f"it names {module}.{name}, and only NumPy arrays and plain containers are read"
            ) from None

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        **{
            opcode[0]: _checked(opcode, keys)
            for opcode, keys in (
                (pickle.DICT, slice(None, None, 2)),
                (pickle.SETITEMS, slice(None, None, 2)),
                (pickle.SETITEM, slice(-2, -1)),
                (pickle.ADDITEMS, slice(None)),
                (pickle.FROZENSET, slice(None)),
            )
        },
    }
