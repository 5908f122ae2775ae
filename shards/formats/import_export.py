"""Community formats into our stores, and our stores into community formats.

Images are decoded and encoded one by one, on all cores if that pays.
"""

import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp import atomic
from semvlp.errors import ConfigError, InputError, SemVLPError, shown
from semvlp.names import StoreFormat
from semvlp.progress import Progress
from semvlp.shards.codec import encode, encode_regions
from semvlp.shards.dataset.manifest import Manifest
from semvlp.shards.dataset.plan import Plan, check_fits
from semvlp.shards.dataset.refusals import CUT
from semvlp.shards.formats.community import CommunityDataset
from semvlp.shards.formats.keyed import under_keys
from semvlp.shards.formats.labels import read_labels
from semvlp.shards.formats.raw import RawRegions, to_regions
from semvlp.shards.formats.table import PARQUET, load_format
from semvlp.shards.open import open_store
from semvlp.shards.record import Regions, Sample
from semvlp.shards.stores.store import Store
from semvlp.shards.texts.parquet_rows import without_pyarrow
from semvlp.shards.writer import Writer, open_writer

SHARD_BYTES = 768_000_000
MOST_SAMPLES_PER_SHARD = 10_000
VOTES = 9
"""Images that tell how wide features are: the first one may be the odd one."""
SMALLEST_PARALLEL = 1000
"""Images from which on it pays to start processes."""
AHEAD = 16
"""Images that each process is given before its results are asked for: enough work for the time in
which what was written is synced."""

Encoded = tuple[bytes, bytes]
"""The two members of a sample."""


def import_format(
    src: Path,
    dst: Path,
    *,
    from_: str,
    to: StoreFormat,
    source: str | None = None,
    labels: Sequence[str] = (),
    overwrite: bool = False,
) -> Manifest:
    """Read a community data set into a new store; started again, it goes on where it stopped.

    One pass over `src` finds the images, a second one reads them one at a time. A record that
    cannot be read, for whatever reason, is one line of refused.jsonl. An image whose name is no
    legal key has one that is made of it, see `key_of`. `source` names the extraction the numbers
    come from: sets of one format and source may be trained on together; by default it is the name
    of `src`. `labels` names the classes that the files only number, see `read_labels`.

    Raises:
        ConfigError: an unknown format, another import was begun at `dst`, or labels for files that
            name their classes.
        InputError: `src` is not of the format, or not one image of it can be read.
    """
    if from_ == PARQUET:
        if source or labels:
            given = "--source" if source else "--labels"
            raise ConfigError(f"{given}: {PARQUET} says itself what its numbers come from")
        manifest: Manifest = _parquet().read_parquet(src, dst, to=to, overwrite=overwrite)
        return manifest
    objects, attributes = read_labels(labels)
    dataset = under_keys(load_format(from_).open(src))
    try:
        if objects and dataset.object_labels:
            raise ConfigError(f"{src} names its classes itself; leave out --labels")
        plan = _plan(dataset, {"format": from_, "source": source or src.name, **dataset.facts}, src)
        named = objects or dataset.object_labels
        plan = replace(plan, object_labels=named, attribute_labels=attributes)
        with open_writer(dst, plan, format=to, overwrite=overwrite) as writer:
            _copy(dataset, writer)
            return writer.finish()
    finally:
        dataset.close()


def export_format(src: Path, dst: Path, *, to: str) -> int:
    """Write the images of a store in a community format; returns how many.

    Raises:
        ConfigError: an unknown format, or `dst` exists.
        InputError: `src` is no store, or damaged.
    """
    _refuse_existing(dst)
    if to == PARQUET:
        written: int = _parquet().write_parquet(src, dst)
        return written
    community = load_format(to)
    with open_store(src) as store:
        atomic.make_directory(dst.parent)
        with atomic.aside(dst) as made:
            images = _images(store, to)
            count = community.write(images, made, object_labels=store.manifest.object_labels)
            # Another process may have been faster.
            _refuse_existing(dst)
    return count


def _parquet() -> ModuleType:
    """Import what pyarrow serves.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from semvlp.shards.formats import parquet
    except ImportError as error:
        raise without_pyarrow(error) from error
    return parquet


def _refuse_existing(dst: Path) -> None:
    """Refuse to replace anything, a link that leads nowhere included."""
    if os.path.lexists(dst):
        raise ConfigError(f"{dst} exists and is not overwritten; remove it or name another place")


def _plan(dataset: CommunityDataset, extractor: dict[str, object], src: Path) -> Plan:
    first = _first_readable(dataset, src)
    sample_bytes = len(encode_regions(first))
    return Plan(
        image_ids=dataset.image_ids,
        extractor=extractor,
        object_labels=dataset.object_labels,
        attribute_labels=(),
        feature_size=first.features.shape[1],
        samples_per_shard=max(1, min(MOST_SAMPLES_PER_SHARD, SHARD_BYTES // sample_bytes)),
    )


def _first_readable(dataset: CommunityDataset, src: Path) -> Regions:
    """Return the first image that is whole, has regions, and features as wide as most have."""
    reason = "it lists no image"
    width = _usual_width(dataset)
    for image_id in dataset.image_ids:
        try:
            with _named_errors():
                raw = dataset.read(image_id)
                if raw.features.shape[1:] == (width,):
                    regions = to_regions(raw, image_id, profile="")
                    if len(regions):
                        return regions
        except InputError as error:
            reason = f"{image_id}: {error}"
    raise InputError(f"{src}: not one image with regions can be read; the last: {reason}")


def _usual_width(dataset: CommunityDataset) -> int:
    """Return the width of features that most of the first images with regions have."""
    widths: Counter[int] = Counter()
    for image_id in dataset.image_ids:
        with suppress(InputError), _named_errors():
            features = dataset.read(image_id).features
            if features.ndim == 2 and len(features):
                widths[features.shape[1]] += 1
        if widths.total() == VOTES:
            break
    return max(widths, key=widths.__getitem__, default=0)


@contextmanager
def _named_errors() -> Iterator[None]:
    """Make an error of any kind that a record causes one that says so.

    The readers know what their formats may hold; for anything else NumPy, the unpacking of a file
    and the arithmetic have errors of their own.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"it cannot be read: {type(error).__name__}: {error}") from error


def _copy(dataset: CommunityDataset, writer: Writer) -> None:
    pending = writer.pending
    done = len(dataset.image_ids) - len(pending)
    refused = 0
    with Progress("importing", total=len(dataset.image_ids), unit="images", done=done) as bar:
        for image_id, encoded in encoded_images(dataset, pending, writer.plan):
            if isinstance(encoded, InputError):
                refused += 1
                reason = f"{encoded}{CUT if image_id in dataset.last_rows else ''}"
                writer.refuse(image_id, dataset.file_of(image_id), reason)
            else:
                writer.write_encoded(image_id, *encoded)
            bar.advance(note=f"{refused} refused" if refused else "")


def _images(store: Store, to: str) -> Iterator[Regions]:
    with Progress(f"exporting to {to}", total=len(store), unit="images") as bar:
        for index in range(len(store)):
            regions = store.sample(index).regions
            if not atomic.is_plain_name(regions.image_id):
                raise InputError(
                    f"{store.path}: the image id {shown(regions.image_id)} is no name of a file"
                )
            yield regions
            bar.advance()


def encoded_images(
    dataset: CommunityDataset, wanted: Sequence[str], plan: Plan
) -> Iterator[tuple[str, Encoded | InputError]]:
    """Return the members of each image in order, fit for the plan, or why there are none.

    Raises:
        SemVLPError: a process that decodes was ended from outside.
    """
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    # A process needs no list of images, and would be sent it.
    plan = replace(plan, image_ids=())
    if dataset.task is None or workers == 1 or len(wanted) < SMALLEST_PARALLEL:
        for image_id in wanted:
            read = partial(dataset.read, image_id)
            yield image_id, _encoded(read, image_id, dataset.name_of(image_id), plan)
        return
    waiting: deque[tuple[str, Future[Encoded | InputError]]] = deque()
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(plan,)) as pool:
        try:
            for image_id in wanted:
                name = dataset.name_of(image_id)
                future = pool.submit(_encoded_aside, dataset.task(image_id), image_id, name)
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


def _encoded(
    read: Callable[[], RawRegions], image_id: str, name: str, plan: Plan
) -> Encoded | InputError:
    """Encode one image; an error is a value here, so that it comes in the order of the images."""
    try:
        with _named_errors():
            regions = to_regions(read(), image_id, plan.profile, feature_size=plan.feature_size)
            sample = Sample(key=image_id, regions=regions, name=name)
            check_fits(sample, plan)
            return encode(sample)
    except InputError as error:
        return error


def _begin(plan: Plan) -> None:
    """Make a process ready to decode; PyTorch, which is slow to import, is imported here."""
    global _worker_plan
    import torch

    torch.set_num_threads(1)
    # Decoded arrays are views of bytes; they are only read.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    _worker_plan = plan


def _encoded_aside(
    read: Callable[[], RawRegions], image_id: str, name: str
) -> Encoded | InputError:
    def with_half_features() -> RawRegions:
        raw = read()
        return replace(raw, features=half(raw.features))

    return _encoded(with_half_features, image_id, name, _worker_plan)


def half(features: NDArray[Any]) -> NDArray[np.float16]:
    """Return the bits of `features.astype(np.float16)` in a twentieth of the time."""
    import torch

    result: NDArray[np.float16] = torch.from_numpy(features).half().numpy()
    return result


_worker_plan: Plan
