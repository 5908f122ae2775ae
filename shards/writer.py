"""Writing a data set that may be stopped anywhere: plan first, then samples, manifest last."""

import json
import platform
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from semvlp import __version__
from semvlp.errors import ConfigError, InputError
from semvlp.shards.manifest import (
    MANIFEST_NAME,
    Manifest,
    Refusal,
    ShardEntry,
    read_manifest,
)
from semvlp.shards.plan import PLAN_NAME, Plan, StoreFormat, check_fits, plan_difference
from semvlp.shards.publish import PART_DIR, publish_text
from semvlp.shards.record import Sample, decode, encode
from semvlp.shards.refusals import RefusalLog

# The plan last: while it stands, whatever else is left can be told to be ours.
_OUR_FILES = (
    MANIFEST_NAME,
    "index.safetensors",
    "shard-[0-9][0-9][0-9][0-9][0-9][0-9].tar",
    "shard-[0-9][0-9][0-9][0-9][0-9][0-9].idx",
    "shard-[0-9][0-9][0-9][0-9][0-9][0-9].json",
    "regions.lmdb",
    PLAN_NAME,
)


class Target(Protocol):
    """Where samples go: tar shards or an LMDB. Positions are those of the plan."""

    def written(self) -> set[int]:
        """Positions that are stored already."""

    def write(self, position: int, text: bytes, blob: bytes | memoryview) -> None: ...

    def refuse(self, position: int) -> None:
        """Learn that nothing will be written at this position."""

    def finish(self, manifest: Manifest) -> tuple[ShardEntry, ...]:
        """Publish the files; `manifest` is complete but for their entries."""

    def published(self) -> bool:
        """Whether every file stands as an earlier `finish` left it."""

    def close(self) -> None: ...


class Writer:
    """Writes the images of a plan; made by `open_writer`.

    Within one tar shard (`samples_per_shard` images of the plan) writes must come in plan order;
    refusals may come at any time. Leaving the `with` block keeps whatever is finished.
    """

    def __init__(
        self,
        out: Path,
        plan: Plan,
        *,
        store: StoreFormat,
        target: Target,
        log: RefusalLog,
        refusals: dict[int, Refusal],
    ) -> None:
        self.out, self.plan, self._store = out, plan, store
        self._target, self._log, self._refusals = target, log, refusals
        self._written = target.written()
        self._positions = {image_id: index for index, image_id in enumerate(plan.image_ids)}

    @property
    def pending(self) -> list[str]:
        """Images neither written nor refused, in the order of the plan."""
        return [
            image_id
            for position, image_id in enumerate(self.plan.image_ids)
            if position not in self._written and position not in self._refusals
        ]

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

    def write_members(self, text: bytes, blob: bytes | memoryview) -> None:
        """Store a sample as another store gave it, byte by byte; raises as `write` does."""
        sample = decode(text, blob)
        check_fits(sample, self.plan)
        self._put(sample.key, text, blob)

    def refuse(self, image_id: str, file: str | Path, reason: str) -> None:
        """Record that an image cannot be extracted: one line of refused.jsonl."""
        position = self._pending_position(image_id)
        refusal = Refusal(position=position, image_id=image_id, file=str(file), reason=reason)
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
            manifest = self._manifest(())
            manifest = self._manifest(self._target.finish(manifest))
            publish_text(self.out / MANIFEST_NAME, _json(manifest.to_json()))
        self._target.close()
        shutil.rmtree(self.out / PART_DIR, ignore_errors=True)
        self.close()
        return read_manifest(self.out)

    def close(self) -> None:
        """Stop; everything written so far is kept."""
        self._target.close()
        with suppress(OSError):
            # Only where it is empty.
            (self.out / PART_DIR).rmdir()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _put(self, key: str, text: bytes, blob: bytes | memoryview) -> None:
        position = self._pending_position(key)
        self._target.write(position, text, blob)
        self._written.add(position)

    def _pending_position(self, image_id: str) -> int:
        position = self._positions.get(image_id)
        if position is None:
            raise ValueError(f"image {image_id!r} is not in the plan")
        if position in self._written or position in self._refusals:
            raise ValueError(f"image {image_id!r} is written or refused already")
        return position

    def _manifest(self, shards: tuple[ShardEntry, ...]) -> Manifest:
        return Manifest(
            store=self._store,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            software=software_versions(),
            extractor=self.plan.extractor,
            object_labels=self.plan.object_labels,
            attribute_labels=self.plan.attribute_labels,
            feature_size=self.plan.feature_size,
            samples_per_shard=self.plan.samples_per_shard,
            image_list_sha256=self.plan.image_list_sha256,
            texts_sha256=self.plan.texts_sha256,
            shards=shards,
            refused=tuple(self.refused),
        )


def open_writer(
    out: Path,
    plan: Plan,
    *,
    format: StoreFormat,
    resume: bool = True,
    overwrite: bool = False,
) -> Writer:
    """Start the data set `plan` in the directory `out`, or go on where an earlier run stopped.

    `overwrite` removes what an earlier run wrote there, and nothing else.

    Raises:
        ConfigError: another plan was begun there, `resume` is off and one was begun, another
            process is writing there, or `out` is the program's own source folder.
    """
    _refuse_source_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    log = RefusalLog(out)
    try:
        if overwrite:
            _clear(out)
            log.clear()
        _settle_plan(out, plan.to_json(format), resume=resume)
        refusals = log.read(plan)
        target = _open_target(out, plan, format, set(refusals))
        if not target.published():
            # From here on the manifest of an earlier run would not be true.
            (out / MANIFEST_NAME).unlink(missing_ok=True)
        return Writer(out, plan, store=format, target=target, log=log, refusals=refusals)
    except BaseException:
        log.close()
        raise


def software_versions() -> dict[str, str]:
    """What the numbers were made with, as far as it is installed."""
    versions = {"semvlp": __version__, "python": platform.python_version()}
    for package in ("numpy", "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _open_target(out: Path, plan: Plan, store: StoreFormat, refused: set[int]) -> Target:
    if store == "lmdb":
        from semvlp.shards.lmdb_writer import LmdbTarget

        return LmdbTarget(out, plan, refused)
    from semvlp.shards.tar_writer import TarTarget

    return TarTarget(out, plan, refused)


def _refuse_source_folder(out: Path) -> None:
    if out.resolve() == Path(__file__).resolve().parent:
        raise ConfigError(
            f"{out} is the program's own source folder and nothing is written into it; "
            "name another directory with --out"
        )


def _clear(out: Path) -> None:
    for pattern in _OUR_FILES:
        for path in sorted(out.glob(pattern)):
            path.unlink()
    shutil.rmtree(out / PART_DIR, ignore_errors=True)


def _settle_plan(out: Path, wanted: Mapping[str, Any], *, resume: bool) -> None:
    """Write plan.json, or compare with the one that is there."""
    path = out / PLAN_NAME
    ours = [file.name for pattern in _OUR_FILES for file in out.glob(pattern)]
    if ours and not path.exists():
        raise ConfigError(
            f"{out} holds {ours[0]} but no {PLAN_NAME}, so it cannot be gone on with; "
            "name another --out, or start anew with --overwrite"
        )
    if not ours:
        publish_text(path, _json(wanted))
        return
    if not resume:
        raise ConfigError(
            f"{out} holds the work of an earlier run; go on with --resume, "
            "start anew with --overwrite, or name another --out"
        )
    difference = plan_difference(_read_plan(path), wanted)
    if difference:
        raise ConfigError(
            f"{out} was begun with another plan: {difference}; "
            "name another --out, or start anew with --overwrite"
        )


def _read_plan(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); start anew with --overwrite") from error
    return found if isinstance(found, dict) else {}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
