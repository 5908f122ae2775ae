"""Pickles and pickled `.npy` of community formats, read without running any code of theirs.

Only NumPy arrays, scalars and plain containers are built; anything else a pickle names is refused
before it is imported.
"""

import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np

from semvlp.errors import InputError

# The functions NumPy pickles its values with, asked of NumPy because their module was renamed.
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_FROM_BUFFER: Any = np.empty(0).__reduce_ex__(5)[0]
_SCALAR: Any = np.float32(0).__reduce__()[0]

PROTOCOL = 3
"""For writing: the readers of these formats were written for Python 3.6."""


def loads(data: bytes | memoryview, name: str) -> Any:
    """Return the value of a pickle of arrays, numbers, text and containers.

    Raises:
        InputError: it is damaged, or names any other class or function.
    """
    try:
        return _Restricted(io.BytesIO(data), encoding="latin1").load()
    except _DAMAGE as error:
        raise InputError(f"{name} is a damaged pickle: {error}") from error


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
        if not kind.hasobject:
            return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, KeyError, EOFError) as error:
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


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    **{
        (f"{package}.{module}", name): function
        for package in ("numpy.core", "numpy._core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _RECONSTRUCT),
            ("multiarray", "scalar", _SCALAR),
            ("numeric", "_frombuffer", _FROM_BUFFER),
        )
    },
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (set, frozenset, bytearray, complex)
    },
}

# What the C unpickler raises on bytes that are no pickle, or not of these values.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    MemoryError,
)


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, and only NumPy arrays and plain containers are read"
            ) from None
