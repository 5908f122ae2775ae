"""Writing an LMDB: samples in transactions, the file moved to its place when complete."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from semvlp.atomic import PART_DIR, make_directory, publish
from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.names import StoreKind
from semvlp.shards.codec import decode_entry
from semvlp.shards.dataset.hashes import file_sha256
from semvlp.shards.dataset.manifest import MANIFEST_NAME, Manifest, ShardEntry, read_manifest
from semvlp.shards.dataset.plan import Plan, Positions
from semvlp.shards.stores.lmdb_store import (
    KEYS_KEY,
    LMDB_NAME,
    META_KEY,
    TEXTS_NAME,
    keys_of,
    open_environment,
    put_all,
    value_of,
)

SAMPLES_PER_TRANSACTION = 64
TEXTS_PER_TRANSACTION = 4096
"""They take a moment to be made again, and every transaction waits for the disk."""


class LmdbTarget:
    """Collects samples into transactions; until the data set is finished it lies in `.part/`.

    While in work, `!meta` holds the counts so far and changes in the transaction of the samples it
    counts, so nothing has to be read again to go on.
    """

    def __init__(self, out: Path, plan: Plan, refused: set[int], store: StoreKind = "lmdb") -> None:
        texts = store == "reference"
        name = TEXTS_NAME if texts else LMDB_NAME
        self._most_waiting = TEXTS_PER_TRANSACTION if texts else SAMPLES_PER_TRANSACTION
        self._path, self._part = out / name, out / PART_DIR / name
        self._plan = plan
        self._waiting: dict[bytes, bytes] = {}
        self._environment: Any = None
        self._published = _is_published(self._path)
        if self._published:
            self._written = Positions(len(plan.image_ids))
            self._written.update(n for n in range(len(plan.image_ids)) if n not in refused)
            return
        make_directory(self._part.parent)
        if self._path.exists():
            publish(self._path, self._part)
        self._environment = open_environment(self._part, readonly=False)
        self._written, self._captions, self._questions, self._histogram = self._read_back()

    def written(self) -> Positions:
        return self._written

    def write(self, position: int, text: bytes, blob: bytes | memoryview) -> None:
        entry = decode_entry(text)
        self._captions += len(entry.get("captions", ()))
        self._questions += len(entry.get("questions", ()))
        self._histogram[entry["n"]] += 1
        self._waiting[entry["key"].encode("ascii")] = b"".join((blob, text))
        self._written.add(position)
        if len(self._waiting) == self._most_waiting:
            self._flush()

    def refuse(self, position: int) -> None:
        """Do nothing: a refused image is simply absent."""

    def finish(self, manifest: Manifest) -> tuple[ShardEntry, ...]:
        self._waiting[KEYS_KEY] = self._plan.keys.take(self._written.sorted()).joined().tobytes()
        counted = replace(manifest, shards=(self._entry(size=0, sha256=""),))
        self._flush(counted.to_json())
        self.close()
        size, digest = self._part.stat().st_size, file_sha256(self._part)
        publish(self._part, self._path)
        return (self._entry(size=size, sha256=digest),)

    def published(self) -> bool:
        return self._published

    def close(self) -> None:
        if self._environment is not None:
            try:
                self._flush()
            finally:
                self._environment.close()
                self._environment = None

    def _flush(self, meta: dict[str, Any] | None = None) -> None:
        if self._waiting:
            # A file cannot hold its own size and hash.
            counts = {"shards": [self._entry(size=0, sha256="").to_json()]}
            text = json.dumps(meta or counts, ensure_ascii=False)
            put_all(self._environment, [*self._waiting.items(), (META_KEY, text.encode())])
            self._waiting.clear()

    def _entry(self, *, size: int, sha256: str) -> ShardEntry:
        most = max(self._histogram, default=-1)
        return ShardEntry(
            name=self._path.name,
            samples=sum(self._histogram.values()),
            bytes=size,
            sha256=sha256,
            captions=self._captions,
            questions=self._questions,
            regions_histogram=tuple(self._histogram[n] for n in range(most + 1)),
        )

    def _read_back(self) -> tuple[Positions, int, int, Counter[int]]:
        """Return what earlier runs wrote: positions, captions, questions, histogram of regions."""
        written = Positions(len(self._plan.image_ids))
        meta = value_of(self._environment, META_KEY)
        if meta is None:
            return written, 0, 0, Counter()
        for key in keys_of(self._environment):
            if not key.startswith(b"!"):
                name = key.decode("ascii", "backslashreplace")
                position = self._plan.keys.find(name)
                if position is None:
                    raise InputError(
                        f"{self._part} holds {name!r}, which is no image of the plan: it is "
                        "damaged; start anew with --overwrite"
                    )
                written.add(position)
        entry = ShardEntry.from_json(from_json(meta)["shards"][0])
        histogram = Counter(dict(enumerate(entry.regions_histogram)))
        return written, entry.captions, entry.questions, histogram


def _is_published(path: Path) -> bool:
    """Tell whether the file beside the manifest is the one it describes."""
    if not (path.parent / MANIFEST_NAME).exists():
        return False
    try:
        entries = read_manifest(path.parent).shards
    except InputError:
        # A damaged manifest is made again from the file.
        return False
    return path.exists() and [entry.bytes for entry in entries] == [path.stat().st_size]
