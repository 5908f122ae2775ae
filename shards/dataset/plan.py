"""The plan of a data set, which is written before the first sample."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import ConfigError, InputError
from semvlp.names import StoreKind
from semvlp.shards.dataset.entries import Base
from semvlp.shards.dataset.hashes import plain, profile_hash
from semvlp.shards.keys import Keys
from semvlp.shards.record import FORMAT, FORMAT_VERSION, NO_ATTRIBUTE, Sample, make_key

PLAN_NAME = "plan.json"


class Part(NamedTuple):
    """The shards of a plan that one of several processes writes: every `size`-th from `rank`."""

    rank: int
    size: int


WHOLE = Part(0, 1)


class Positions:
    """Some of the first `count` whole numbers, one byte each."""

    def __init__(self, count: int) -> None:
        self._marks = bytearray(count)

    def __contains__(self, position: int) -> bool:
        return bool(self._marks[position])

    def add(self, position: int) -> None:
        """Add one."""
        self._marks[position] = 1

    def update(self, positions: Iterable[int]) -> None:
        """Add several."""
        for position in positions:
            self._marks[position] = 1

    def sorted(self) -> NDArray[np.int64]:
        """Return them in their order."""
        return np.flatnonzero(np.frombuffer(self._marks, np.uint8))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides which bytes are written: the same plan gives the same shards.

    Raises:
        InputError: an image id that cannot be a key, or one that is listed twice.
        ConfigError: a size that is not positive.
    """

    image_ids: Sequence[str]
    """Every image of the data set, in the order it is written; see `keys`."""
    extractor: dict[str, Any]
    """What shaped the numbers, as plain JSON values: the source of the profile."""
    object_labels: tuple[str, ...]
    """Name of each object class."""
    attribute_labels: tuple[str, ...]
    """Name of each attribute; empty where the detector has none."""
    feature_size: int
    """Width of one region feature."""
    samples_per_shard: int
    """Images of one tar shard, refused ones included."""
    texts_sha256: str = ""
    """`files_sha256` of the text files joined to the images; empty where there are none."""
    boxes_sha256: str = ""
    """Hash of the boxes that were given with the images; empty where a detector finds them. No part
    of the profile: data sets of one detector and several files of boxes go together."""
    base: Base | None = None
    """Where the regions of a store of the kind `reference` lie; other stores have their own."""

    def __post_init__(self) -> None:
        if self.samples_per_shard < 1 or self.feature_size < 1:
            raise ConfigError(
                "samples_per_shard and feature_size must be at least 1, got "
                f"{self.samples_per_shard} and {self.feature_size}"
            )
        for image_id in self.image_ids:
            make_key(image_id)
        repeated = self.keys.first_repeated()
        if repeated is not None:
            raise InputError(
                f"image id {repeated!r} is listed twice; ids must be unique: "
                "rename a file or give a JSON list of ids and files"
            )

    @cached_property
    def keys(self) -> Keys:
        """The images, to be looked up."""
        return Keys.of(self.image_ids)

    @cached_property
    def profile(self) -> str:
        """Hash of the extractor."""
        return profile_hash(self.extractor)

    @cached_property
    def image_list_sha256(self) -> str:
        """Hash of the ordered image list."""
        return self.keys.sha256

    @property
    def num_shards(self) -> int:
        """Number of tar shards, the last one possibly shorter."""
        return -(-len(self.image_ids) // self.samples_per_shard)

    def positions(self, shard: int) -> range:
        """Return the positions in `image_ids` that belong to a shard."""
        start = shard * self.samples_per_shard
        return range(start, min(start + self.samples_per_shard, len(self.image_ids)))

    def shards(self, part: Part) -> range:
        """Return the tar shards of a part: all parts together have each of them once."""
        return range(part.rank, self.num_shards, part.size)

    def to_json(self, store: StoreKind, *, images: bool = True) -> dict[str, Any]:
        """Return the content of plan.json; every entry must be equal for work to go on.

        Args:
            images: whether to list them; else the list, the last entry, is empty.
        """
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "store": store,
            **({"refers_to": self.base.to_json()} if self.base and store == "reference" else {}),
            "feature_size": self.feature_size,
            "samples_per_shard": self.samples_per_shard,
            "extractor": plain(self.extractor),
            "texts_sha256": self.texts_sha256,
            **({"boxes_sha256": self.boxes_sha256} if self.boxes_sha256 else {}),
            "object_labels": list(self.object_labels),
            "attribute_labels": list(self.attribute_labels),
            "image_ids": list(self.image_ids) if images else [],
        }


def check_fits(sample: Sample, plan: Plan) -> None:
    """Check that a sample may stand in the data set of a plan.

    Raises:
        InputError: its key, profile, feature size or a label is not one of the plan.
    """
    regions = sample.regions
    if sample.key != regions.image_id:
        raise InputError(f"sample {sample.key}: its image id is {regions.image_id!r}, not its key")
    if regions.profile != plan.profile:
        raise InputError(
            f"image {sample.key}: profile {regions.profile} where the data set has {plan.profile}; "
            "data of different extractors must not be mixed"
        )
    if regions.features.shape[1] != plan.feature_size:
        raise InputError(
            f"image {sample.key}: features must have size {plan.feature_size}, "
            f"got {regions.features.shape[1]}"
        )
    _check_labels(sample.key, "object", regions.object_ids, 0, len(plan.object_labels))
    attributes = len(plan.attribute_labels)
    _check_labels(sample.key, "attribute", regions.attribute_ids, NO_ATTRIBUTE, attributes)


def differences(
    begun: Mapping[str, Any], wanted: Mapping[str, Any], where: str = ""
) -> Iterator[str]:
    """Name every field that differs, with both values if they are short."""
    for name in [*wanted, *(name for name in begun if name not in wanted)]:
        old, new = begun.get(name), wanted.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, f"{where}{name}.")
        elif isinstance(old, list) and isinstance(new, list):
            yield f"{where}{name} {_list_difference(old, new)}"
        else:
            yield f"{where}{name} was {old!r}, now {new!r}"


def _list_difference(old: Sequence[Any], new: Sequence[Any]) -> str:
    pairs = enumerate(zip(old, new, strict=False))
    first = next((i for i, (a, b) in pairs if a != b), min(len(old), len(new)))
    return (
        f"had {len(old)} entries, now {len(new)}, the first difference at {first} "
        f"({old[first : first + 1]} now {new[first : first + 1]})"
    )


def _check_labels(key: str, kind: str, ids: NDArray[np.int16], least: int, labels: int) -> None:
    """Check the ids of labels; a data set without names of labels may have any."""
    if labels and len(ids) and (ids.min() < least or ids.max() >= labels):
        raise InputError(
            f"image {key}: {kind} ids must be {least}..{labels - 1}, got {ids.min()}..{ids.max()}"
        )
