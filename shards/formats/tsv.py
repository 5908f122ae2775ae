"""Rows of huge tab-separated files, found by image id after one pass; their base64 columns."""

import binascii
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pybase64
from numpy.typing import ArrayLike, DTypeLike, NDArray

from semvlp.closing import Closing
from semvlp.errors import InputError, shown
from semvlp.shards.formats.community import CommunityDataset, Unreadable
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.record import NO_ATTRIBUTE
from semvlp.shards.texts.image_ids import stem

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
LONG_COLUMN = 1 << 12
LONGEST_ID = 1 << 12
FIRST_ROWS = 16


@dataclass(frozen=True, slots=True)
class RowOffset:
    """The place of a row in its file."""

    path: Path
    start: int
    """In bytes."""
    size: int
    """Bytes of the row, its end of line left out."""


def tsv_files(path: Path, pattern: str = "*.tsv") -> list[Path]:
    """Return the file itself, or the files of a directory in the order of their names.

    Raises:
        InputError: there is none.
    """
    files = sorted(path.glob(pattern)) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise InputError(f"{path}: a TSV file or a directory with {pattern} was expected")
    return files


def rows_dataset(
    files: Sequence[Path], read: Callable[[RowOffset], RawRegions]
) -> CommunityDataset:
    """Make the data set whose images `read` reads of one row each, in other processes too."""
    rows = index_rows(files)
    return CommunityDataset(
        image_ids=tuple(rows.offsets),
        read=lambda image_id: read(rows.offsets[image_id]),
        task=lambda image_id: partial(read, rows.offsets[image_id]),
        file_of=lambda image_id: str(rows.offsets[image_id].path),
        unreadable=rows.unreadable,
        last_rows=rows.last,
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of files."""

    offsets: Mapping[str, RowOffset]
    """By image id, without directory and image extension; of each image the first."""
    unreadable: Mapping[str, Unreadable]
    """Rows that name no image, by their places."""
    last: frozenset[str]
    """Images whose row ends with its file and not with a line."""


def index_rows(files: Sequence[Path]) -> Rows:
    """Find the first row of every image.

    Rows that come again, as after an extraction that was started twice, are counted and left out.
    Bytes of an id that are not UTF-8 are kept as Python keeps those of a file name.
    """
    offsets: dict[str, RowOffset] = {}
    unreadable: dict[str, Unreadable] = {}
    last: set[str] = set()
    again = 0
    for path in files:
        size = path.stat().st_size
        for name, offset in _row_offsets(path):
            if not name:
                reason = f"the row at byte {offset.start} does not begin with an image id"
                unreadable[f"{path.name}:{offset.start}"] = Unreadable(str(path), reason)
                continue
            image_id = stem(name)
            again += image_id in offsets
            offsets.setdefault(image_id, offset)
            if offset.start + offset.size == size:
                last.add(image_id)
    if again:
        log.warning("left out %d rows of images that had come before in %s", again, files[0].parent)
    return Rows(offsets, unreadable, frozenset(last))


def first_row(path: Path) -> list[bytes]:
    """Return the columns of the first row, one empty column where the file is empty."""
    return next(first_rows(path), [b""])


def first_rows(path: Path) -> Iterator[list[bytes]]:
    """Return the columns of the first rows, by which the layout of a file is told.

    The first of all may be damaged.
    """
    with path.open("rb") as file:
        for line in islice(file, FIRST_ROWS):
            if line.strip():
                yield line.rstrip(b"\r\n").split(b"\t")


def read_row(offset: RowOffset) -> list[bytes | memoryview]:
    """Return the columns of a row; long ones are views, as a copy takes longer than the reading."""
    with offset.path.open("rb", buffering=0) as file:
        row = os.pread(file.fileno(), offset.size, offset.start)
    view = memoryview(row)
    end = len(row) - row.endswith(b"\r")
    columns: list[bytes | memoryview] = []
    start = 0
    while start <= end:
        tab = row.find(b"\t", start, end)
        stop = end if tab < 0 else tab
        columns.append(view[start:stop] if stop - start > LONG_COLUMN else row[start:stop])
        start = stop + 1
    return columns


class RowWriter(Closing):
    """Writes rows to a new file and keeps where each starts, in bytes."""

    def __init__(self, path: Path) -> None:
        self.offsets: list[int] = []
        self._file = path.open("wb")

    def write(self, row: Iterable[object]) -> None:
        """Append one row."""
        self.offsets.append(self._file.tell())
        self._file.write("\t".join(map(str, row)).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def write_rows(path: Path, rows: Iterable[Iterable[object]]) -> int:
    """Write a new file of the rows; returns how many."""
    with RowWriter(path) as writer:
        for row in rows:
            writer.write(row)
    return len(writer.offsets)


def labelled_regions(columns: Mapping[str, Any]) -> RawRegions:
    """Read one image from columns named as in LXMERT's files; label columns may be missing.

    Raises:
        InputError: a column is missing or damaged.
    """
    try:
        count = decode_number(columns["num_boxes"], "num_boxes")
        attribute_ids = _optional(columns, "attrs_id", np.int64)
        attribute_conf = _optional(columns, "attrs_conf", np.float32)
        if attribute_ids is not None and attribute_conf is not None:
            # The files have no "none": what is written for it, the first one, has no confidence.
            attribute_ids = np.where(attribute_conf == 0, NO_ATTRIBUTE, attribute_ids)
        return RawRegions(
            width=decode_number(columns["img_w"], "img_w"),
            height=decode_number(columns["img_h"], "img_h"),
            count=count,
            boxes=decode_rows(columns["boxes"], np.float32, count, "boxes"),
            features=decode_rows(columns["features"], np.float32, count, "features"),
            object_ids=_optional(columns, "objects_id", np.int64),
            object_conf=_optional(columns, "objects_conf", np.float32),
            attribute_ids=attribute_ids,
            attribute_conf=attribute_conf,
        )
    except KeyError as error:
        raise InputError(f"the column {error} is missing") from error


def decode_rows(value: Any, kind: DTypeLike, rows: int, name: str) -> NDArray[Any]:
    """Return what `decode_array` does, shaped [rows, -1].

    Raises:
        InputError: the number of elements does not divide by `rows`.
    """
    flat = decode_array(value, kind, name)
    if rows < 0 or (len(flat) % rows if rows else len(flat)):
        raise InputError(f"column {name} has {len(flat)} numbers, not a multiple of {rows} regions")
    return flat.reshape(rows, len(flat) // rows if rows else 0)


def decode_array(value: Any, kind: DTypeLike, name: str) -> NDArray[Any]:
    """Return the flat array of a column: base64 text of `kind`, or an array as it is.

    Raises:
        InputError: damaged base64, or bytes that are no whole number of elements.
    """
    if isinstance(value, np.ndarray):
        return value.reshape(-1)
    try:
        return np.frombuffer(pybase64.b64decode(value, validate=True), kind)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InputError(f"column {name} is damaged: {error}") from error


def decode_number(value: Any, name: str) -> int:
    """Return the whole number in text, bytes or a number.

    Raises:
        InputError: anything else.
    """
    try:
        number = int(value)
        # Text may have blanks around its digits; a number of another kind is cut by `int`.
        if isinstance(value, str | bytes | memoryview) or number == value:
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"column {name} must be a whole number, got {shown(value, 40)}")


def encode_array(values: ArrayLike, kind: DTypeLike) -> str:
    """Return base64 text of the array in C order, little-endian."""
    return pybase64.b64encode(np.ascontiguousarray(values, np.dtype(kind)).tobytes()).decode()


def _row_offsets(path: Path) -> Iterator[tuple[str, RowOffset]]:
    """Return id and offset of every row that is not blank; an empty id where there is none."""
    with path.open("rb", buffering=0) as file:
        start = 0
        for end in _line_ends(file):
            name = os.pread(file.fileno(), min(LONGEST_ID, end - start), start)
            name, tab, _ = name.partition(b"\t")
            endless = not tab and end - start > LONGEST_ID
            if name.strip() or tab:
                image_id = "" if endless else name.strip().decode(errors="surrogateescape")
                yield image_id, RowOffset(path, start, end - start)
            start = end + 1


def _line_ends(file: FileIO) -> Iterator[int]:
    """Tell where each line ends; the last may end with the file. A mapped file is slower here."""
    chunk = bytearray(CHUNK_BYTES)
    size = last = 0
    while count := file.readinto(chunk):
        newline = chunk.find(b"\n", 0, count)
        while newline >= 0:
            last = size + newline + 1
            yield last - 1
            newline = chunk.find(b"\n", newline + 1, count)
        size += count
    if last < size:
        yield size


def _optional(columns: Mapping[str, Any], name: str, kind: DTypeLike) -> NDArray[Any] | None:
    value = columns.get(name)
    return None if value is None else decode_array(value, kind, name)
