"""The way of each image: prepared, detected and selected, each ahead of the next in threads.

An image that fails is its own result and touches no neighbour; a detector that fails on everything
is an error and makes no results.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
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
from semvlp.extract.images.given import Given
from semvlp.extract.images.resize import Resized
from semvlp.shards.record import Regions

T = TypeVar("T")
# What one image may raise in a network; anything else is a defect and stops the run.
_FAILURES = (InputError, RuntimeError, ValueError, ArithmeticError, IndexError)
# So many failures in a row mean that the detector is broken, not the images.
_BROKEN_AT_START = 8
_BROKEN_LATER = 64
# Images whose regions, 0.4 MB each, wait while a finished shard is read back and published.
_WAITING = 128
# How often a full queue looks whether anyone still wants its items.
_SECONDS = 0.1


class Choose(Protocol):
    """`select` with everything but the image filled in."""

    def __call__(self, proposals: Proposals, *, image_id: str) -> Regions: ...


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The regions of one image, or the reason why there are none."""

    file: ImageFile
    value: Regions | Exception

    @property
    def reason(self) -> str:
        """Say why there are no regions; empty where there are."""
        if isinstance(self.value, Regions):
            return ""
        if isinstance(self.value, Refused | SemVLPError):
            return str(self.value)
        return f"the detector failed: {type(self.value).__name__}: {self.value}"

    @property
    def failed(self) -> bool:
        """Tell whether the image was decoded, but the detector or the selection failed."""
        return not isinstance(self.value, Regions | Refused)


def results(
    files: Sequence[ImageFile],
    detector: Detector,
    choose: Choose,
    *,
    given: Mapping[str, Given],
    wanted: Set[str],
    per_shard: int,
    images_per_pass: int,
    workers: int,
) -> Generator[ImageResult, None, None]:
    """Yield the result of each file of a plan whose id is `wanted`, in order.

    Of an image of `given` boxes these are described; see `Given`.
    Passes are made of all images of a window, so that those written in an earlier run still stand
    beside the wanted ones. `workers` threads prepare images, one detects and one selects; in memory
    are at most one window of prepared images, two passes and one for each worker.
    """
    every = windows(files, per_shard=per_shard, images_per_pass=images_per_pass)
    todo = [each for each in every if not wanted.isdisjoint(file.image_id for file in each)]
    with ThreadPoolExecutor(workers, "prepare") as pool:
        loaded = chain.from_iterable(todo)
        prepared = _prepared(loaded, detector, given, pool, most=images_per_pass + workers)
        detected = _detected(todo, prepared, detector, wanted, images_per_pass)
        with closing(prefetch(_chosen(detected, choose), most=_WAITING)) as ready:
            yield from _ordered((file for file in files if file.image_id in wanted), ready)


def confirm_failures(
    results: Iterable[ImageResult], *, images_per_pass: int, worked: bool
) -> Iterator[ImageResult]:
    """Yield the results, but hold failures back until a later image shows that the detector works.

    Otherwise a broken detector would refuse every image for good. `worked` says that it has worked
    in an earlier run.

    Raises:
        SemVLPError: failures in a row, more than bad images explain, or nothing but failures.
    """
    held: list[ImageResult] = []
    failures = 0
    limit = _BROKEN_LATER if worked else max(_BROKEN_AT_START, images_per_pass)
    for result in results:
        held.append(result)
        failures += result.failed
        if isinstance(result.value, Regions):
            worked, limit, failures = True, _BROKEN_LATER, 0
        if failures >= limit:
            raise _broken(held)
        if not failures:
            yield from held
            held.clear()
    if failures and not worked:
        raise _broken(held)
    yield from held


def _broken(held: Sequence[ImageResult]) -> SemVLPError:
    failed = [result for result in held if result.failed]
    return SemVLPError(
        f"the detector failed on {len(failed)} images in a row, so it seems to be broken; the "
        f"first is {failed[0].file}: {failed[0].reason}. None of them was refused: mend it and "
        "run the same command again"
    )


def _prepared(
    files: Iterable[ImageFile],
    detector: Detector,
    given: Mapping[str, Given],
    pool: ThreadPoolExecutor,
    *,
    most: int,
) -> Iterator[tuple[ImageFile, Resized | Exception]]:
    """Yield images ready for the network, in order; at most `most` of them wait."""

    def prepare(file: ImageFile) -> Resized | Exception:
        try:
            pixels, own = load(file), given.get(file.image_id)
            if own is None:
                return detector.prepare(pixels)
            own = own.inside(*pixels.shape[:2])
            return detector.prepare(pixels)._replace(given=own)
        except (Refused, *_FAILURES) as error:
            return error

    waiting: deque[tuple[ImageFile, Future[Resized | Exception]]] = deque()
    for file in files:
        waiting.append((file, pool.submit(prepare, file)))
        if len(waiting) > most:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _detected(
    todo: Iterable[Sequence[ImageFile]],
    prepared: Iterator[tuple[ImageFile, Resized | Exception]],
    detector: Detector,
    wanted: Set[str],
    images_per_pass: int,
) -> Generator[list[tuple[ImageFile, Proposals | Exception]], None, None]:
    """Yield the proposals of the wanted images of each pass, or why there are none."""
    for window in todo:
        for each in passes(islice(prepared, len(window)), _shape, images_per_pass):
            if wanted.isdisjoint(file.image_id for file, _ in each):
                continue
            proposals = _detect(detector, [image for _, image in each])
            pairs = zip((file for file, _ in each), proposals, strict=True)
            yield [pair for pair in pairs if pair[0].image_id in wanted]


def _shape(image: tuple[ImageFile, Resized | Exception]) -> tuple[int, ...]:
    """Return what images of one pass have in common; those that cannot be used have ()."""
    return image[1].pixels.shape if isinstance(image[1], Resized) else ()


def _detect(
    detector: Detector, images: Sequence[Resized | Exception]
) -> list[Proposals | Exception]:
    """Return the proposals of each image of a pass; if the pass fails, each image on its own."""
    usable = [image for image in images if isinstance(image, Resized)]
    if len(usable) < len(images):
        return [image for image in images if isinstance(image, Exception)]
    try:
        proposals = detector.detect(usable)
    except _FAILURES as error:
        if len(usable) == 1:
            return [error]
        return [alone for image in usable for alone in _detect(detector, [image])]
    if len(proposals) != len(usable):
        raise SemVLPError(f"the detector gave {len(proposals)} results for {len(usable)} images")
    return list(proposals)


def _chosen(
    detected: Generator[list[tuple[ImageFile, Proposals | Exception]], None, None], choose: Choose
) -> Generator[ImageResult, None, None]:
    """Yield the results of one pass after the other, while the next one is detected."""
    with closing(prefetch(detected, most=1)) as ready:
        for file, proposals in chain.from_iterable(ready):
            if isinstance(proposals, Exception):
                yield ImageResult(file, proposals)
                continue
            try:
                regions = choose(proposals, image_id=file.image_id)
            except InputError as error:
                yield ImageResult(file, error)
            else:
                yield ImageResult(file, regions)


def _ordered(files: Iterable[ImageFile], results: Iterator[ImageResult]) -> Iterator[ImageResult]:
    """Yield the results of `files` in their order; those of a window may come in any."""
    waiting: dict[str, ImageResult] = {}
    for file in files:
        while file.image_id not in waiting:
            result = next(results)
            waiting[result.file.image_id] = result
        yield waiting.pop(file.image_id)


def prefetch(source: Iterable[T], *, most: int) -> Generator[T, None, None]:
    """Yield the items of `source` in order, made in a thread of their own; at most `most` wait.

    What `source` raises is raised here, after the items before it. Closed early, it lets the thread
    finish the item in work. The thread closes a `source` that is a generator.
    """
    ready: Queue[T | _End] = Queue(most)
    unwanted = Event()
    thread = Thread(target=_make, args=(source, ready, unwanted), name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        unwanted.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class _End:
    """The sign that nothing more comes."""

    error: BaseException | None = None
    """Why, where it did not end on its own."""


def _make(source: Iterable[T], ready: Queue[T | _End], unwanted: Event) -> None:
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


def _put(item: T | _End, ready: Queue[T | _End], unwanted: Event) -> None:
    while not unwanted.is_set():
        try:
            return ready.put(item, timeout=_SECONDS)
        except Full:
            continue
