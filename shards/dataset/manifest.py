"""The manifest: what a finished data set holds."""

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.names import StoreKind
from semvlp.shards.dataset.entries import MOST_FEATURES, Base, Refusal, ShardEntry, whole
from semvlp.shards.dataset.hashes import files_sha256, list_sha256, plain, profile_hash
from semvlp.shards.dataset.plan import PLAN_NAME, Plan
from semvlp.shards.keys import Keys
from semvlp.shards.record import FORMAT, FORMAT_VERSION, REFERENCE_VERSION

__all__ = [
    "Base",
    "Manifest",
    "Plan",
    "Refusal",
    "ShardEntry",
    "files_sha256",
    "profile_hash",
    "read_manifest",
]

MANIFEST_NAME = "manifest.json"
CHECKSUM = "manifest_sha256"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of a finished data set; the first file a reader opens, the last one written."""

    store: StoreKind
    format_version: int = FORMAT_VERSION
    created: str
    """ISO 8601, UTC."""
    software: dict[str, str]
    """Versions of what wrote it."""
    extractor: dict[str, Any]
    object_labels: tuple[str, ...]
    attribute_labels: tuple[str, ...]
    feature_size: int
    samples_per_shard: int
    image_list_sha256: str
    texts_sha256: str
    boxes_sha256: str = ""
    """Hash of the boxes that were given with the images; empty where a detector found them."""
    base: Base | None = None
    """Where the regions lie, unless they are in the shards."""
    shards: tuple[ShardEntry, ...]
    refused: tuple[Refusal, ...]

    @cached_property
    def profile(self) -> str:
        """Hash of the extractor: data sets of different profile must not be mixed."""
        return profile_hash(self.extractor)

    @cached_property
    def counts(self) -> dict[str, int]:
        """`samples`, `captions`, `questions`, and `errors` for the refused images."""
        return {
            "samples": sum(shard.samples for shard in self.shards),
            "captions": sum(shard.captions for shard in self.shards),
            "questions": sum(shard.questions for shard in self.shards),
            "errors": len(self.refused),
        }

    @cached_property
    def dataset_sha256(self) -> str:
        """Hash of the names and hashes of all shards: the identity of the bytes."""
        lines = (f"{shard.name}\0{shard.sha256}\n" for shard in self.shards)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @cached_property
    def regions_histogram(self) -> tuple[int, ...]:
        """Number of images with 0, 1, 2, ... regions."""
        length = max((len(shard.regions_histogram) for shard in self.shards), default=0)
        total = [0] * length
        for shard in self.shards:
            for regions, images in enumerate(shard.regions_histogram):
                total[regions] += images
        return tuple(total)

    @cached_property
    def shard_sizes(self) -> tuple[int, ...]:
        """Images of each tar shard; those of an LMDB are what its tar shards would hold."""
        listed = self.counts["samples"] + self.counts["errors"]
        starts = range(0, listed, self.samples_per_shard)
        sizes = [min(self.samples_per_shard, listed - start) for start in starts]
        for refusal in self.refused:
            sizes[refusal.position // self.samples_per_shard] -= 1
        return tuple(sizes)

    def plan(self, written: Iterable[str]) -> Plan:
        """Return the plan this was made by; `written` are the images it holds, in order."""
        return Plan(
            image_ids=self._with_refused(written),
            extractor=self.extractor,
            object_labels=self.object_labels,
            attribute_labels=self.attribute_labels,
            feature_size=self.feature_size,
            samples_per_shard=self.samples_per_shard,
            texts_sha256=self.texts_sha256,
            boxes_sha256=self.boxes_sha256,
            base=self.base,
        )

    def _with_refused(self, written: Iterable[str]) -> Keys:
        """Put the refused images to their positions among those that were written."""
        if not self.refused:
            return Keys.of(written)
        refused = deque(sorted(self.refused, key=lambda refusal: refusal.position))

        def every() -> Iterator[str]:
            position = 0
            for image_id in written:
                while refused and refused[0].position <= position:
                    yield refused.popleft().image_id
                    position += 1
                yield image_id
                position += 1
            yield from (refusal.image_id for refusal in refused)

        return Keys(every())

    def to_json(self) -> dict[str, Any]:
        """Return the content of manifest.json."""
        entries = self._entries()
        return {**entries, CHECKSUM: _checksum(entries)}

    def _entries(self) -> dict[str, Any]:
        present = [regions for regions, images in enumerate(self.regions_histogram) if images]
        return {
            "format": FORMAT,
            "format_version": self.format_version,
            "created": self.created,
            "store": self.store,
            **({"refers_to": self.base.to_json()} if self.base else {}),
            "tool": {"name": "semvlp", "version": self.software.get("semvlp", "unknown")},
            "software": self.software,
            "profile": self.profile,
            "schema": {
                "regions": {"dtype": "F16", "dim": self.feature_size},
                "boxes": {"dtype": "F32", "coords": "xyxy_abs"},
                "class_vocab": _vocabulary("objects", self.object_labels),
                "attr_vocab": _vocabulary("attributes", self.attribute_labels),
                "n_min": min(present, default=0),
                "n_max": max(present, default=0),
                "crc_alg": "crc32",
            },
            "extractor": plain(self.extractor),
            "source": {
                "image_list_sha256": self.image_list_sha256,
                "n_listed": self.counts["samples"] + self.counts["errors"],
                "samples_per_shard": self.samples_per_shard,
                "texts_sha256": self.texts_sha256,
                **({"boxes_sha256": self.boxes_sha256} if self.boxes_sha256 else {}),
            },
            "counts": self.counts,
            "shards": [shard.to_json() for shard in self.shards],
            "errors": [refusal.to_json() for refusal in self.refused],
            "dataset_sha256": self.dataset_sha256,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Manifest":
        """Read what `to_json` gave; derived entries are computed anew."""
        schema, source = entry["schema"], entry["source"]
        manifest = cls(
            store=entry["store"],
            format_version=entry["format_version"],
            created=entry["created"],
            software=dict(entry["software"]),
            extractor=dict(entry["extractor"]),
            object_labels=tuple(schema["class_vocab"]["labels"]),
            attribute_labels=tuple(schema["attr_vocab"]["labels"]),
            feature_size=whole(schema["regions"], "dim", least=1, most=MOST_FEATURES),
            samples_per_shard=whole(source, "samples_per_shard", least=1),
            image_list_sha256=source["image_list_sha256"],
            texts_sha256=source["texts_sha256"],
            boxes_sha256=source.get("boxes_sha256", ""),
            base=Base.from_json(entry["refers_to"]) if "refers_to" in entry else None,
            shards=tuple(map(ShardEntry.from_json, entry["shards"])),
            refused=tuple(map(Refusal.from_json, entry["errors"])),
        )
        for shard in manifest.shards:
            # The regions of a base are not in its bytes.
            shard.check_bounds(0 if manifest.base else manifest.feature_size)
        listed = manifest.counts["samples"] + manifest.counts["errors"]
        positions = {refusal.position for refusal in manifest.refused}
        if len(positions) < len(manifest.refused) or max(positions, default=-1) >= listed:
            raise ValueError(f"positions of errors must differ and be below {listed}")
        return manifest


def read_manifest(directory: Path | str) -> Manifest:
    """Read the manifest of a finished data set.

    Raises:
        InputError: there is none, it is damaged, or a later program wrote it.
    """
    path = Path(directory) / MANIFEST_NAME
    try:
        entry = from_json(path.read_bytes())
        _check_version(entry, path)
        manifest = Manifest.from_json(entry)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(_no_manifest(path)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged ({error!r}); copy it again from where it came, or run the command "
            "that made the data set once more"
        ) from error
    _check_derived(entry, manifest.to_json(), path)
    return manifest


def _vocabulary(kind: str, labels: Sequence[str]) -> dict[str, Any]:
    name = f"{kind}-{len(labels)}"
    return {"name": name, "sha256": list_sha256(labels), "labels": list(labels)}


def _checksum(entries: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the entries, written without blanks and in the order of their names."""
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_version(entry: Mapping[str, Any], path: Path) -> None:
    if entry["format"] != FORMAT:
        raise InputError(f"{path} describes {entry['format']!r}, not {FORMAT!r}")
    version = str(entry["format_version"])
    known = REFERENCE_VERSION if "refers_to" in entry else FORMAT_VERSION
    if version.partition(".")[0] != str(known):
        raise InputError(
            f"{path} has format version {version}; this program reads version {known}: "
            "install the version of semvlp that wrote it, or a later one"
        )


def _check_derived(entry: Mapping[str, Any], computed: Mapping[str, Any], path: Path) -> None:
    """Check that what follows from other entries agrees with them: nobody changed one of them."""
    pairs = [(name, entry, computed) for name in ("profile", "counts", "dataset_sha256")]
    for name in ("class_vocab", "attr_vocab"):
        pairs.append((name, entry["schema"], computed["schema"]))
    if CHECKSUM in entry:
        own = {name: value for name, value in entry.items() if name != CHECKSUM}
        pairs.append((CHECKSUM, entry, {CHECKSUM: _checksum(own)}))
    for name, stated, expected in pairs:
        if stated.get(name) != expected[name]:
            raise InputError(
                f"{path} is damaged: its {name} does not follow from its other entries; "
                "copy it again from where it came"
            )


def _no_manifest(path: Path) -> str:
    if (path.parent / PLAN_NAME).exists():
        return (
            f"{path.parent} is not finished: it has no {MANIFEST_NAME}; "
            "run the same command again, it goes on where it stopped"
        )
    return (
        f"{path.parent} is not a data set of regions: it has no {MANIFEST_NAME}; "
        "name a directory that `semvlp extract` or `semvlp shards` wrote"
    )
