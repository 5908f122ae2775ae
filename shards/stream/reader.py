"""A process of its own that reads ahead: it packs batches into memory shared with the trainer.

A thread would not do: beside a busy interpreter it delivers a fiftieth. Requests (position, slot)
go to the reader in the order of the batches, and come back with lengths and texts; the rows lie in
the slot.
"""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Mapping
from multiprocessing import current_process, get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.util import Finalize
from typing import Any, Self

from semvlp.closing import Closing
from semvlp.errors import ConfigError, SemVLPError
from semvlp.shards.batch import Batch, Damage, VisitHeader
from semvlp.shards.stream.ring import Ring
from semvlp.shards.stream.stream import Stream

SLOTS = 3
"""One batch in use, one ready, one in work."""
CLOSE_SECONDS = 5.0
NAME = "semvlp-reader"
UNGUARDED = 64  # EX_USAGE of sysexits.h


def exit_if_reader() -> None:
    """End the reading process where it comes to what only the process it reads for should do.

    It imports the main script, and all of it where that has no `if __name__ == "__main__":`.
    """
    if current_process().name == NAME:
        sys.exit(UNGUARDED)


class Reader(Closing):
    """The batches of a stream, read ahead by a process that starts with the first of them.

    A batch is a view of shared memory and lasts until the next one is taken; the memory is pinned
    where this process uses a GPU, and a copy to it must be complete by then. The position counts
    what was taken, not what was read ahead; see `Stream.state_dict`.

    Raises:
        ConfigError: fewer than two slots.
    """

    def __init__(self, stream: Stream, *, slots: int = SLOTS) -> None:
        exit_if_reader()
        if slots < 2:
            raise ConfigError(f"slots must be 2 or more, one in use and one to fill, got {slots}")
        self._stream, self._slots = stream, slots
        self._worker: _ReaderProcess | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """Take the next batch.

        Raises:
            InputError: a sample of it is damaged, and the stream skips none.
            SemVLPError: the reading process ended.
        """
        if self._worker is None:
            self._worker = _ReaderProcess(self._stream, self._slots)
        try:
            batch = self._worker.take()
        except BaseException:
            self.close()
            raise
        self._stream.skip()
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the batches taken so far; the same on every rank."""
        return self._stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            ConfigError: the state belongs to another sequence; names what differs.
        """
        self._stream.load_state_dict(state)
        self.close()

    def close(self) -> None:
        """End the process; the next batch that is taken starts another."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None


class _ReaderProcess:
    """A running process, and what was asked of it."""

    def __init__(self, stream: Stream, slots: int) -> None:
        self._ring = Ring(slots, stream.most_rows, stream.feature_size)
        self._ring.pin()
        self._columns = [self._ring.columns(slot) for slot in range(slots)]
        self._step, self._position = stream.batch_size, stream.position
        self._free = list(range(slots))
        self._in_use: int | None = None
        self._asked: deque[int] = deque()
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        # A program that ends without `close` waits for its processes: this one would wait too.
        Finalize(self, self._connection.close, exitpriority=0)
        arguments = (stream, self._ring, theirs)
        self._process: SpawnProcess = context.Process(
            target=_serve, args=arguments, name=NAME, daemon=True
        )
        self._process.start()
        theirs.close()

    def take(self) -> Batch:
        if self._in_use is not None:
            self._free.append(self._in_use)
            self._in_use = None
        while self._free:
            slot = self._free.pop()
            self._send(slot)
            self._asked.append(slot)
        headers, lengths, damaged = self._receive()
        slot = self._in_use = self._asked.popleft()
        columns = self._columns[slot]
        rows = sum(lengths)
        used = {name: column[:rows] for name, column in columns.items()}
        return Batch(headers=headers, lengths=lengths, columns=used, damaged=damaged)

    def close(self) -> None:
        self._connection.close()
        self._process.join(CLOSE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self._ring.close()

    def _send(self, slot: int) -> None:
        try:
            self._connection.send((self._position, slot))
        except OSError:
            raise self._death() from None
        self._position += self._step

    def _receive(self) -> tuple[list[VisitHeader], list[int], list[Damage]]:
        wait([self._connection, self._process.sentinel])
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if isinstance(answer, BaseException):
            raise answer
        headers, lengths, damaged = answer
        return headers, lengths, damaged

    def _death(self) -> SemVLPError:
        self._process.join(CLOSE_SECONDS)
        code = self._process.exitcode
        if code == UNGUARDED:
            return SemVLPError(
                'the main script must do its work under `if __name__ == "__main__":`, because the '
                "process that reads the shards imports it, but it began that work again on import"
            )
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return SemVLPError(
            f"the process {self._process.pid} that reads the shards ended {how}; the system may be "
            "out of memory, or a file was cut short while it was read: `semvlp shards verify` tells"
        )


def become_worker() -> None:
    """Make this process one that works for its parent and ends with it, however that ends."""
    # A stop is the trainer's to handle; it ends its helpers when it is done.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _serve(stream: Stream, ring: Ring, connection: Connection) -> None:
    """Fill slots as they are asked for, until the other end is closed."""
    become_worker()
    while True:
        try:
            position, slot = connection.recv()
        except (EOFError, OSError):
            return
        answer = _answer(stream, position, ring, slot)
        try:
            connection.send(answer)
        except OSError:
            return


def _answer(stream: Stream, position: int, ring: Ring, slot: int) -> Any:
    try:
        batch = stream.read(position, ring.columns(slot))
    except SemVLPError as error:
        return error
    except Exception as error:
        return SemVLPError(f"reading the shards failed: {type(error).__name__}: {error}")
    return batch.headers, batch.lengths, batch.damaged


def _end_with_parent() -> None:
    """End with the process this one works for, whatever this one is waiting for."""
    if parent := parent_process():
        parent.join()
    os._exit(1)
