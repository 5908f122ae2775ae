"""The steps of pre-training: visits that a process reads ahead, made into parts.

Parts are made of the row numbers of regions, so their features, nearly all of the data, are copied
once as they are stored and touched by nobody until they are on the device. What is left is small
enough to be done by other processes, several steps at once.
"""

import os
import pickle
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from semvlp.closing import Closing
from semvlp.errors import SemVLPError
from semvlp.shards.batch import Batch
from semvlp.shards.stream.reader import Reader, as_helper
from semvlp.train.examples import Examples
from semvlp.train.feature_memory import FeatureMemory
from semvlp.train.objectives import Targets
from semvlp.train.step import Part


class VisitSource(Closing):
    """The steps of one rank; they and their order depend neither on `workers` nor on `pinned`.

    Args:
        workers: processes that make parts, each of another step; 0 makes them in this one.
        pinned: keep features in page-locked memory, from where a GPU copies while it computes.
    """

    def __init__(
        self, reader: Reader, examples: Examples, *, workers: int = 0, pinned: bool = False
    ) -> None:
        self._reader, self._examples = reader, examples
        self._memory = FeatureMemory(pinned=pinned)
        self._pool = _pool(workers, examples) if workers else None
        self._ahead = workers
        self._begun: deque[_Begun] = deque()
        self._state: Mapping[str, Any] = reader.state_dict()

    def next_step(self) -> list[Part]:
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
            parts: Callable[[], list[Part]] = lambda: pickle.loads(made.result())  # noqa: E731
        else:
            parts = partial(self._examples.parts, light.visits())
        self._begun.append(_Begun(parts, features, self._reader.state_dict()))


class _Begun(NamedTuple):
    """A step whose parts are being made."""

    parts: Callable[[], list[Part]]
    features: Tensor
    """[rows, F] float16 of all its regions."""
    state: Mapping[str, Any]
    """Where the reader stood right after it."""


def numbered(batch: Batch) -> Batch:
    """A copy of the batch with the number of each row [R, 1] float32, exact, for its features."""
    columns = {name: column.copy() for name, column in batch.columns.items() if name != "features"}
    rows = np.arange(sum(batch.lengths), dtype=np.float32)[:, None]
    return replace(batch, columns={**columns, "features": rows})


def with_features(part: Part, features: Tensor) -> Part:
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


def _pool(workers: int, examples: Examples) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_begin_work, initargs=(examples, os.getpid())
    )


_examples: list[Examples] = []
"""In a process that makes parts: how."""


def _begin_work(examples: Examples, parent: int) -> None:
    as_helper(parent)
    torch.set_num_threads(1)
    _examples.append(examples)


def _made(batch: Batch) -> bytes:
    """The parts of a step, pickled here: sent as they are, each tensor would be shared memory."""
    return pickle.dumps(_examples[0].parts(batch.visits()), pickle.HIGHEST_PROTOCOL)
