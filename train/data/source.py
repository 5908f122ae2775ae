"""The steps of pre-training: visits that a process reads ahead, made into parts.

Parts are made of the row numbers of regions, so their features, nearly all of the data, are copied
once as they are stored and touched by nobody until they are on the device. What is left is small
enough to be done by other processes, several steps at once. The next step is read while this one is
computed, into memory that is used again: new memory costs more than the copying.
"""

import os
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
from semvlp.train.data.pretraining import PretrainingCollator
from semvlp.train.objectives import Targets
from semvlp.train.step import MicroBatch

SPARE = 1.25
"""Room for the next steps, which may have more regions."""


class FeatureMemory:
    """Copies of features; the memory of one is used again once no tensor refers to it.

    Args:
        pinned: page-locked, of PyTorch's allocator, which does likewise and waits for the GPU too.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._free: deque[NDArray[Any]] = deque()

    def copy(self, features: NDArray[np.float16]) -> Tensor:
        """The same features [R, F] in memory of our own."""
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


class PretrainingBatches(Closing):
    """The steps of one rank; they and their order depend neither on `workers` nor on `pinned`.

    Args:
        workers: processes that make parts, each of another step; 0 makes them in this one.
        pinned: keep features in page-locked memory, from where a GPU copies while it computes.
    """

    def __init__(
        self,
        reader: Reader,
        examples: PretrainingCollator,
        *,
        workers: int = 0,
        pinned: bool = False,
    ) -> None:
        self._reader, self._examples = reader, examples
        self._memory = FeatureMemory(pinned=pinned)
        self._pool = _pool(workers, examples) if workers else None
        self._ahead = workers
        self._begun: deque[_Begun] = deque()
        self._state: Mapping[str, Any] = reader.state_dict()

    def next_step(self) -> list[MicroBatch]:
        """The parts of the next step of this rank.

        Raises:
            SemVLPError: a process that makes parts ended.
        """
        while len(self._begun) <= self._ahead:
            self._begin()
        step = self._begun.popleft()
        try:
            parts = step.parts()
        except BrokenProcessPool as error:
            raise SemVLPError(
                f"a process that makes batches ended: {error}; the system may be out of memory: "
                "lower data.workers"
            ) from error
        self._state = step.state
        return [with_features(part, step.features) for part in parts]

    def state_dict(self) -> Mapping[str, Any]:
        """Where the reader stood after the steps handed out so far."""
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
        """Have the parts of one more step made."""
        batch = next(self._reader)
        features = self._memory.copy(batch.columns["features"])
        light = numbered(batch)
        if self._pool:
            made = self._pool.submit(_made, light)
            parts: Callable[[], list[MicroBatch]] = lambda: pickle.loads(made.result())  # noqa: E731
        else:
            parts = partial(self._examples.parts, light.visits())
        self._begun.append(_Begun(parts, features, self._reader.state_dict()))


class _Begun(NamedTuple):
    """A step whose parts are being made."""

    parts: Callable[[], list[MicroBatch]]
    features: Tensor
    """[rows, F] float16 of all its regions."""
    state: Mapping[str, Any]
    """Where the reader stood right after it."""


def numbered(batch: Batch) -> Batch:
    """A copy of the batch with the number of each row [R, 1] float32, exact, for its features."""
    columns = {name: column.copy() for name, column in batch.columns.items() if name != "features"}
    rows = np.arange(sum(batch.lengths), dtype=np.float32)[:, None]
    return replace(batch, columns={**columns, "features": rows})


def with_features(part: MicroBatch, features: Tensor) -> MicroBatch:
    """The part with rows of `features` [rows, F] where it has their numbers."""
    targets = part.targets
    assert isinstance(targets, Targets)
    batch = part.batch.replace(region_features=_taken(features, part.batch.region_features))
    restored = _taken(features, targets.region_features)
    return replace(part, batch=batch, targets=replace(targets, region_features=restored))


def _taken(features: Tensor, numbers: Tensor) -> Tensor:
    """Rows [K, F] by their numbers [K, 1]; those that lie side by side are not copied."""
    rows = numbers[:, 0].long()
    if len(rows) and bool((rows.diff() == 1).all()):
        return features[int(rows[0]) : int(rows[0]) + len(rows)]
    shape = len(rows), features.shape[1]
    taken = torch.empty(shape, dtype=features.dtype, pin_memory=features.is_pinned())
    return torch.index_select(features, 0, rows, out=taken)


def _pool(workers: int, examples: PretrainingCollator) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_begin_work, initargs=(examples, os.getpid())
    )


_examples: list[PretrainingCollator] = []
"""In a process that makes parts: how."""


def _begin_work(examples: PretrainingCollator, parent: int) -> None:
    become_worker(parent)
    torch.set_num_threads(1)
    _examples.append(examples)


def _made(batch: Batch) -> bytes:
    """The parts of a step, pickled here: sent as they are, each tensor would be shared memory."""
    return pickle.dumps(_examples[0].parts(batch.visits()), pickle.HIGHEST_PROTOCOL)


CPU = torch.device("cpu")


class BatchSource(Protocol):
    """Endless steps of one rank, at a place that can be stored."""

    def next_step(self) -> Sequence[MicroBatch]:
        """The parts of the next step."""

    def state_dict(self) -> Mapping[str, Any]:
        """Where the source stands after the steps handed out so far."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; an empty state is the beginning."""


class Prefetched(NamedTuple):
    """One step's parts, and where the source stood right after them."""

    parts: Sequence[MicroBatch]
    state: Mapping[str, Any]


@contextmanager
def prefetched(source: BatchSource, device: torch.device = CPU) -> Iterator[Iterator[Prefetched]]:
    """The steps of a source for `device`, always one read ahead by a thread of its own.

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
