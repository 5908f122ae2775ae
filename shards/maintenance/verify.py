"""Checking a data set: every byte against what manifest, index and records say of it."""

from bisect import bisect_right
from collections.abc import Iterator, Set
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from semvlp.errors import InputError
from semvlp.progress import Progress
from semvlp.shards.codec import decode
from semvlp.shards.dataset.hashes import file_sha256
from semvlp.shards.dataset.manifest import MANIFEST_NAME, Manifest, ShardEntry, read_manifest
from semvlp.shards.keys import KeyCollector, Keys
from semvlp.shards.maintenance.sidecars import Finding, check_sidecars, check_tar_sidecars
from semvlp.shards.open import open_base
from semvlp.shards.stores.lmdb_store import KEYS_KEY, LMDB_NAME, TEXTS_NAME, read_all, split_value
from semvlp.shards.stores.store import Members, Store
from semvlp.shards.stores.tar_file import Record, is_end, read_record
from semvlp.shards.stores.tar_index import INDEX_NAME, Index, index_of, read_index


def verify(path: Path) -> list[Finding]:
    """Find everything that is wrong with the data set in `path`; none means it is sound.

    Reads all of it: sizes, SHA-256, a strict scan of every archive, the checksum of every record,
    duplicate, missing and unknown keys, profiles, counts, and every file beside the samples. Of a
    data set that it refers to, the regions are read whose texts are here, and no more. Damage never
    raises.
    """
    path = Path(path)
    try:
        manifest = read_manifest(path)
    except InputError as error:
        return [Finding(shard=MANIFEST_NAME, key=None, problem=str(error))]
    check = _check_tars if manifest.store == "tar" else _check_lmdb
    try:
        return list(check(path, manifest))
    except OSError as error:
        return [Finding(shard=path.name, key=None, problem=f"it cannot be read: {error}")]


def info(path: Path) -> dict[str, Any]:
    """Return what the manifest says of a data set, as plain JSON values.

    Raises:
        InputError: there is no manifest, or it is damaged.
    """
    manifest = read_manifest(path)
    images = {n: count for n, count in enumerate(manifest.regions_histogram) if count}
    total = sum(images.values())
    return {
        "path": str(path),
        "store": manifest.store,
        **({"refers_to": manifest.base.to_json()} if manifest.base else {}),
        "format_version": manifest.format_version,
        "created": manifest.created,
        "software": manifest.software,
        "profile": manifest.profile,
        "counts": manifest.counts,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "feature_size": manifest.feature_size,
        "object_labels": len(manifest.object_labels),
        "attribute_labels": len(manifest.attribute_labels),
        "regions": {
            "min": min(images, default=0),
            "mean": round(sum(n * count for n, count in images.items()) / max(total, 1), 2),
            "max": max(images, default=0),
        },
    }


class _Sound:
    """The sound samples in the order they are read, as far as they must be remembered."""

    def __init__(self, profile: str) -> None:
        self._profile, self._keys = profile, KeyCollector()
        self._shards: list[tuple[int, str]] = []
        self.strange: dict[int, str] = {}
        """The profiles that are not that of the manifest, by the number of the sample."""

    def add(self, shard: str, key: str, profile: str) -> None:
        if not self._shards or self._shards[-1][1] != shard:
            self._shards.append((len(self._keys), shard))
        if profile != self._profile:
            self.strange[len(self._keys)] = profile
        self._keys.add(key)

    def keys(self) -> Keys:
        return self._keys.keys()

    def shard(self, number: int) -> str:
        """Return the file that holds a sample."""
        starts = [start for start, _ in self._shards]
        return self._shards[bisect_right(starts, number) - 1][1]


def _check_tars(path: Path, manifest: Manifest) -> Iterator[Finding]:
    index = None
    try:
        index = read_index(path / INDEX_NAME)
    except InputError as error:
        yield Finding(shard=INDEX_NAME, key=None, problem=str(error))
    sound = _Sound(manifest.profile)
    named: set[str | None] = set()
    with Progress("verifying", total=len(manifest.shards), unit="shards") as progress:
        for shard, entry in enumerate(manifest.shards):
            yield from _check_file(path, entry)
            for result in _walk(path / entry.name, index, shard):
                if isinstance(result, Finding):
                    named.add(result.key)
                    yield result
                else:
                    sound.add(entry.name, result.sample.key, result.sample.regions.profile)
            progress.advance()
    listed = index.keys if index is not None else sound.keys()
    yield from _check_keys(sound, listed, named, manifest, INDEX_NAME)
    yield from _check_list(listed, manifest)
    yield from check_sidecars(path, manifest, listed)
    if index is not None:
        yield from check_tar_sidecars(path, manifest, index)


def _check_lmdb(path: Path, manifest: Manifest) -> Iterator[Finding]:
    damage = [finding for entry in manifest.shards for finding in _check_file(path, entry)]
    yield from damage
    file = path / (TEXTS_NAME if manifest.base else LMDB_NAME)
    if not file.exists():
        return
    try:
        base = open_base(path, manifest.base) if manifest.base else None
    except InputError as error:
        yield Finding(shard=MANIFEST_NAME, key=None, problem=str(error))
        return
    with nullcontext() if base is None else base:
        # LMDB trusts its file: following a damaged page can end the process.
        read = _read_lmdb_aside if damage else _read_lmdb
        sound, findings, keys = read(file, manifest.profile, base)
    yield from findings
    named = {finding.key for finding in findings}
    yield from _check_keys(sound, keys, named, manifest, file.name)
    yield from _check_list(keys, manifest)
    yield from check_sidecars(path, manifest, keys)


def _check_file(path: Path, entry: ShardEntry) -> Iterator[Finding]:
    """Check presence, size and SHA-256 of one file."""
    file = path / entry.name
    if not file.exists():
        yield Finding(shard=entry.name, key=None, problem="the file is missing")
        return
    size = file.stat().st_size
    if size != entry.bytes:
        problem = f"the file must have {entry.bytes} bytes, but has {size}"
        yield Finding(shard=entry.name, key=None, problem=problem)
    elif file_sha256(file) != entry.sha256:
        problem = "the SHA-256 of the file is not that of the manifest"
        yield Finding(shard=entry.name, key=None, problem=problem)


def _walk(path: Path, index: Index | None, shard: int) -> Iterator[Record | Finding]:
    """Read every sample of a tar; behind damage go on where the index knows the next sample."""
    if not path.exists():
        return
    starts = _starts(index, shard)
    size, offset = path.stat().st_size, 0
    with path.open("rb") as file:
        while True:
            try:
                if is_end(file, offset, size, path.name):
                    return
                record = read_record(file, offset, path.name)
                yield record
                if index is not None:
                    yield from _check_row(record, index, starts.get(offset), path.name)
                offset = record.location.end
            except InputError as error:
                key = index.keys[starts[offset]] if index and offset in starts else None
                yield Finding(shard=path.name, key=key, problem=str(error))
                later = [start for start in starts if start > offset]
                if not later:
                    return
                offset = min(later)


def _starts(index: Index | None, shard: int) -> dict[int, int]:
    """Rows of the index by the offset of their sample in one shard."""
    if index is None:
        return {}
    rows = np.flatnonzero(index.rows["shard"] == shard)
    return {index.location(row).start: row for row in rows.tolist()}


def _check_row(record: Record, index: Index, row: int | None, name: str) -> Iterator[Finding]:
    """Compare the row of the index with the sample that was read."""
    if row is not None:
        actual = index_of([record], int(index.rows["shard"][row]))
        if actual.same(index.select(np.array([row]))):
            return
    problem = f"{INDEX_NAME} says otherwise of the sample at offset {record.location.start}"
    yield Finding(shard=name, key=record.location.key, problem=problem)


def _read_lmdb(path: Path, profile: str, base: Store | None) -> tuple[_Sound, list[Finding], Keys]:
    """Return sound samples, damage, and the keys the file lists; regions may lie in a base."""
    sound, findings, keys = _Sound(profile), list[Finding](), Keys()
    try:
        for key, value in read_all(path):
            if key == KEYS_KEY.decode():
                keys = Keys(value.decode("ascii", "backslashreplace").split("\n") if value else ())
            elif not key.startswith("!"):
                try:
                    sample = decode(*_members(key, value, base))
                    sound.add(path.name, key, sample.regions.profile)
                except InputError as error:
                    findings.append(Finding(shard=path.name, key=key, problem=str(error)))
    except InputError as error:
        findings.append(Finding(shard=path.name, key=None, problem=str(error)))
    return sound, findings, keys


def _members(key: str, value: bytes, base: Store | None) -> Members:
    return split_value(value) if base is None else (value, base.members(base.index_of(key))[1])


def _read_lmdb_aside(
    path: Path, profile: str, base: Store | None
) -> tuple[_Sound, list[Finding], Keys]:
    """Run `_read_lmdb` in a process of its own, whose end is a finding."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_read_lmdb, path, profile, base).result()
        except BrokenProcessPool:
            problem = "the tree of pages is damaged; the samples cannot be told apart"
            damage = Finding(shard=path.name, key=None, problem=problem)
            return _Sound(profile), [damage], Keys()


def _check_keys(
    sound: _Sound, expected: Keys, damaged: Set[str | None], manifest: Manifest, where: str
) -> Iterator[Finding]:
    """Find missing, double and unknown keys and other profiles; damage is reported already."""
    keys = sound.keys()
    rows = expected.rows_of(keys)
    counts = np.bincount(rows[rows >= 0], minlength=len(expected))
    odd = rows < 0
    odd[~odd] = counts[rows[~odd]] > 1
    odd[list(sound.strange)] = True
    for number in np.flatnonzero(odd).tolist():
        key, shard = keys[number], sound.shard(number)
        if rows[number] < 0:
            yield Finding(shard=shard, key=key, problem=f"{where} does not know it")
        elif (count := counts[rows[number]]) > 1:
            yield Finding(shard=shard, key=key, problem=f"the key is there {count} times")
        if number in sound.strange:
            problem = f"profile {sound.strange[number]} in a data set of profile {manifest.profile}"
            yield Finding(shard=shard, key=key, problem=problem)
    for row in np.flatnonzero(counts == 0).tolist():
        key = expected[row]
        # A key that is listed twice is counted at its first place.
        if not counts[expected.find(key)] and key not in damaged:
            yield Finding(shard=where, key=key, problem="it is listed, but was not found")


def _check_list(keys: Keys, manifest: Manifest) -> Iterator[Finding]:
    """Check that keys and refused images together are the list of the manifest."""
    try:
        listed = manifest.plan(keys).image_list_sha256
    except InputError as error:
        yield Finding(shard=MANIFEST_NAME, key=None, problem=str(error))
        return
    if listed != manifest.image_list_sha256:
        problem = "samples and refused images together are not the list of images it was made for"
        yield Finding(shard=MANIFEST_NAME, key=None, problem=problem)
