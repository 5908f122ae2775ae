"""What pickles of NumPy arrays are built with here: stand-ins that check before NumPy is asked.

NumPy believes what a pickle says of a dtype. One that claims that numbers are objects, or objects
numbers, makes it take bytes of the file for addresses: memory is read and written wherever they
point. So no dtype or array of NumPy is ever within reach of a pickle. A pickle fills stand-ins, and
only what one of NumPy's own pickles can say becomes a dtype or an array.
"""

import math
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import shown

# The functions NumPy pickles its values with, asked of NumPy because their module was renamed.
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_FROM_BUFFER: Any = np.empty(0).__reduce_ex__(5)[0]
_SCALAR: Any = np.float32(0).__reduce__()[0]

KINDS = "biufcSUO"
"""Booleans, numbers, bytes, text and objects: the kinds of array that these files hold."""
_SPEC = re.compile(r"[A-Za-z?][0-9]{0,9}")
_VERSION = 3
"""Of the state of every dtype without metadata, since NumPy 1.2."""


class Forged(pickle.UnpicklingError):
    """A pickle says something of an array that NumPy's own pickles never say."""


class Call:
    """A function that a pickle may call. It has nothing else that a pickle could fill or change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Forged("it changes a function")


class Dtype:
    """The stand-in of a dtype."""

    __slots__ = ("value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, spec: Any, *flags: Any) -> None:
        if not isinstance(spec, str) or not _SPEC.fullmatch(spec):
            raise Forged(f"the dtype {shown(spec, 40)}")
        self.value: np.dtype[Any] = check_kind(np.dtype(spec))

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise Forged(f"the state {shown(state)} of a dtype")
        made = self.value.newbyteorder(state[1])
        # Size, alignment and flags, as NumPy states them for the same kind.
        own = made.__reduce__()[2][2:]
        if state[0] != _VERSION or state[2:] != own:
            raise Forged(f"the state {shown(state)} of the dtype {made}")
        self.value = made


class Array:
    """The stand-in of an array: numbers at once, objects once what they are is known."""

    __slots__ = ("_objects", "_value")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: NDArray[Any] | None = None) -> None:
        self._value = value
        self._objects: tuple[Any, ...] | None = None

    def __setstate__(self, state: Any) -> None:
        if self._value is not None or self._objects is not None:
            raise Forged("an array that is filled twice")
        if not isinstance(state, tuple) or len(state) != 5:
            raise Forged("an array whose state is not version, shape, dtype, order and data")
        _, shape, dtype, order, data = state
        if not isinstance(dtype, Dtype):
            raise Forged(f"an array whose dtype is a {type(dtype).__name__}")
        if dtype.value.hasobject:
            if type(data) is not list or len(data) != count_of(shape):
                raise Forged(f"{_length(data)} objects for the shape {shown(shape)}")
            self._objects = (1, shape, dtype.value, bool(order), data)
        else:
            data = _numbers(data, dtype.value, count_of(shape))
            self._value = _filled((1, shape, dtype.value, bool(order), data))

    def made(self, plain: Callable[[Any], Any]) -> NDArray[Any]:
        """Return the array; `plain` gives what stands for each of its objects."""
        if self._objects is not None:
            (*state, data), self._objects = self._objects, None
            self._value = _filled((*state, plain(data)))
        if self._value is None:
            raise Forged("an array that is never filled, or holds itself")
        return self._value


def check_kind(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a dtype of numbers, text, bytes or objects; others, of several parts too, raise."""
    if dtype.kind not in KINDS or dtype.names or dtype.subdtype or dtype.metadata:
        raise Forged(f"the dtype {dtype!s:.80}, and only numbers, text and objects are read")
    return dtype


def count_of(shape: Any) -> int:
    """Return the number of values an array of this shape has, however many that are."""
    if not isinstance(shape, tuple) or any(type(n) is not int or n < 0 for n in shape):
        raise Forged(f"the shape {shown(shape)}")
    return math.prod(shape)


def check_size(size: int, dtype: np.dtype[Any], count: int) -> None:
    """Raise unless `size` bytes are exactly `count` values."""
    if size != count * dtype.itemsize or (count and not dtype.itemsize):
        raise Forged(f"{size} bytes for {count} values of the dtype {dtype}")


def check_text(data: Any, dtype: np.dtype[Any]) -> None:
    """Raise where the bytes of a text are no characters, of which Python would make no string."""
    if dtype.kind == "U":
        characters = np.frombuffer(data, np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if characters.max(initial=0) > sys.maxunicode:
            raise Forged("a text of what is no character")


def _reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    if kind is not NDARRAY or shape != (0,):
        raise Forged("an array that is not begun as NumPy begins one")
    return Array()


def _frombuffer(buffer: Any, dtype: Any, shape: Any, order: Any, *axes: Any) -> Array:
    if not isinstance(dtype, Dtype) or dtype.value.hasobject:
        raise Forged("a buffer of anything but numbers")
    data = _numbers(buffer, dtype.value, count_of(shape))
    return Array(_FROM_BUFFER(data, dtype.value, shape, order, *axes))


def _scalar(dtype: Any, data: Any = "") -> Any:
    if not isinstance(dtype, Dtype) or dtype.value.hasobject:
        raise Forged("a scalar of anything but numbers")
    return _SCALAR(dtype.value, bytes(_numbers(data, dtype.value, 1, empty=True)))


def _no_call(*arguments: Any) -> None:
    raise Forged("an array that is not begun as NumPy begins one")


def _numbers(data: Any, dtype: np.dtype[Any], count: int, *, empty: bool = False) -> Any:
    """Return the bytes of `count` values; Python 2 wrote them as text of Latin-1.

    Args:
        empty: values of no bytes may be: the scalar of an empty text is one.
    """
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise Forged(f"numbers in a {type(data).__name__}")
    if not (empty and not dtype.itemsize and not data):
        check_size(len(data), dtype, count)
    check_text(data, dtype)
    return data


def _filled(state: tuple[Any, ...]) -> NDArray[Any]:
    array: NDArray[Any] = _RECONSTRUCT(np.ndarray, (0,), b"b")
    array.__setstate__(state)
    return array


def _length(data: Any) -> str:
    return str(len(data)) if isinstance(data, list) else f"a {type(data).__name__} of"


NDARRAY = Call(_no_call)

NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): Call(Dtype),
    **{
        (f"{package}.{module}", name): Call(function)
        for package in ("numpy.core", "numpy._core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}
"""What each name of NumPy's is to a pickle."""


def plain_value(value: Any) -> Any:
    """Return the value with arrays and dtypes of NumPy where stand-ins are, in every container."""
    return _Plain()(value)


class _Plain:
    """Walks through what a pickle has built, each part once however often it is in there."""

    def __init__(self) -> None:
        # With each result its source, so that no other object gets the same id meanwhile.
        self._done: dict[int, tuple[Any, Any]] = {}

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, Array | Dtype | list | tuple | dict):
            return value
        if id(value) in self._done:
            return self._done[id(value)][1]
        if isinstance(value, list | dict):
            # Before its parts, which may hold it.
            self._done[id(value)] = value, value
        made = self._made(value)
        self._done[id(value)] = value, made
        return made

    def _made(self, value: Any) -> Any:
        if isinstance(value, Array):
            return value.made(self)
        if isinstance(value, Dtype):
            return value.value
        if isinstance(value, tuple):
            return tuple(map(self, value))
        if isinstance(value, list):
            value[:] = map(self, value)
            return value
        if isinstance(value, OrderedDict):
            vars(value).clear()  # a pickle may give it attributes, even in place of its methods
        for key, part in dict.items(value):
            value[key] = self(part)
        return value
