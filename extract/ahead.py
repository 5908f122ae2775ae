"""Work that goes on in a thread while what it gave is used."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")
# How often a full queue looks whether anyone still wants its items.
_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class _End:
    """Nothing more comes."""

    error: BaseException | None = None
    """Why, where it did not end on its own."""


def ahead(source: Iterable[T], *, most: int) -> Generator[T, None, None]:
    """The items of `source` in order, made in a thread of their own; at most `most` wait.

    What `source` raises is raised here, after the items before it. Closed early, it lets the thread
    finish the item in work. The thread closes a `source` that is a generator.
    """
    ready: Queue[T | _End] = Queue(most)
    unwanted = Event()
    thread = Thread(target=_make, args=(source, ready, unwanted), name="ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        unwanted.set()
        thread.join()


def _make(source: Iterable[T], ready: "Queue[T | _End]", unwanted: Event) -> None:
    end = _End()
    try:
        for item in source:
            _put(item, ready, unwanted)
            if unwanted.is_set():
                return
    except BaseException as error:
        end = _End(error)
    finally:
        if isinstance(source, Generator):
            source.close()
    _put(end, ready, unwanted)


def _put(item: T | _End, ready: "Queue[T | _End]", unwanted: Event) -> None:
    while not unwanted.is_set():
        try:
            return ready.put(item, timeout=_SECONDS)
        except Full:
            continue
