"""The steps of a training, read ahead; for pre-training the visits become micro-batches here.

Micro-batches are made of the row numbers of regions, so their features, nearly all of the data, are
copied once as they are stored and touched by nobody until they are on the device. What is left is
small enough to be done by other processes, several steps at once. The next step is read while this
one is computed, into memory that is used again: new memory costs more than the copying.
"""

import logging
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple, Protocol
from weakref import finalize

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semvlp.closing import Closing
from semvlp.errors import SemVLPError
from semvlp.shards.batch import Batch
from semvlp.shards.stream.reader import Reader, become_worker
from semvlp.train.data.pretraining import IndexedBatch, PretrainingCollator
from semvlp.train.objectives import Targets
from semvlp.train.step import MicroBatch

log = logging.getLogger(__name__)

CPU = torch.device("cpu")
SPARE = 1.25
"""Room for the next steps, which may have more regions."""


class BatchSource(Protocol):
    """Endless steps of one rank, at a place that can be stored."""

    def next_step(self) -> Sequence[MicroBatch]:
        """Return the micro-batches of the next step."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return where the source stands after the steps handed out so far."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; an empty state is the beginning."""


class Prefetched(NamedTuple):
    """One step's micro-batches, and where the source stood right after them."""

    micro_batches: Sequence[MicroBatch]
    state: Mapping[str, Any]


def tell_small(count: int, what: str, batch_size: int) -> None:
    """Warn where a step takes more than the data hold."""
    if count < batch_size:
        log.warning(
            "a step takes %d %s, but the data hold %d, so it sees some of them several times; "
            "train.batch_size may be smaller",
            *(batch_size, what, count),
        )


@contextmanager
def prefetched(source: BatchSource, device: torch.device = CPU) -> Iterator[Iterator[Prefetched]]:
    """Give the steps of a source for `device`, always one read ahead by a thread of its own.

    An error of the source is raised where its step is taken.
    """

    def read() -> Prefetched:
        return Prefetched(source.next_step(), source.state_dict())

    def ahead(pool: ThreadPoolExecutor) -> Iterator[Prefetched]:
        coming = pool.submit(read)
        while True:
            ready = coming.result()
            coming = pool.submit(read)
            yield ready

    with ThreadPoolExecutor(1, "prefetch", initializer=_use, initargs=(device,)) as pool:
        yield ahead(pool)


def _use(device: torch.device) -> None:
    """Let this thread work for a GPU: page-locked memory is of the current one, else the first."""
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)


class PretrainingBatches(Closing):
    """The steps of one rank; they and their order depend neither on `workers` nor on `pinned`.

    Args:
        workers: processes that make micro-batches, each of another step; 0 makes them in this one.
        pinned: keep features in page-locked memory, from where a GPU copies while it computes.
    """

    def __init__(
        self,
        reader: Reader,
        collator: PretrainingCollator,
        *,
        workers: int = 0,
        pinned: bool = False,
    ) -> None:
        self._reader, self._collator = reader, collator
        self._memory = FeatureMemory(pinned=pinned)
        self._pool = _pool(workers, collator) if workers else None
        self._ahead = workers
        self._begun: deque[_Begun] = deque()
        self._state: Mapping[str, Any] = reader.state_dict()

    def next_step(self) -> list[MicroBatch]:
        """Return the micro-batches of the next step of this rank.

        Raises:
            SemVLPError: a process that makes micro-batches ended.
        """
        while len(self._begun) <= self._ahead:
            self._begin()
        step = self._begun.popleft()
        try:
            indexed_batches = step.collated()
        except BrokenProcessPool as error:
            raise SemVLPError(
                f"a process that makes batches ended: {error}; the system may be out of memory: "
                "lower data.workers"
            ) from error
        self._state = step.state
        return [with_features(indexed, step.features) for indexed in indexed_batches]

    def state_dict(self) -> Mapping[str, Any]:
        """Return where the reader stood after the steps handed out so far."""
        return self._state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on there; an empty state is the beginning."""
        self._begun.clear()
        if state:
            self._reader.load_state_dict(state)
        self._state = self._reader.state_dict()

    def close(self) -> None:
        """End the processes."""
        self._begun.clear()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def _begin(self) -> None:
        """Have the micro-batches of one more step made."""
        batch = next(self._reader)
        features = self._memory.copy(batch.columns["features"])
        light = without_features(batch)
        collated: Callable[[], list[IndexedBatch]]
        if self._pool:
            made = self._pool.submit(_collate, light)
            collated = lambda: pickle.loads(made.result())  # noqa: E731
        else:
            collated = partial(self._collator, light)
        self._begun.append(_Begun(collated, features, self._reader.state_dict()))


class _Begun(NamedTuple):
    """A step whose micro-batches are being made."""

    collated: Callable[[], list[IndexedBatch]]
    features: Tensor
    """[rows, F] float16 of all its regions."""
    state: Mapping[str, Any]
    """Where the reader stood right after it."""


def without_features(batch: Batch) -> Batch:
    """Copy a batch, which lasts only until the next one is read, but for its features."""
    columns = {name: column.copy() for name, column in batch.columns.items() if name != "features"}
    return replace(batch, columns=columns)


def with_features(indexed: IndexedBatch, features: Tensor) -> MicroBatch:
    """Return the micro-batch with its rows of the step's `features` [rows, F]."""
    micro_batch, targets = indexed.micro_batch, indexed.micro_batch.targets
    assert isinstance(targets, Targets)
    return replace(
        micro_batch,
        batch=micro_batch.batch.replace(region_features=gather(features, indexed.rows)),
        targets=replace(targets, region_features=gather(features, indexed.target_rows)),
    )


def gather(features: Tensor, rows: Tensor) -> Tensor:
    """Return `features[rows]`, rows [K] int64; rows that lie side by side are not copied."""
    if len(rows) and bool((rows.diff() == 1).all()):
        return features[int(rows[0]) : int(rows[0]) + len(rows)]
    shape = len(rows), features.shape[1]
    gathered = torch.empty(shape, dtype=features.dtype, pin_memory=features.is_pinned())
    return torch.index_select(features, 0, rows, out=gathered)


class FeatureMemory:
    """Copies of features; the memory of one is used again once no tensor refers to it.

    Args:
        pinned: page-locked, of PyTorch's allocator, which does likewise and waits for the GPU too.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._free: deque[NDArray[Any]] = deque()

    def copy(self, features: NDArray[np.float16]) -> Tensor:
        """Return the same features [R, F] in memory of our own."""
        if self._pinned:
            # Not pin_memory(): what the reader lends is page-locked already and is not copied.
            source = torch.from_numpy(features)
            return torch.empty(source.shape, dtype=source.dtype, pin_memory=True).copy_(source)
        room = self._room(features)
        used = room[: len(features)]
        used[:] = features
        # The tensor, and whatever is cut from it, holds `used`.
        finalize(used, self._free.append, room).atexit = False
        return torch.from_numpy(used)

    def _room(self, features: NDArray[np.float16]) -> NDArray[Any]:
        while self._free:
            room = self._free.popleft()
            if len(room) >= len(features):
                return room
        return np.empty((int(len(features) * SPARE), features.shape[1]), features.dtype)


def _pool(workers: int, collator: PretrainingCollator) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_begin_work, initargs=(collator,)
    )


_collators: list[PretrainingCollator] = []
"""In a process that makes micro-batches: its own collator."""


def _begin_work(collator: PretrainingCollator) -> None:
    become_worker()
    torch.set_num_threads(1)
    _collators.append(collator)


def _collate(step: Batch) -> bytes:
    """Pickle the micro-batches here: sent as they are, each tensor would be shared memory."""
    return pickle.dumps(_collators[0](step), pickle.HIGHEST_PROTOCOL)
