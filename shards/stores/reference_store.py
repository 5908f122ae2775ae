"""Texts alone, with the regions of another data set, which are read where they lie."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError
from semvlp.shards.batch import Damage, StoredSample
from semvlp.shards.dataset.manifest import Manifest
from semvlp.shards.keys import Keys
from semvlp.shards.stores.lmdb_store import TEXTS_NAME, Get, LmdbStore
from semvlp.shards.stores.store import Members, Store


class ReferenceStore(LmdbStore):
    """Samples whose JSON lies in `texts.lmdb`, and whose regions lie in the store `base`.

    Regions are compared with the checksum in the JSON here, so a base that changes is noticed.

    Raises:
        InputError: as LmdbStore; `base` has not all of the images, in the same order.
    """

    file_name = TEXTS_NAME

    def __init__(self, path: Path, manifest: Manifest | None, base: Store) -> None:
        super().__init__(path, manifest)
        self._base = base
        self._rows = _rows_in(base.image_ids, self.image_ids)
        """[N] where the images stand in the base."""
        missing = np.flatnonzero(self._rows < 0)[:1].tolist()
        if missing:
            raise InputError(f"{base.path} lacks the image {self.image_ids[missing[0]]} of {path}")

    def __reduce__(self) -> tuple[Any, ...]:
        return ReferenceStore, (self.path, None, self._base)

    @property
    def base(self) -> Store:
        return self._base

    @contextmanager
    def view(self, indices: Sequence[int]) -> Iterator[Iterator[StoredSample | Damage]]:
        with self._values() as get, self._base.view(self._in_base(indices)) as samples:
            yield (
                self._stored(index, partial(self._with_text, get, sample))
                for index, sample in zip(indices, samples, strict=True)
            )

    def prefetch(self, samples: Sequence[int], entries: Sequence[int]) -> None:
        self._base.prefetch(self._in_base(samples), [])

    def close(self) -> None:
        super().close()
        self._base.close()

    def _in_base(self, indices: Sequence[int]) -> list[int]:
        rows: list[int] = self._rows[np.array(indices, np.int64)].tolist()
        return rows

    def _text(self, get: Get, index: int) -> bytes:
        return bytes(get(self.image_ids[index].encode("ascii")))

    def _with_text(self, get: Get, sample: StoredSample | Damage, index: int) -> Members:
        if isinstance(sample, Damage):
            raise InputError(sample.reason)
        return self._text(get, index), sample[1]

    def _read(self, index: int) -> Members:
        return self.entry(index), self._base.members(int(self._rows[index]))[1]

    def _damage(self, index: int, problem: str) -> str:
        return super()._damage(index, f"with the regions of {self._base.path}: {problem}")


def _rows_in(names: Keys, wanted: Keys) -> NDArray[np.int64]:
    """Return where each of some names stands [N], -1 from the first that is not behind the last."""
    if names == wanted:
        return np.arange(len(names))
    places = enumerate(names)
    rows = (next((row for row, name in places if name == own), -1) for own in wanted)
    return np.fromiter(rows, np.int64, len(wanted))
