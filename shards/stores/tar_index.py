"""Numeric index of samples: where each lies in its shard, and how much it holds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from semvlp.errors import InputError
from semvlp.shards.stores.tar_file import Location, Record

INDEX_NAME = "index.safetensors"
REMEDY = "copy it again, or run the command that made the data set once more"

ROW = np.dtype(
    [
        ("shard", "<i4"),
        ("json_offset", "<i8"),
        ("json_bytes", "<i8"),
        ("json_crc32", "<u4"),
        ("regions_offset", "<i8"),
        ("regions_bytes", "<i8"),
        ("regions", "<i4"),
        ("captions", "<i4"),
        ("questions", "<i4"),
    ]
)
"""One sample; offsets and sizes in bytes, the last three are counts."""


@dataclass(frozen=True, slots=True)
class Index:
    """Rows of dtype ROW and the key of each."""

    keys: tuple[str, ...]
    rows: NDArray[np.void]

    def location(self, row: int) -> Location:
        """Return where a sample lies in its shard."""
        _, json_offset, json_bytes, _, regions_offset, regions_bytes, *_ = self.rows[row].item()
        return Location(self.keys[row], json_offset, json_bytes, regions_offset, regions_bytes)

    def to_bytes(self) -> bytes:
        """Return a safetensors file: one tensor a column, and the keys newline-joined."""
        columns = {name: np.ascontiguousarray(self.rows[name]) for name in ROW.names or ()}
        keys = np.frombuffer("\n".join(self.keys).encode(), np.uint8)
        return save({"keys": keys, **columns})


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
    return Index(tuple(keys), np.array(rows, ROW))


def concatenate(parts: Sequence[Index]) -> Index:
    """Join the indexes of several shards, one after another."""
    keys = tuple(key for part in parts for key in part.keys)
    return Index(keys, np.concatenate([np.empty(0, ROW), *(part.rows for part in parts)]))


def read_index(path: Path) -> Index:
    """Read what `Index.to_bytes` gave.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    try:
        columns = load(path.read_bytes())
        keys = tuple(columns["keys"].tobytes().decode().split("\n")) if columns["keys"].size else ()
        rows = np.empty(len(keys), ROW)
        for name in ROW.names or ():
            rows[name] = columns[name]
    except FileNotFoundError:
        raise InputError(f"{path} is missing; {REMEDY}") from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); {REMEDY}") from error
    return Index(keys, rows)
