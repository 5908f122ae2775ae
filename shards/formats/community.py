"""A community data set that has been opened, and what a community format is."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.record import Regions


class Unreadable(NamedTuple):
    """A record of which not even the image is known."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommunityDataset:
    """The images of a data set in its own order; each is read when it is asked for."""

    image_ids: tuple[str, ...]
    read: Callable[[str], RawRegions]
    """One image by id.

    Raises:
        InputError: its entry is damaged; the reason without the id.
    """
    file_of: Callable[[str], str]
    """The file an image stands in, for messages."""
    task: Callable[[str], Callable[[], RawRegions]] | None = None
    """What `read` does of one image, as a call that another process can make; None where the data
    set cannot be read from there."""
    name_of: Callable[[str], str] = lambda image_id: ""
    """The name an image has in its file; empty where that is the id."""
    unreadable: Mapping[str, "Unreadable"] = field(default_factory=dict)
    """Records that stand for no image, each under a name of its own."""
    last_rows: frozenset[str] = frozenset()
    """Images whose row ends with the file: one of them that cannot be read was cut off."""
    object_labels: tuple[str, ...] = ()
    """Names of the object classes; empty where the data set does not say."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What was assumed in reading, as plain JSON values: part of the profile."""
    close: Callable[[], None] = lambda: None


class Export(Protocol):
    """Write images in a community format at `path`, which does not exist; returns how many."""

    def __call__(
        self, regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]
    ) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CommunityFormat:
    """One file layout of region features, read and written."""

    what: str
    """The layout in a few words, with the system it comes from."""
    open: Callable[[Path], CommunityDataset]
    """The data set at a path.

    Raises:
        InputError: it is not of this format.
    """
    write: Export
