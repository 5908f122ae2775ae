"""Samples for training: one endless global sequence, of which each rank takes its slice.

The sequence is a function of (data sets, seed, order), see `sequence.py`; the only state is the
position. Position P lies in epoch P div N for N images, and every epoch visits every image once.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from resource import RUSAGE_SELF, getrusage
from typing import Any, NamedTuple, Self

import numpy as np

from semvlp.errors import ConfigError, InputError
from semvlp.shards.batch import (
    Batch,
    Columns,
    Damage,
    StoredSample,
    Visit,
    VisitHeader,
    concatenate,
    empty_columns,
)
from semvlp.shards.dataset.plan import differences
from semvlp.shards.stores.store import Store
from semvlp.shards.stream.dataset import ConcatStores, VisitKind
from semvlp.shards.stream.order import draw
from semvlp.shards.stream.sequence import Mixture, Numbers, Order

__all__ = ["Order", "Stream", "Visit", "VisitKind"]

STATE_VERSION = 1
BLOCK_SHARDS = 16


class Stream:
    """This rank's slices of the global batches [P, P + batch_size) of one or several stores.

    Batches cross the end of an epoch, so every batch is full and no image is dropped or repeated.
    Without `weights` the stores are one data set. With a weight for each store every one has epochs
    of its own, and each 4,096 positions hold exactly its share of each. Without `negatives` no text
    of another image is read, and each visit has empty ones. With `skip_damaged` a batch is without
    the visits of samples that cannot be read, and tells of them; nothing takes their place.

    Raises:
        ConfigError: `batch_size` does not divide among the ranks, or another setting is illegal.
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
        block_shards: int = BLOCK_SHARDS,
        visit: VisitKind = "images",
        weights: Sequence[float] | None = None,
        negatives: bool = True,
        skip_damaged: bool = False,
    ) -> None:
        _check_split(batch_size, rank, world_size)
        _check_alike(stores)
        if position < 0:
            raise ConfigError(f"position must be 0 or more, got {position}")
        if weights is not None and len(weights) != len(stores):
            raise ConfigError(
                f"one weight a data set is needed: {len(stores)} data sets, {len(weights)} weights"
            )
        settings: dict[str, Any] = {"order": order, "block_shards": block_shards, "visit": visit}
        if weights is None:
            self._datasets = [ConcatStores(stores, seed=seed, **settings)]
            self._mixture = None
        else:
            self._datasets = [
                ConcatStores([store], seed=draw(seed, number, "source"), **settings)
                for number, store in enumerate(stores)
            ]
            self._mixture = Mixture(weights, seed=seed)
        self._stores, self._negatives, self._skip_damaged = stores, negatives, skip_damaged
        self._rank, self._world_size = rank, world_size
        self.batch_size = batch_size
        """Visits of a batch, over all ranks."""
        self._identity = {
            "seed": seed,
            "order": order,
            "dataset": _fingerprint(stores),
            **({"block_shards": block_shards} if order == "block" else {}),
            **({"visit": visit} if visit != "images" else {}),
            **({"weights": list(weights)} if weights is not None else {}),
        }
        self._blocks_read = -1
        self._ahead: tuple[int, list[_Scheduled]] = (-1, [])
        self.position = position

    def __len__(self) -> int:
        """Count the positions of one epoch of every data set, over all ranks."""
        return sum(len(dataset.epochs) for dataset in self._datasets)

    @property
    def most_rows(self) -> int:
        """Regions of this rank's slice of a batch at most; 1 or more."""
        most = max(len(store.manifest.regions_histogram) for store in self._stores) - 1
        return max(self.batch_size // self._world_size * most, 1)

    @property
    def feature_size(self) -> int:
        """Width of a region feature."""
        return self._stores[0].manifest.feature_size

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[Visit]:
        visits = self.read(self.position).visits()
        self.skip()
        return visits

    def skip(self, batches: int = 1) -> None:
        """Count the next batches as taken."""
        self.position += batches * self.batch_size

    def read(self, position: int, out: Columns | None = None) -> Batch:
        """Read this rank's slice of the batch at `position`, its rows copied into `out`.

        The stores are told what it and the batch behind it need. Without `out`, room is made.

        Raises:
            InputError: a sample is damaged, and damaged ones are not skipped.
        """
        if self._ahead[0] != position:
            self._prefetch(position)
        scheduled = self._ahead[1]
        self._prefetch(position + self.batch_size)
        whole: list[_Scheduled] = []
        damaged: list[Damage] = []
        with ExitStack() as stack:
            members = zip(scheduled, self._members(scheduled, stack), strict=True)
            samples: Iterable[StoredSample] = self._whole(members, whole, damaged)
            if out is None:
                samples = list(samples)
                out = empty_columns(sum(sample[2].rows for sample in samples), self.feature_size)
            columns, lengths, texts = concatenate(samples, out)
        others = self._other_entries(whole)
        damaged += [other for other in others if isinstance(other, Damage)]
        if damaged and not self._skip_damaged:
            raise InputError(damaged[0].reason)
        headers = [
            VisitHeader(v.position, v.epoch, v.text, text, None if isinstance(o, Damage) else o)
            for v, text, o in zip(whole, texts, others, strict=True)
        ]
        return Batch(headers=headers, lengths=lengths, columns=columns, damaged=damaged)

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the batches handed out so far; the same on every rank."""
        return {"version": STATE_VERSION, "position": self.position, **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; the number of ranks and the batch size may differ.

        Raises:
            ConfigError: the state belongs to another sequence; names what differs.
        """
        ours = self.state_dict()
        for name in [*ours, *(name for name in state if name not in ours)]:
            if name != "position" and state.get(name) != ours.get(name):
                raise ConfigError(
                    f"to go on in the same order, {name} must be {state.get(name)!r} as in the "
                    f"saved state, but it is {ours.get(name)!r}; restore it, or start a new run"
                )
        self.position = int(state["position"])

    def _schedule(self, position: int) -> list["_Scheduled"]:
        """Return this rank's slice of the batch at `position`."""
        share = self.batch_size // self._world_size
        positions = position + self._rank * share + np.arange(share)
        if self._mixture is None:
            return self._schedule_of(0, positions, positions)
        numbers, own = self._mixture.at(positions)
        scheduled = [
            self._schedule_of(number, positions[numbers == number], own[numbers == number])
            for number in np.unique(numbers).tolist()
        ]
        return sorted(chain.from_iterable(scheduled))

    def _schedule_of(self, number: int, positions: Numbers, own: Numbers) -> list["_Scheduled"]:
        """Return the visits of one data set; `own` are the positions in its epochs."""
        dataset = self._datasets[number]
        other = dataset.other if self._negatives else lambda index, position: index
        epochs, indices, texts = dataset.epochs.at(own)
        named = [None] * len(own) if texts is None else texts.tolist()
        return [
            _Scheduled(position, number, epoch, index, text, other(index, position))
            for position, epoch, index, text in zip(
                positions.tolist(), epochs.tolist(), indices.tolist(), named, strict=True
            )
        ]

    @staticmethod
    def _whole(
        members: Iterable[tuple[Any, StoredSample | Damage]],
        whole: list[Any],
        damaged: list[Damage],
    ) -> Iterator[StoredSample]:
        """Give the samples that can be read; list their visits, and the other samples."""
        for visit, sample in members:
            if isinstance(sample, Damage):
                damaged.append(sample)
            else:
                whole.append(visit)
                yield sample

    def _members(
        self, scheduled: Sequence["_Scheduled"], stack: ExitStack
    ) -> Iterator[StoredSample | Damage]:
        members = [
            dataset.members([t.image for t in scheduled if t.dataset == number], stack)
            for number, dataset in enumerate(self._datasets)
        ]
        if len(members) == 1:
            return members[0]
        return (next(members[visit.dataset]) for visit in scheduled)

    def _other_entries(self, scheduled: Sequence["_Scheduled"]) -> list[bytes | Damage | None]:
        """Read the JSON that each negative text is taken from."""
        if not self._negatives:
            return [None] * len(scheduled)
        entries = [
            iter(dataset.entries([t.other for t in scheduled if t.dataset == number]))
            for number, dataset in enumerate(self._datasets)
        ]
        return [next(entries[visit.dataset]) for visit in scheduled]

    def _prefetch(self, position: int) -> None:
        """Tell the stores what the batch at `position` needs, while the disk is read."""
        blocks = getrusage(RUSAGE_SELF).ru_inblock
        self._ahead = position, self._schedule(position)
        if blocks == self._blocks_read:
            return
        self._blocks_read = blocks
        for number, dataset in enumerate(self._datasets):
            own = [visit for visit in self._ahead[1] if visit.dataset == number]
            others = [visit.other for visit in own] if self._negatives else []
            dataset.prefetch([visit.image for visit in own], others)


class _Scheduled(NamedTuple):
    """The visit of one position, before it is read."""

    position: int
    dataset: int
    epoch: int
    image: int
    text: int | None
    other: int
    """The image whose texts are not about this one."""


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
                details = "; ".join(differences(first.extractor, other.extractor)) or "its entries"
                raise InputError(
                    f"all shards must come from one extractor, but {name} differs between "
                    f"{stores[0].path} (profile {first.profile}) and {store.path} (profile "
                    f"{other.profile}): {details}; extract both with the same detector and preset"
                )


def _fingerprint(stores: Sequence[Store]) -> str:
    """Hash what the sequence runs over: profiles, images, texts; tar and LMDB are equal."""
    digest = hashlib.blake2b(digest_size=16)
    for store in stores:
        counts = store.manifest.counts
        told = f"{store.manifest.profile}/{counts['captions']}/{counts['questions']}"
        digest.update(told.encode())
        digest.update(store.image_ids.sha256.encode())
    return digest.hexdigest()
