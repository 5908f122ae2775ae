"""What becomes of each image: prepared, detected and selected ahead in threads.

An image that fails is its own outcome and touches no neighbour; a detector that fails on
everything is an error and makes no outcomes.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from queue import Full, Queue
from threading import Event, Thread
from typing import Protocol, TypeVar

from semvlp.errors import InputError, SemVLPError
from semvlp.extract.batching import passes, windows
from semvlp.extract.detectors.detector import Detector, Proposals
from semvlp.extract.images.find import ImageFile, Refused, load
from semvlp.extract.images.resize import Resized
from semvlp.shards.record import Regions

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


# What one image may raise in a network; anything else is a defect and stops the run.
_FAILURES = (InputError, RuntimeError, ValueError, ArithmeticError, IndexError)
# So many failures in a row mean that the detector is broken, not the images.
_BROKEN_AT_START = 8
_BROKEN_LATER = 64
# Images whose regions, 0.4 MB each, wait while a finished shard is read back and published.
_WAITING = 128


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
    files: Sequence[ImageFile],
    detector: Detector,
    choose: Choose,
    *,
    wanted: Set[str],
    per_shard: int,
    images_per_pass: int,
    workers: int,
) -> Generator[Outcome, None, None]:
    """The outcome of each file of a plan whose id is `wanted`, in order.

    Passes are made of all images of a window, so that those written in an earlier run still stand
    beside the wanted ones. `workers` threads prepare images, one detects and one selects; in memory
    are at most one window of prepared images, two passes and one for each worker.
    """
    every = windows(files, per_shard=per_shard, images_per_pass=images_per_pass)
    todo = [each for each in every if not wanted.isdisjoint(file.image_id for file in each)]
    with ThreadPoolExecutor(workers, "prepare") as pool:
        loaded = chain.from_iterable(todo)
        prepared = _prepared(loaded, detector, pool, ahead=images_per_pass + workers)
        found = _found(todo, prepared, detector, wanted, images_per_pass)
        with closing(ahead(_chosen(found, choose), most=_WAITING)) as ready:
            yield from _ordered((file for file in files if file.image_id in wanted), ready)


def proven(found: Iterable[Outcome], *, images_per_pass: int, worked: bool) -> Iterator[Outcome]:
    """The outcomes, failures only once a later image shows that the detector works.

    Otherwise a broken detector would refuse every image for good. `worked` says that it has worked
    in an earlier run.

    Raises:
        SemVLPError: failures in a row, more than bad images explain, or nothing but failures.
    """
    held: list[Outcome] = []
    failures = 0
    limit = _BROKEN_LATER if worked else max(_BROKEN_AT_START, images_per_pass)
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


def _prepared(
    files: Iterable[ImageFile], detector: Detector, pool: ThreadPoolExecutor, *, ahead: int
) -> Iterator[tuple[ImageFile, Resized | Exception]]:
    """Images ready for the network, in order; at most `ahead` of them wait."""
    waiting: deque[tuple[ImageFile, Future[Resized | Exception]]] = deque()
    for file in files:
        waiting.append((file, pool.submit(_prepare, file, detector)))
        if len(waiting) > ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _prepare(file: ImageFile, detector: Detector) -> Resized | Exception:
    try:
        return detector.prepare(load(file))
    except (Refused, *_FAILURES) as error:
        return error


def _found(
    todo: Iterable[Sequence[ImageFile]],
    prepared: Iterator[tuple[ImageFile, Resized | Exception]],
    detector: Detector,
    wanted: Set[str],
    images_per_pass: int,
) -> Generator[list[tuple[ImageFile, Proposals | Exception]], None, None]:
    """What the detector gives for the wanted images of each pass, or why there is nothing."""
    for window in todo:
        for each in passes(islice(prepared, len(window)), _shape, images_per_pass):
            if wanted.isdisjoint(file.image_id for file, _ in each):
                continue
            results = _detect(detector, [image for _, image in each])
            pairs = zip((file for file, _ in each), results, strict=True)
            yield [pair for pair in pairs if pair[0].image_id in wanted]


def _shape(image: tuple[ImageFile, Resized | Exception]) -> tuple[int, ...]:
    """What images of one pass have in common; those that cannot be used are among themselves."""
    return image[1].pixels.shape if isinstance(image[1], Resized) else ()


def _detect(
    detector: Detector, images: Sequence[Resized | Exception]
) -> list[Proposals | Exception]:
    """Proposals of each image of a pass; if the pass fails, each image on its own."""
    usable = [image for image in images if isinstance(image, Resized)]
    if len(usable) < len(images):
        return [image for image in images if isinstance(image, Exception)]
    try:
        found = detector.detect(usable)
    except _FAILURES as error:
        if len(usable) == 1:
            return [error]
        return [found for image in usable for found in _detect(detector, [image])]
    if len(found) != len(usable):
        raise SemVLPError(f"the detector gave {len(found)} results for {len(usable)} images")
    return list(found)


def _chosen(
    found: Generator[list[tuple[ImageFile, Proposals | Exception]], None, None], choose: Choose
) -> Generator[Outcome, None, None]:
    """The outcomes of one pass after the other, while the next one is detected."""
    with closing(ahead(found, most=1)) as ready:
        for each in ready:
            for file, result in each:
                yield Outcome(file, _choose(result, file, choose))


def _choose(found: Proposals | Exception, file: ImageFile, choose: Choose) -> Regions | Exception:
    if isinstance(found, Exception):
        return found
    try:
        return choose(found, image_id=file.image_id)
    except InputError as error:
        return error


def _ordered(files: Iterable[ImageFile], found: Iterator[Outcome]) -> Iterator[Outcome]:
    """The outcomes of `files` in their order; those of a window may come in any."""
    waiting: dict[str, Outcome] = {}
    for file in files:
        while file.image_id not in waiting:
            outcome = next(found)
            waiting[outcome.file.image_id] = outcome
        yield waiting.pop(file.image_id)


def _broken(held: Sequence[Outcome]) -> SemVLPError:
    failed = [outcome for outcome in held if outcome.failed]
    return SemVLPError(
        f"the detector failed on {len(failed)} images in a row, so it seems to be broken; the "
        f"first is {failed[0].file}: {failed[0].reason}. None of them was refused: mend it and "
        "run the same command again"
    )
