"""Samples for training: one endless global sequence, of which each rank takes its slice.

The sequence is a function of (data sets, seed, order), see `order.py`; the only state is the
position. Position P lies in epoch P div N for N images, and every epoch visits every image once.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, Self

from semvlp.errors import ConfigError, InputError
from semvlp.shards import order as orders
from semvlp.shards.hashes import list_sha256
from semvlp.shards.record import Sample, Texts
from semvlp.shards.store import Store

Order = Literal["full", "sequential"]
STATE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One sample in its turn, with the texts of another image to tell it apart from."""

    position: int
    """Place in the global sequence: names the random numbers of this visit."""
    epoch: int
    sample: Sample
    negative: Texts


class Stream:
    """This rank's slices of the global batches [P, P + batch_size) of one or several stores.

    Batches cross the end of an epoch, so every batch is full and no image is dropped or repeated.

    Raises:
        ConfigError: `batch_size` does not divide among the ranks, or rank and position are illegal.
        InputError: no two different images, or stores of different profiles or vocabularies.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        position: int = 0,
        order: Order = "full",
    ) -> None:
        _check_split(batch_size, rank, world_size)
        _check_alike(stores)
        self._stores = stores
        self._ends = list(accumulate(len(store) for store in stores))
        self._seed, self._order = seed, order
        self._batch_size = batch_size
        self._rank, self._world_size = rank, world_size
        self._dataset = _fingerprint(stores)
        self.position = position
        if position < 0:
            raise ConfigError(f"position must be 0 or more, got {position}")
        if all(self._image_id(index) == self._image_id(0) for index in range(len(self))):
            raise InputError(
                "at least two different images are needed, one to tell apart from the other; "
                f"{', '.join(str(store.path) for store in stores) or 'no store'} holds {len(self)}"
            )

    def __len__(self) -> int:
        """Images of one epoch, over all ranks."""
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[Visit]:
        share = self._batch_size // self._world_size
        first = self.position + self._rank * share
        visits = [self._visit(position) for position in range(first, first + share)]
        self.position += self._batch_size
        return visits

    def state_dict(self) -> dict[str, Any]:
        """The state after the batches handed out so far; the same on every rank."""
        return {
            "version": STATE_VERSION,
            "position": self.position,
            "seed": self._seed,
            "order": self._order,
            "dataset": self._dataset,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; the number of ranks and the batch size may differ.

        Raises:
            ConfigError: the state belongs to another sequence; names what differs.
        """
        for name, ours in self.state_dict().items():
            if name != "position" and state.get(name) != ours:
                raise ConfigError(
                    f"to go on in the same order, {name} must be {state.get(name)!r} as in the "
                    f"saved state, but it is {ours!r}; restore it, or start a new run"
                )
        self.position = int(state["position"])

    def _visit(self, position: int) -> Visit:
        epoch, index = self._index_at(position)
        store, local = self._locate(index)
        other_store, other = self._locate(self._negative_of(index, position))
        return Visit(
            position=position,
            epoch=epoch,
            sample=store.sample(local),
            negative=other_store.texts(other),
        )

    def _index_at(self, position: int) -> tuple[int, int]:
        epoch, index = divmod(position, len(self))
        if self._order == "full":
            index = orders.permute(index, len(self), orders.key(self._seed, epoch))
        return epoch, index

    def _negative_of(self, index: int, position: int) -> int:
        """Another image, drawn by the position alone: the batch and the rank play no part."""
        step = 1 + orders.draw(self._seed, position, "negative") % (len(self) - 1)
        other = (index + step) % len(self)
        # Two stores may both hold the image; the next one that differs is taken.
        while self._image_id(other) == self._image_id(index):
            other = (other + 1) % len(self)
        return other

    def _locate(self, index: int) -> tuple[Store, int]:
        number = bisect_right(self._ends, index)
        return self._stores[number], index - (self._ends[number - 1] if number else 0)

    def _image_id(self, index: int) -> str:
        store, local = self._locate(index)
        return store.image_ids[local]


def _check_split(batch_size: int, rank: int, world_size: int) -> None:
    if world_size < 1 or not 0 <= rank < world_size:
        raise ConfigError(f"rank must be in 0..world_size-1, got {rank} of {world_size}")
    if batch_size < 1 or batch_size % world_size:
        below = batch_size // world_size * world_size
        legal = [str(size) for size in (below, below + world_size) if size > 0]
        raise ConfigError(
            f"batch_size must be a positive multiple of the {world_size} ranks, got {batch_size}; "
            f"legal values near it: {', '.join(legal)}"
        )


def _check_alike(stores: Sequence[Store]) -> None:
    for store in stores[1:]:
        first, other = stores[0].manifest, store.manifest
        for name in ("profile", "feature_size", "object_labels", "attribute_labels"):
            if getattr(first, name) != getattr(other, name):
                raise InputError(
                    f"all shards must come from one extractor, but {name} differs: "
                    f"{stores[0].path} has profile {first.profile} {dict(first.extractor)}, "
                    f"{store.path} has profile {other.profile} {dict(other.extractor)}; "
                    "extract both with the same detector and preset"
                )


def _fingerprint(stores: Sequence[Store]) -> str:
    """Hash of what the sequence runs over: profiles, images, texts; equal for tar and LMDB."""
    digest = hashlib.blake2b(digest_size=16)
    for store in stores:
        counts = store.manifest.counts
        digest.update(
            f"{store.manifest.profile}/{counts['captions']}/{counts['questions']}".encode()
        )
        digest.update(list_sha256(store.image_ids).encode())
    return digest.hexdigest()
