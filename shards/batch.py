"""Many samples in packed rows: one array a column, no padding.

N visits, R regions of all of them, F feature size. Boxes are xyxy in pixels of the original image.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semvlp.shards.codec import Layout, decode_entry, decode_trusted, texts_of
from semvlp.shards.record import TENSORS, Sample, Texts

Columns = dict[str, NDArray[Any]]
"""The array of each field of `Regions` that has a row a region."""
StoredSample = tuple[bytes, bytes | memoryview, Layout]
"""The JSON of a sample, its regions, and where the tensors lie in them."""


class Damage(NamedTuple):
    """A sample that cannot be read, in the place of what was asked for."""

    image_id: str
    store: str
    reason: str
    """What is wrong, with the file and the place in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One sample at its position, with the texts of another image to tell it apart from."""

    position: int
    """Place in the global sequence: names the random numbers of this visit."""
    epoch: int
    """Of the data set that the sample is of."""
    sample: Sample
    negative: Texts
    text: int | None = None
    """Which text of the sample is meant, captions before questions; None where all of them are."""


class VisitHeader(NamedTuple):
    """The part of a visit besides its regions; cheap to send to another process."""

    position: int
    epoch: int
    text: int | None
    sample: bytes
    """JSON of the sample, as it is stored."""
    negative: bytes | None
    """JSON of another image."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Batch:
    """N visits whose regions stand in packed rows."""

    headers: Sequence[VisitHeader]
    lengths: Sequence[int]
    """[N] regions of each visit."""
    columns: Columns
    """Field of `Regions` -> [R, ...]."""
    damaged: Sequence[Damage] = ()
    """What is missing among them, and among their negatives, because it could not be read."""

    def __len__(self) -> int:
        return len(self.headers)

    @property
    def starts(self) -> NDArray[np.int32]:
        """[N + 1] first row of each visit, and the end: `cu_seqlens` of attention kernels."""
        return np.cumsum([0, *self.lengths], dtype=np.int32)

    def visits(self) -> list[Visit]:
        """Return the visits one by one; their arrays are views of the columns."""
        visits, start = [], 0
        for header, length in zip(self.headers, self.lengths, strict=True):
            rows = slice(start, start + length)
            arrays = {name: column[rows] for name, column in self.columns.items()}
            visits.append(
                Visit(
                    position=header.position,
                    epoch=header.epoch,
                    text=header.text,
                    sample=decode_trusted(header.sample, arrays),
                    negative=texts_of(decode_entry(header.negative))
                    if header.negative
                    else Texts(),
                )
            )
            start += length
        return visits


def empty_columns(rows: int, feature_size: int) -> Columns:
    """Make room for that many regions."""
    return {name: np.empty(shape, kind) for name, kind, shape in layout(rows, feature_size)}


def layout(rows: int, feature_size: int) -> list[tuple[str, type[np.generic], tuple[int, ...]]]:
    """Return name, element type and shape of each column."""
    return [
        (name, kind, (rows, *(size or feature_size for size in trailing)))
        for name, (_, kind, trailing) in TENSORS.items()
    ]


def concatenate(
    samples: Iterable[StoredSample], out: Columns
) -> tuple[Columns, list[int], list[bytes]]:
    """Copy the tensors of all samples, one after another, into `out`.

    Returns the rows in use, and the number of regions and the JSON of each sample. Bytes are copied
    rather than arrays, because to make seven arrays takes a tenth of the time that their bytes do.
    """
    targets = [column.reshape(-1).view(np.uint8).data for column in out.values()]
    offsets = [0] * len(targets)
    lengths, texts = [], []
    for text, blob, layout in samples:
        texts.append(text)
        lengths.append(layout.rows)
        for number, target in enumerate(targets):
            start = offsets[number]
            offsets[number] = end = start + layout.sizes[number]
            target[start:end] = blob[layout.slices[number]]
    rows = sum(lengths)
    return {name: column[:rows] for name, column in out.items()}, lengths, texts
