"""Checking what lies beside the samples: plan, refusals, indexes, commit records."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.shards.dataset.manifest import CHECKSUM, MANIFEST_NAME, Manifest
from semvlp.shards.dataset.plan import PLAN_NAME
from semvlp.shards.dataset.plan_file import is_plan
from semvlp.shards.dataset.refusals import REFUSED_NAME
from semvlp.shards.stores.tar_index import Index, read_index


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with a data set."""

    shard: str
    """Name of the file."""
    key: str | None
    """Key of the sample, where the damage belongs to one."""
    problem: str

    def __str__(self) -> str:
        return f"{self.shard}: {f'{self.key}: ' if self.key else ''}{self.problem}"


def check_sidecars(path: Path, manifest: Manifest, keys: Iterable[str]) -> Iterator[Finding]:
    """Check plan, refusals and entries of the manifest; `keys` are the samples in order.

    Plan and refusals may be absent, as in a copy of the finished files alone.
    """
    yield from _check_names(path, manifest)
    plan = path / PLAN_NAME
    if plan.exists():
        yield from _check_plan(plan, manifest, keys)
    refused = path / REFUSED_NAME
    if refused.exists():
        entries = {
            refusal.image_id: {
                "id": refusal.image_id,
                "file": refusal.file,
                "reason": refusal.reason,
            }
            for refusal in manifest.refused
        }
        yield from _compare(refused, _json_lines(refused), entries)


def check_tar_sidecars(path: Path, manifest: Manifest, index: Index) -> Iterator[Finding]:
    """Check index and commit record of each shard; a copy may be without all of them."""
    names = [Path(shard.name).stem for shard in manifest.shards]
    if not any((path / f"{name}{kind}").exists() for name in names for kind in (".idx", ".json")):
        return
    for number, (name, entry) in enumerate(zip(names, manifest.shards, strict=True)):
        commit = path / f"{name}.json"
        yield from _compare(commit, _json(commit), entry.to_json())
        expected = index.select(np.flatnonzero(index.rows["shard"] == number))
        try:
            actual = read_index(path / f"{name}.idx")
        except InputError as error:
            yield Finding(shard=f"{name}.idx", key=None, problem=str(error))
            continue
        if not actual.same(expected):
            problem = "it is not the part of the index that belongs to this shard"
            yield Finding(shard=f"{name}.idx", key=None, problem=problem)


def _check_plan(path: Path, manifest: Manifest, keys: Iterable[str]) -> Iterator[Finding]:
    try:
        expected = manifest.plan(keys)
    except InputError:
        # Reported with the list of images.
        return
    if expected.image_list_sha256 == manifest.image_list_sha256:
        try:
            same = is_plan(path, expected, manifest.store)
        except (OSError, InputError):
            yield from _compare(path, None, expected)
        else:
            yield from _compare(path, same, True)


def _check_names(path: Path, manifest: Manifest) -> Iterator[Finding]:
    """Find unknown entries where the checksum of the manifest is missing: one may be its."""
    entries = _json(path / MANIFEST_NAME)
    unknown = sorted(set(entries or {}) - set(manifest.to_json()))
    if CHECKSUM not in (entries or {}) and unknown:
        problem = f"it has no {CHECKSUM}, but {', '.join(unknown)}"
        yield Finding(shard=MANIFEST_NAME, key=None, problem=problem)


def _compare(path: Path, actual: Any, expected: Any) -> Iterator[Finding]:
    if actual is None:
        yield Finding(shard=path.name, key=None, problem="it is missing or damaged")
    elif actual != expected:
        problem = "it differs from what the manifest and the samples say"
        yield Finding(shard=path.name, key=None, problem=problem)


def _json(path: Path) -> Any:
    try:
        return from_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _json_lines(path: Path) -> Any:
    """Return the objects by their id, None where a line is damaged."""
    data = path.read_bytes()
    try:
        entries = [from_json(line) for line in data.split(b"\n")[:-1]]
        by_id = {entry["id"]: entry for entry in entries}
    except (ValueError, KeyError, TypeError):
        return None
    return by_id if data.endswith(b"\n") or not data else None
