"""One data set of a stream: its stores put one after another, and the order of its epochs."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal

import numpy as np

from semvlp.errors import InputError
from semvlp.shards.batch import Damage, StoredSample
from semvlp.shards.codec import blob_layout
from semvlp.shards.stores.store import Store
from semvlp.shards.stream.order import draw
from semvlp.shards.stream.sequence import WINDOW, Epochs, ImageEpochs, Order, PairEpochs

VisitKind = Literal["images", "pairs"]
"""An epoch visits every image once with all its texts, or every text of every image once."""


class ConcatStores:
    """The images of some stores by one index.

    Raises:
        InputError: there are no two different images.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        *,
        seed: int,
        order: Order,
        block_shards: int,
        visit: VisitKind,
    ) -> None:
        self._stores, self._seed, self._visit = stores, seed, visit
        self._ends = list(accumulate(map(len, stores)))
        self._check_different()
        sizes = [size for store in stores for size in store.shard_sizes]
        images = ImageEpochs(sizes, seed=seed, order=order, block_shards=block_shards)
        self.epochs: Epochs = images
        if visit == "pairs":
            counts = np.concatenate([np.array(store.text_counts()) for store in stores])
            self.epochs = PairEpochs(images, counts, seed=seed)
        self._keep()

    def __len__(self) -> int:
        """Count the images."""
        return self._ends[-1] if self._ends else 0

    def image_id(self, index: int) -> str:
        """Return the id of an image."""
        store, local = self._locate(index)
        return store.image_ids[local]

    def other(self, index: int, position: int) -> int:
        """Draw another image by the position alone: the batch and the rank play no part."""
        step = 1 + draw(self._seed, position, "negative") % (len(self) - 1)
        other = (index + step) % len(self)
        # Two stores may both hold the image; the next one that differs is taken.
        while len(self._stores) > 1 and self.image_id(other) == self.image_id(index):
            other = (other + 1) % len(self)
        return other

    def entries(self, indices: Sequence[int]) -> list[bytes | Damage]:
        """Read the JSON of images, or tell what is wrong with it."""
        entries = {
            number: iter(self._stores[number].entries(own)) for number, own in self._groups(indices)
        }
        return [next(entries[self._number(index)]) for index in indices]

    def members(self, indices: Sequence[int], stack: ExitStack) -> Iterator[StoredSample | Damage]:
        """Read the members of images, which last as long as `stack`, or tell what is wrong.

        Where pairs are visited they are kept, so that an image is read once for all its texts.
        """
        if self._visit == "pairs":
            return map(self._kept, indices)
        views = {
            number: stack.enter_context(self._stores[number].view(own))
            for number, own in self._groups(indices)
        }
        if len(self._stores) == 1:
            return views[0]
        return (next(views[self._number(index)]) for index in indices)

    def prefetch(self, samples: Sequence[int], entries: Sequence[int]) -> None:
        """Tell the stores what is read soon: whole images, and JSON alone."""
        for number, own in self._groups(samples):
            self._stores[number].prefetch(own, [])
        for number, own in self._groups(entries):
            self._stores[number].prefetch([], own)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._keep()

    def _keep(self) -> None:
        self._kept = lru_cache(maxsize=WINDOW)(self._read)

    def _read(self, index: int) -> StoredSample | Damage:
        store, local = self._locate(index)
        try:
            text, blob = store.members(local)
        except InputError as error:
            return store.damage_of(local, error)
        return text, blob, blob_layout(blob)

    def _number(self, index: int) -> int:
        """Return the number of the store that holds an image."""
        return bisect_right(self._ends, index)

    def _locate(self, index: int) -> tuple[Store, int]:
        number = self._number(index)
        return self._stores[number], index - (self._ends[number - 1] if number else 0)

    def _groups(self, indices: Sequence[int]) -> Iterable[tuple[int, Sequence[int]]]:
        """Return the stores that hold some of the images, and the indices in each, in order."""
        if len(self._stores) == 1:
            return [(0, indices)]
        groups: dict[int, list[int]] = {}
        for index in indices:
            number = self._number(index)
            groups.setdefault(number, []).append(index - (self._ends[number - 1] if number else 0))
        return groups.items()

    def _check_different(self) -> None:
        if all(self.image_id(index) == self.image_id(0) for index in range(len(self))):
            raise InputError(
                "at least two different images are needed, one to tell apart from the other; "
                f"{', '.join(str(store.path) for store in self._stores) or 'no store'} "
                f"holds {len(self)}"
            )
