"""What the manifest lists: files of samples, a data set referred to, images that were refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semvlp.atomic import is_plain_name
from semvlp.errors import shown

MOST = 2**62
MOST_FEATURES = 2**20
"""Width of a region's features, which what is allotted for a batch goes by."""


def whole(entry: Mapping[str, Any], name: str, *, least: int = 0, most: int = MOST) -> int:
    """Return a number that an entry holds, which must be whole and in a range.

    Raises:
        KeyError: it holds none.
        ValueError: it is anything else.
    """
    return _whole(entry[name], name, least, most)


def _whole(value: Any, name: str, least: int = 0, most: int = MOST) -> int:
    # To Python True is 1.
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(
            f"{name} must be a whole number from {least} to {most}, got {shown(value)}"
        )
    return value


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
        texts = whole(entry, "texts")
        captions = whole(entry, "captions", most=texts)
        histogram = tuple(_whole(images, "n_hist") for images in entry["n_hist"])
        if whole(entry, "n") != sum(histogram):
            raise ValueError(f"n must be the sum of n_hist, {sum(histogram)}, got {entry['n']}")
        return cls(
            name=entry["name"],
            samples=entry["n"],
            bytes=whole(entry, "bytes"),
            sha256=entry["sha256"],
            captions=captions,
            questions=texts - captions,
            regions_histogram=histogram,
        )

    def check_bounds(self, feature_size: int) -> None:
        """Check that what a finished file is to hold fits into its bytes.

        Raises:
            ValueError: samples or texts of no bytes, or features of less than two.
        """
        regions = sum(count * images for count, images in enumerate(self.regions_histogram))
        texts = self.captions + self.questions
        if max(self.samples, texts, 2 * regions * feature_size) > self.bytes:
            raise ValueError(
                f"{self.name} of {self.bytes} bytes cannot hold {self.samples} samples with "
                f"{regions} regions of {feature_size} features and {texts} texts"
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
            images=whole(entry, "images"),
            dataset_sha256=str(entry["dataset_sha256"]),
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
            position=whole(entry, "position"),
            image_id=entry["key"],
            file=entry["file"],
            reason=entry["error"],
        )
