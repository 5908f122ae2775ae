"""Numeric index of samples: where each lies in its shard, and how much it holds."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.shards.keys import Keys
from semvlp.shards.stores.tar_file import Location, Record

INDEX_NAME = "index.safetensors"
REMEDY = "copy it again, or run the command that made the data set once more"

ROW: dict[str, np.dtype[Any]] = {
    "shard": np.dtype("<i4"),
    "json_offset": np.dtype("<i8"),
    "json_bytes": np.dtype("<i8"),
    "json_crc32": np.dtype("<u4"),
    "regions_offset": np.dtype("<i8"),
    "regions_bytes": np.dtype("<i8"),
    "regions": np.dtype("<i4"),
    "captions": np.dtype("<i4"),
    "questions": np.dtype("<i4"),
}
"""One sample; offsets and sizes in bytes, the last three are counts."""
_KEYS = "keys"
_CODES = {"<i8": "I64", "<u4": "U32", "<i4": "I32", "|u1": "U8"}
Column = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """The key of each of N samples, and the columns of ROW, [N] each."""

    keys: Keys
    rows: Mapping[str, Column]

    def location(self, row: int) -> Location:
        """Return where a sample lies in its shard."""
        return Location(
            self.keys[row],
            *(
                int(self.rows[name][row])
                for name in ("json_offset", "json_bytes", "regions_offset", "regions_bytes")
            ),
        )

    def select(self, rows: NDArray[np.int64]) -> "Index":
        """Return the index of some samples."""
        return Index(self.keys.take(rows), {name: self.rows[name][rows] for name in ROW})

    def same(self, other: "Index") -> bool:
        """Tell whether another index says the same."""
        pairs = ((self.rows[name], other.rows[name]) for name in ROW)
        return self.keys == other.keys and all(np.array_equal(*pair) for pair in pairs)

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Return a safetensors file: one tensor a column, and the keys newline-joined."""
        columns = {_KEYS: self.keys.joined(), **self.rows}
        # As safetensors orders them: wide elements first, then unsigned ones, then by name.
        names = sorted(columns, key=lambda name: _rank(name, columns[name]))
        header, end = {}, 0
        for name in names:
            column = columns[name]
            start, end = end, end + column.nbytes
            code, shape = _CODES[column.dtype.str], list(column.shape)
            header[name] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        yield len(text).to_bytes(8, "little") + text
        yield from (np.ascontiguousarray(columns[name]).data for name in names)

    def to_bytes(self) -> bytes:
        """Return the whole of `pieces`."""
        return b"".join(self.pieces())


def _rank(name: str, column: Column) -> tuple[int, bool, str]:
    return -column.dtype.itemsize, column.dtype.kind != "u", name


def index_of(records: Iterable[Record], shard: int) -> Index:
    """Make the index of the samples of one shard; only one sample is in memory at a time."""
    keys, rows = [], []
    for record in records:
        location, sample = record.location, record.sample
        keys.append(location.key)
        rows.append(
            (
                shard,
                location.json_offset,
                location.json_bytes,
                record.json_crc32,
                location.regions_offset,
                location.regions_bytes,
                len(sample.regions),
                len(sample.texts.captions),
                len(sample.texts.questions),
            )
        )
    columns = zip(*rows, strict=True) if rows else ((),) * len(ROW)
    pairs = zip(ROW.items(), columns, strict=True)
    return Index(Keys(keys), {name: np.array(column, kind) for (name, kind), column in pairs})


def concatenate(parts: Iterable[Index], samples: int) -> Index:
    """Join the indexes of several shards, one after another, `samples` in all."""
    columns = {name: np.empty(samples, kind) for name, kind in ROW.items()}

    def filled() -> Iterator[str]:
        end = 0
        for part in parts:
            start, end = end, end + len(part.keys)
            for name, column in columns.items():
                column[start:end] = part.rows[name]
            yield from part.keys

    return Index(Keys(filled()), columns)


def read_index(path: Path) -> Index:
    """Map what `Index.pieces` gave: what is not written to is shared by all who read the file.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    try:
        with safe_open(path, framework="np"):
            pass  # it compares the header with the size of the file
        columns = _mapped(path)
        keys = Keys.split(columns[_KEYS])
        rows = {name: columns[name] for name in ROW}
        for name, kind in ROW.items():
            if rows[name].dtype != kind or rows[name].shape != (len(keys),):
                raise ValueError(f"{name} must be {kind} [{len(keys)}]")
    except FileNotFoundError:
        raise InputError(f"{path} is missing; {REMEDY}") from None
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); {REMEDY}") from error
    return Index(keys, rows)


def _mapped(path: Path) -> dict[str, Column]:
    """Map the tensors of a sound safetensors file; writing to them changes no file."""
    data = np.memmap(path, np.uint8, "c")
    first = 8 + int.from_bytes(data[:8].tobytes(), "little")
    kinds = {code: np.dtype(kind) for kind, code in _CODES.items()}
    columns: dict[str, Column] = {}
    for name, info in from_json(data[8:first].tobytes()).items():
        start, end = (first + offset for offset in info["data_offsets"])
        columns[name] = data[start:end].view(np.ndarray).view(kinds[info["dtype"]])
    return columns
