"""What the manifest lists: files of samples, a data set referred to, images that were refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semvlp.atomic import is_plain_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """One file of samples, as its commit record and the manifest state it."""

    name: str
    samples: int
    bytes: int
    sha256: str
    captions: int
    questions: int
    regions_histogram: tuple[int, ...]
    """Number of images with 0, 1, 2, ... regions."""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "n": self.samples,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "texts": self.captions + self.questions,
            "captions": self.captions,
            "n_hist": list(self.regions_histogram),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "ShardEntry":
        if not is_plain_name(entry["name"]):
            raise ValueError(f"{entry['name']!r:.80} is no plain file name")
        return cls(
            name=entry["name"],
            samples=entry["n"],
            bytes=entry["bytes"],
            sha256=entry["sha256"],
            captions=entry["captions"],
            questions=entry["texts"] - entry["captions"],
            regions_histogram=tuple(entry["n_hist"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The data set whose regions another one reads where they lie."""

    path: str
    """From the folder of the other one; absolute where they share no folder."""
    images: int
    dataset_sha256: str

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "images": self.images, "dataset_sha256": self.dataset_sha256}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Base":
        return cls(
            path=str(entry["path"]),
            images=entry["images"],
            dataset_sha256=entry["dataset_sha256"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An image of the plan that could not be extracted."""

    position: int
    """Where it stands in the plan."""
    image_id: str
    file: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "key": self.image_id,
            "file": self.file,
            "error": self.reason,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Refusal":
        return cls(
            position=entry["position"],
            image_id=entry["key"],
            file=entry["file"],
            reason=entry["error"],
        )
