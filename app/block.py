"""What a search keeps of photographs: a block of them in one file of safetensors.

n photographs, L rows of all of them, D width, m words of labels.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from semvlp.eval.matching.shortlist import SeenWords

FORMAT = "semvlp-kept-rows-1"


class Damaged(Exception):
    """A block is not what it must be; the message is the reason."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The rows and the words of n photographs."""

    rows: Any
    """[L, D] float16: an array, or a part of a file that is read where it is cut."""
    lengths: NDArray[np.int32]
    """[n], rows of each photograph."""
    checksums: NDArray[np.uint32]
    """[n], CRC-32 of these rows, compared whenever they are read."""
    seen: SeenWords
    """The words of the detector's labels."""
    width: int
    """D."""

    @classmethod
    def of(cls, photographs: Sequence[NDArray[np.float16]], seen: SeenWords) -> "Block":
        """Make a block of the rows of each photograph."""
        rows = np.concatenate(photographs)
        return cls(
            rows,
            np.array([len(each) for each in photographs], np.int32),
            np.array([zlib.crc32(each.tobytes()) for each in photographs], np.uint32),
            seen,
            rows.shape[1],
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def photograph(self, place: int) -> NDArray[np.float16]:
        """Return the rows of one photograph.

        Raises:
            Damaged: they are not those that were written.
        """
        start, length = int(self.lengths[:place].sum()), int(self.lengths[place])
        # Of a file nothing empty can be cut.
        none = np.zeros((0, self.width), np.float16)
        rows: NDArray[np.float16] = self.rows[start : start + length] if length else none
        if zlib.crc32(rows.tobytes()) != self.checksums[place]:
            raise Damaged(f"the checksum of the rows of its photograph {place} does not match")
        return rows

    def to_bytes(self, key: str) -> bytes:
        """Return the block as a file; `key` says what it was made of."""
        small = self._small()
        about = {"format": FORMAT, "key": key, "checksum": _checksum(small)}
        data: bytes = save({"rows": self.rows, **small}, metadata=about)
        return data

    @classmethod
    def opened(cls, path: Path, key: str, count: int, width: int) -> "Block":
        """Open a file that holds `count` photographs in rows of `width`; rows stay where they are.

        Raises:
            Damaged: it is no such block, or is of another `key`.
        """
        try:
            with safe_open(path, framework="np") as file:
                about = file.metadata() or {}
                if (about.get("format"), about.get("key")) != (FORMAT, key):
                    raise Damaged("it is of other photographs or of another network")
                small = {name: file.get_tensor(name) for name in _SMALL}
                rows = file.get_slice("rows")
                shape, kind = rows.get_shape(), rows.get_dtype()
        except SafetensorError as error:
            raise Damaged(str(error)) from error
        if about.get("checksum") != _checksum(small):
            raise Damaged("the checksum of its lengths and words does not match")
        lengths = small["lengths"]
        if len(lengths) != count or (shape, kind) != ([int(lengths.sum()), width], "F16"):
            raise Damaged(f"it holds {len(lengths)} photographs in {kind} {shape}")
        seen = SeenWords(*(small[name] for name in _SMALL[2:]))
        return cls(rows, lengths, small["checksums"], seen, width)

    def _small(self) -> dict[str, NDArray[Any]]:
        return dict(zip(_SMALL, (self.lengths, self.checksums, *self.seen), strict=True))


_SMALL = ("lengths", "checksums", *SeenWords._fields)


def _checksum(arrays: dict[str, NDArray[Any]]) -> str:
    return f"{zlib.crc32(b''.join(array.tobytes() for array in arrays.values())):08x}"
