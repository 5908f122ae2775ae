"""What becomes of each image: decoded and detected ahead in threads, its regions selected.

An image that fails is its own outcome and touches no neighbour; a detector that fails on
everything is an error and makes no outcomes.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError, SemVLPError
from semvlp.extract.ahead import ahead
from semvlp.extract.detector import Detector, Proposals
from semvlp.extract.images import ImageFile, Refused, load
from semvlp.shards.record import Regions

Pixels = NDArray[np.uint8]
# What one image may raise in a network; anything else is a defect and stops the run.
_FAILURES = (InputError, RuntimeError, ValueError, ArithmeticError, IndexError)
# So many failures in a row mean that the detector is broken, not the images.
_BROKEN_AT_START = 8
_BROKEN_LATER = 64


class Choose(Protocol):
    """`select` with everything but the image filled in."""

    def __call__(self, proposals: Proposals, *, image_id: str) -> Regions: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image: its regions, or why there are none."""

    file: ImageFile
    result: Regions | Exception

    @property
    def reason(self) -> str:
        """Why there are no regions; empty where there are."""
        if isinstance(self.result, Regions):
            return ""
        if isinstance(self.result, Refused | SemVLPError):
            return str(self.result)
        return f"the detector failed: {type(self.result).__name__}: {self.result}"

    @property
    def failed(self) -> bool:
        """The image was decoded, but the detector or the selection failed."""
        return not isinstance(self.result, Regions | Refused)


def outcomes(
    files: Iterable[ImageFile],
    detector: Detector,
    choose: Choose,
    *,
    batch_size: int,
    workers: int,
) -> Generator[Outcome, None, None]:
    """The outcome of each file, in order; a few images more than two batches are in memory at once.

    Threads decode and one detects, while this one selects and its caller writes.
    """
    with ThreadPoolExecutor(workers, "decode") as pool:
        decoded = _decode(files, pool, ahead=batch_size + workers)
        with closing(ahead(_found(decoded, detector, batch_size), most=batch_size)) as found:
            for file, result in found:
                yield Outcome(file, _choose(result, file, choose))


def proven(found: Iterable[Outcome], *, batch_size: int, worked: bool) -> Iterator[Outcome]:
    """The outcomes, failures only once a later image shows that the detector works.

    Otherwise a broken detector would refuse every image for good. `worked` says that it has worked
    in an earlier run.

    Raises:
        SemVLPError: failures in a row, more than bad images explain, or nothing but failures.
    """
    held: list[Outcome] = []
    failures = 0
    limit = _BROKEN_LATER if worked else max(_BROKEN_AT_START, batch_size)
    for outcome in found:
        held.append(outcome)
        failures += outcome.failed
        if isinstance(outcome.result, Regions):
            worked, limit, failures = True, _BROKEN_LATER, 0
        if failures >= limit:
            raise _broken(held)
        if not failures:
            yield from held
            held.clear()
    if failures and not worked:
        raise _broken(held)
    yield from held


def _decode(
    files: Iterable[ImageFile], pool: ThreadPoolExecutor, *, ahead: int
) -> Iterator[tuple[ImageFile, Pixels | Refused]]:
    """Decoded images in order; at most `ahead` of them wait."""
    waiting: deque[tuple[ImageFile, Future[Pixels | Refused]]] = deque()
    for file in files:
        waiting.append((file, pool.submit(_load, file)))
        if len(waiting) > ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _load(file: ImageFile) -> Pixels | Refused:
    try:
        return load(file)
    except Refused as refused:
        return refused


def _found(
    decoded: Iterator[tuple[ImageFile, Pixels | Refused]], detector: Detector, batch_size: int
) -> Iterator[tuple[ImageFile, Proposals | Exception]]:
    """What the detector gives for each image, or why there is nothing."""
    while batch := list(islice(decoded, batch_size)):
        images = [image for _, image in batch if not isinstance(image, Refused)]
        detected = iter(_detect(detector, images))
        for file, image in batch:
            yield file, image if isinstance(image, Refused) else next(detected)


def _detect(detector: Detector, images: Sequence[Pixels]) -> list[Proposals | Exception]:
    """Proposals of each image; if the batch fails, each image on its own."""
    if not images:
        return []
    try:
        found = detector(images)
    except _FAILURES as error:
        if len(images) == 1:
            return [error]
        return [found for image in images for found in _detect(detector, [image])]
    if len(found) != len(images):
        raise SemVLPError(f"the detector gave {len(found)} results for {len(images)} images")
    return list(found)


def _choose(found: Proposals | Exception, file: ImageFile, choose: Choose) -> Regions | Exception:
    if isinstance(found, Exception):
        return found
    try:
        return choose(found, image_id=file.image_id)
    except InputError as error:
        return error


def _broken(held: Sequence[Outcome]) -> SemVLPError:
    failed = [outcome for outcome in held if outcome.failed]
    return SemVLPError(
        f"the detector failed on {len(failed)} images in a row, so it seems to be broken; the "
        f"first is {failed[0].file}: {failed[0].reason}. None of them was refused: mend it and "
        "run the same command again"
    )
