"""Writing a data set that may be stopped anywhere: plan first, then samples, manifest last."""

import errno
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from semvlp import __version__
from semvlp.atomic import PART_DIR, make_directory, publish_json, refuse_source_code
from semvlp.closing import Closing
from semvlp.errors import ConfigError, SemVLPError
from semvlp.names import StoreKind
from semvlp.shards.codec import decode, encode
from semvlp.shards.dataset.manifest import (
    MANIFEST_NAME,
    Manifest,
    Refusal,
    ShardEntry,
    read_manifest,
)
from semvlp.shards.dataset.plan import WHOLE, Part, Plan, Positions, check_fits
from semvlp.shards.dataset.plan_file import clear, refuse_strangers, write_or_check_plan
from semvlp.shards.dataset.refusals import REFUSED_NAME, RefusalLog, printable, read_refusals
from semvlp.shards.keys import Keys
from semvlp.shards.record import FORMAT_VERSION, REFERENCE_VERSION, Sample


class Target(Protocol):
    """The store that samples go to: tar shards or an LMDB. Positions are those of the plan."""

    def written(self) -> Positions:
        """Return the positions that are stored already, of which this is the record."""

    def write(self, position: int, text: bytes, blob: bytes | memoryview) -> None: ...

    def refuse(self, position: int) -> None:
        """Learn that nothing will be written at this position."""

    def finish(self, manifest: Manifest) -> tuple[ShardEntry, ...]:
        """Publish the files; `manifest` is complete but for their entries."""

    def published(self) -> bool:
        """Tell whether every file stands as an earlier `finish` left it."""

    def close(self) -> None: ...


class Writer(Closing):
    """Writes the images of a plan; made by `open_writer`.

    Within one tar shard (`samples_per_shard` images of the plan) writes must come in plan order;
    refusals may come at any time. Leaving the `with` block keeps whatever is finished.
    """

    def __init__(
        self,
        out: Path,
        plan: Plan,
        *,
        store: StoreKind,
        target: Target,
        log: RefusalLog,
        refusals: dict[int, Refusal],
        part: Part = WHOLE,
        packages: Sequence[str] = (),
    ) -> None:
        self.out, self.plan, self._store = out, plan, store
        self._packages = packages
        self._own = plan.shards(part)
        self._target, self._log, self._refusals = target, log, refusals
        self._written = target.written()

    @property
    def pending(self) -> Keys:
        """Images of this part neither written nor refused, in the order of the plan."""
        return Keys(map(self.plan.image_ids.__getitem__, self._pending_positions()))

    def _pending_positions(self) -> Iterator[int]:
        return (
            position
            for shard in self._own
            for position in self.plan.positions(shard)
            if position not in self._written and position not in self._refusals
        )

    @property
    def num_images(self) -> int:
        """Images of this part, whatever became of them."""
        return sum(len(self.plan.positions(shard)) for shard in self._own)

    @property
    def refused(self) -> list[Refusal]:
        """The refused images so far, in the order of the plan."""
        return [self._refusals[position] for position in sorted(self._refusals)]

    def write(self, sample: Sample) -> None:
        """Store one sample.

        Raises:
            InputError: it does not fit the plan: profile, feature size, labels.
            ValueError: it is not pending, or not in plan order within its shard.
        """
        check_fits(sample, self.plan)
        self._put(sample.key, *encode(sample))

    def write_encoded(self, key: str, text: bytes, blob: bytes | memoryview) -> None:
        """Store what `encode` made of a sample that `check_fits` has passed; no blob of a base."""
        self._put(key, text, blob)

    def write_members(self, text: bytes, blob: bytes | memoryview) -> None:
        """Store a sample as another store gave it, byte by byte; raises as `write` does."""
        sample = decode(text, blob)
        check_fits(sample, self.plan)
        self._put(sample.key, text, blob)

    def refuse(self, image_id: str, file: str | Path, reason: str) -> None:
        """Record that an image cannot be extracted: one line of refused.jsonl."""
        position = self._pending_position(image_id)
        refusal = Refusal(
            position=position,
            image_id=image_id,
            file=printable(str(file)),
            reason=printable(reason),
        )
        with _space(self.out):
            self._log.append(refusal)
            self._refusals[position] = refusal
            self._target.refuse(position)

    def finish(self) -> Manifest:
        """Publish index and manifest once every image is written or refused.

        Raises:
            ValueError: images are still pending.
        """
        pending = self.pending
        if pending:
            raise ValueError(f"{len(pending)} images are neither written nor refused: {pending[0]}")
        if not (self.out / MANIFEST_NAME).exists():
            with _space(self.out):
                self._log.sort(self.refused)
                bare = manifest_of(self.plan, self._store, self._refusals, self._packages)
                manifest = replace(bare, shards=self._target.finish(bare))
                publish_json(self.out / MANIFEST_NAME, manifest.to_json())
        self._target.close()
        shutil.rmtree(self.out / PART_DIR, ignore_errors=True)
        self.close()
        return read_manifest(self.out)

    def close(self) -> None:
        """Stop; everything written so far is kept."""
        try:
            with _space(self.out):
                self._target.close()
        finally:
            with suppress(OSError):
                # Only where it is empty.
                (self.out / PART_DIR).rmdir()
            self._log.close()

    def _put(self, key: str, text: bytes, blob: bytes | memoryview) -> None:
        position = self._pending_position(key)
        with _space(self.out):
            self._target.write(position, text, blob)

    def _pending_position(self, image_id: str) -> int:
        position = self.plan.keys.find(image_id)
        if position is None:
            raise ValueError(f"image {image_id!r} is not in the plan")
        if position in self._written or position in self._refusals:
            raise ValueError(f"image {image_id!r} is written or refused already")
        return position


def manifest_of(
    plan: Plan,
    store: StoreKind,
    refusals: Mapping[int, Refusal],
    packages: Sequence[str] = (),
    shards: tuple[ShardEntry, ...] = (),
) -> Manifest:
    """Make the manifest of a plan carried out with `packages`; refusals are by position."""
    return Manifest(
        store=store,
        format_version=REFERENCE_VERSION if store == "reference" else FORMAT_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        software=software_versions(packages),
        extractor=plan.extractor,
        object_labels=plan.object_labels,
        attribute_labels=plan.attribute_labels,
        feature_size=plan.feature_size,
        samples_per_shard=plan.samples_per_shard,
        image_list_sha256=plan.image_list_sha256,
        texts_sha256=plan.texts_sha256,
        boxes_sha256=plan.boxes_sha256,
        base=plan.base if store == "reference" else None,
        shards=shards,
        refused=tuple(refusals[position] for position in sorted(refusals)),
    )


def open_writer(
    out: Path,
    plan: Plan,
    *,
    format: StoreKind,
    resume: bool = True,
    overwrite: bool = False,
    part: Part = WHOLE,
    packages: Sequence[str] = (),
) -> Writer:
    """Start the data set `plan` in the directory `out`, or go on where an earlier run stopped.

    The manifest names the versions of the installed `packages`, which take no part in the plan.
    `overwrite` removes what an earlier run wrote there, and nothing else. Several processes write
    together, each its `part`, after one opened and closed the whole; when all have closed theirs,
    it opens the whole again and finishes it.

    Raises:
        ConfigError: another plan was begun there, `resume` is off and one was begun, another
            process is writing there, or `out` holds source code or files of somebody else that
            have the names of ours.
    """
    refuse_source_code(out)
    if format != "tar" and part != WHOLE:
        raise ConfigError(
            "an LMDB has one writer: let the processes write tar shards, then run "
            "`semvlp shards convert SRC DST --to lmdb`"
        )
    refuse_strangers(out, overwrite=overwrite)
    make_directory(out)
    log = RefusalLog(out, part.rank)
    try:
        if overwrite:
            # In this order: refusals without a plan would be nobody's.
            log.clear()
            clear(out)
        write_or_check_plan(out, plan, format, resume=resume)
        if part == WHOLE:
            log.merge_logs(plan)
        refusals = read_refusals(out / REFUSED_NAME, plan) | log.read(plan)
        target = _open_target(out, plan, format, set(refusals), part)
        if part == WHOLE and not target.published():
            # From here on the manifest of an earlier run would not be true.
            (out / MANIFEST_NAME).unlink(missing_ok=True)
        return Writer(
            out,
            plan,
            store=format,
            target=target,
            log=log,
            refusals=refusals,
            part=part,
            packages=packages,
        )
    except BaseException:
        log.close()
        raise


def software_versions(packages: Sequence[str] = ()) -> dict[str, str]:
    """Return the versions of what makes the numbers, `packages` among it, where installed."""
    versions = {"semvlp": __version__, "python": platform.python_version()}
    for package in ("numpy", "torch", *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


@contextmanager
def _space(out: Path) -> Iterator[None]:
    """Say what to do where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SemVLPError(
            f"the disk of {out} is full; everything finished is kept: free some space, then run "
            "the same command again"
        ) from error


def _open_target(out: Path, plan: Plan, store: StoreKind, refused: set[int], part: Part) -> Target:
    if store != "tar":
        from semvlp.shards.stores.lmdb_writer import LmdbTarget

        return LmdbTarget(out, plan, refused, store)
    from semvlp.shards.stores.tar_writer import TarTarget

    return TarTarget(out, plan, refused, part)
