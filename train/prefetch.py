"""The next step is read while this one is computed."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch

from semvlp.train.step import Part

CPU = torch.device("cpu")


class Source(Protocol):
    """Endless steps of one rank, at a place that can be stored."""

    def next_step(self) -> Sequence[Part]:
        """The parts of the next step."""

    def state_dict(self) -> Mapping[str, Any]:
        """Where the source stands after the steps handed out so far."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; an empty state is the beginning."""


class Ready(NamedTuple):
    """One step's parts, and where the source stood right after them."""

    parts: Sequence[Part]
    state: Mapping[str, Any]


@contextmanager
def prefetched(source: Source, device: torch.device = CPU) -> Iterator[Iterator[Ready]]:
    """The steps of a source for `device`, always one read ahead by a thread of its own.

    An error of the source is raised where its step is taken.
    """

    def read() -> Ready:
        return Ready(source.next_step(), source.state_dict())

    def ahead(pool: ThreadPoolExecutor) -> Iterator[Ready]:
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
