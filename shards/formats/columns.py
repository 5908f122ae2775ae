"""Arrays as base64 text, the columns of the TSV formats and of VOLTA's database."""

import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
import pybase64
from numpy.typing import ArrayLike, DTypeLike, NDArray

from semvlp.errors import InputError
from semvlp.shards.formats.raw import RawRegions


def decode_array(value: Any, kind: DTypeLike, name: str) -> NDArray[Any]:
    """The flat array in a column: base64 text of `kind`, or an array that is taken as it is.

    Raises:
        InputError: damaged base64, or bytes that are no whole number of elements.
    """
    if isinstance(value, np.ndarray):
        return value.reshape(-1)
    try:
        return np.frombuffer(pybase64.b64decode(value, validate=True), kind)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InputError(f"column {name} is damaged: {error}") from error


def encode_array(values: ArrayLike, kind: DTypeLike) -> str:
    """Base64 text of the array in C order, little-endian."""
    return pybase64.b64encode(np.ascontiguousarray(values, np.dtype(kind)).tobytes()).decode()


def decode_number(value: Any, name: str) -> int:
    """A whole number in text, bytes or a number.

    Raises:
        InputError: anything else.
    """
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"column {name} must be a whole number, got {value!r:.40}") from error


def decode_rows(value: Any, kind: DTypeLike, rows: int, name: str) -> NDArray[Any]:
    """Like `decode_array`, shaped [rows, -1].

    Raises:
        InputError: the number of elements does not divide by `rows`.
    """
    flat = decode_array(value, kind, name)
    if rows < 0 or (len(flat) % rows if rows else len(flat)):
        raise InputError(f"column {name} has {len(flat)} numbers, not a multiple of {rows} regions")
    return flat.reshape(rows, len(flat) // rows if rows else 0)


def labelled_regions(columns: Mapping[str, Any]) -> RawRegions:
    """One image from columns named as in LXMERT's files; label columns may be missing.

    Raises:
        InputError: a column is missing or damaged.
    """
    try:
        count = decode_number(columns["num_boxes"], "num_boxes")
        return RawRegions(
            width=decode_number(columns["img_w"], "img_w"),
            height=decode_number(columns["img_h"], "img_h"),
            count=count,
            boxes=decode_rows(columns["boxes"], np.float32, count, "boxes"),
            features=decode_rows(columns["features"], np.float32, count, "features"),
            object_ids=_optional(columns, "objects_id", np.int64),
            object_conf=_optional(columns, "objects_conf", np.float32),
            attribute_ids=_optional(columns, "attrs_id", np.int64),
            attribute_conf=_optional(columns, "attrs_conf", np.float32),
        )
    except KeyError as error:
        raise InputError(f"the column {error} is missing") from error


def _optional(columns: Mapping[str, Any], name: str, kind: DTypeLike) -> NDArray[Any] | None:
    value = columns.get(name)
    return None if value is None else decode_array(value, kind, name)
