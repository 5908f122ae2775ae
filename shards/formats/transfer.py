"""Community formats into our stores, and our stores into community formats."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from semvlp import atomic
from semvlp.errors import ConfigError, InputError
from semvlp.progress import Progress
from semvlp.shards.codec import encode_regions
from semvlp.shards.formats.decoding import encoded_images
from semvlp.shards.formats.raw import to_regions
from semvlp.shards.formats.source import CommunityFormat, Source
from semvlp.shards.formats.table import FORMATS
from semvlp.shards.manifest import Manifest, Plan, StoreFormat
from semvlp.shards.record import Regions
from semvlp.shards.store import Store, open_store
from semvlp.shards.writer import Writer, open_writer

SHARD_BYTES = 768_000_000
MOST_SAMPLES_PER_SHARD = 10_000


def import_format(
    src: Path,
    dst: Path,
    *,
    from_: str,
    to: StoreFormat,
    source: str | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Read a community data set into a new store; started again, it goes on where it stopped.

    One pass over `src` finds the images, a second one reads them one at a time. A damaged image is
    one line of refused.jsonl. `source` names the extraction the numbers come from: sets of one
    format and source may be trained on together; by default it is the name of `src`.

    Raises:
        ConfigError: an unknown format, or another import was begun at `dst`.
        InputError: `src` is not of the format, or not one image of it can be read.
    """
    opened = _format(from_).open(src)
    try:
        plan = _plan(opened, {"format": from_, "source": source or src.name, **opened.facts}, src)
        with open_writer(dst, plan, format=to, overwrite=overwrite) as writer:
            _copy(opened, writer)
            return writer.finish()
    finally:
        opened.close()


def export_format(src: Path, dst: Path, *, to: str) -> int:
    """Write the images of a store in a community format; returns how many.

    Raises:
        ConfigError: an unknown format, or `dst` exists.
        InputError: `src` is no store, or damaged.
    """
    community = _format(to)
    if dst.exists():
        raise ConfigError(f"{dst} exists and is not overwritten; remove it or name another place")
    dst.parent.mkdir(parents=True, exist_ok=True)
    aside = dst.with_name(f".{dst.name}.part")
    _remove(aside)
    with open_store(src) as store:
        images = _images(store, to)
        count = community.write(images, aside, object_labels=store.manifest.object_labels)
    aside.replace(dst)
    atomic.sync_directory(dst.parent)
    return count


def _format(name: str) -> CommunityFormat:
    if name not in FORMATS:
        raise ConfigError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
    return FORMATS[name]


def _plan(opened: Source, extractor: dict[str, object], src: Path) -> Plan:
    first = _first_readable(opened, src)
    return Plan(
        image_ids=opened.image_ids,
        extractor=extractor,
        object_labels=opened.object_labels,
        attribute_labels=(),
        feature_size=first.features.shape[1],
        samples_per_shard=_samples_per_shard(first),
    )


def _first_readable(opened: Source, src: Path) -> Regions:
    """The first image that is not damaged and has regions: it tells the feature size."""
    reason = "it lists no image"
    for image_id in opened.image_ids:
        try:
            regions = to_regions(opened.read(image_id), image_id, profile="")
        except InputError as error:
            reason = f"{image_id}: {error}"
            continue
        if len(regions):
            return regions
    raise InputError(f"{src}: not one image with regions can be read; the last: {reason}")


def _samples_per_shard(typical: Regions) -> int:
    return max(1, min(MOST_SAMPLES_PER_SHARD, SHARD_BYTES // len(encode_regions(typical))))


def _copy(opened: Source, writer: Writer) -> None:
    pending = writer.pending
    done = len(opened.image_ids) - len(pending)
    refused = 0
    with Progress("importing", total=len(opened.image_ids), unit="images", done=done) as bar:
        for image_id, found in encoded_images(opened, pending, writer.plan):
            if isinstance(found, InputError):
                refused += 1
                writer.refuse(image_id, opened.file_of(image_id), str(found))
            else:
                writer.write_encoded(image_id, *found)
            bar.advance(note=f"{refused} refused" if refused else "")


def _images(store: Store, to: str) -> Iterator[Regions]:
    with Progress(f"exporting to {to}", total=len(store), unit="images") as bar:
        for index in range(len(store)):
            yield store.sample(index).regions
            bar.advance()


def _remove(path: Path) -> None:
    """What an earlier export that was killed has left."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
