"""The images of a community data set, decoded and encoded one by one: on all cores if that pays."""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError, SemVLPError
from semvlp.shards.codec import encode
from semvlp.shards.formats.raw import RawRegions, to_regions
from semvlp.shards.formats.source import Source
from semvlp.shards.plan import Plan, check_fits
from semvlp.shards.record import Sample

SMALLEST_PARALLEL = 1000
"""Images from which on it pays to start processes."""
AHEAD = 16
"""Images that each process is given before its results are asked for: enough work for the time in
which what was written is synced."""

Encoded = tuple[bytes, bytes]
"""The two members of a sample."""


def encoded_images(
    opened: Source, wanted: Sequence[str], plan: Plan
) -> Iterator[tuple[str, Encoded | InputError]]:
    """The members of each image in its turn, fit for the plan, or why there are none.

    Raises:
        SemVLPError: a process that decodes was ended from outside.
    """
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    # A process needs no list of images, and would be sent it.
    plan = replace(plan, image_ids=())
    if opened.task is None or workers == 1 or len(wanted) < SMALLEST_PARALLEL:
        for image_id in wanted:
            yield image_id, _encoded(partial(opened.read, image_id), image_id, plan)
        return
    waiting: deque[tuple[str, Future[Encoded | InputError]]] = deque()
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(plan,)) as pool:
        try:
            for image_id in wanted:
                future = pool.submit(_encoded_aside, opened.task(image_id), image_id)
                waiting.append((image_id, future))
                if len(waiting) > AHEAD * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
        except BrokenProcessPool as error:
            raise SemVLPError(
                "a process that decodes images was ended from outside, perhaps for lack of "
                "memory; the same command goes on where this one stopped"
            ) from error


def _encoded(read: Callable[[], RawRegions], image_id: str, plan: Plan) -> Encoded | InputError:
    """An error is a value here: it is to come in the turn of its image."""
    try:
        regions = to_regions(read(), image_id, plan.profile, feature_size=plan.feature_size)
        sample = Sample(key=image_id, regions=regions)
        check_fits(sample, plan)
        return encode(sample)
    except InputError as error:
        return error


def _begin(plan: Plan) -> None:
    """What a process that decodes needs to know; PyTorch is slow to import, so it is done here."""
    global _plan
    import torch

    torch.set_num_threads(1)
    # Decoded arrays are views of bytes; they are only read.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    _plan = plan


def _encoded_aside(read: Callable[[], RawRegions], image_id: str) -> Encoded | InputError:
    def with_half_features() -> RawRegions:
        raw = read()
        return replace(raw, features=half(raw.features))

    return _encoded(with_half_features, image_id, _plan)


def half(features: NDArray[Any]) -> NDArray[np.float16]:
    """The bits of `features.astype(np.float16)` in a twentieth of the time."""
    import torch

    result: NDArray[np.float16] = torch.from_numpy(features).half().numpy()
    return result


_plan: Plan
