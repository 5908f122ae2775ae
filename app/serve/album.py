"""The photographs that a server is asked about: those of a store, and those that people give it.

Boxes are xyxy in pixels.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple, Self

from semvlp.app.assistant import Assistant
from semvlp.errors import InputError
from semvlp.extract.images.find import ImageFile, Refused, from_bytes, images_by_id
from semvlp.extract.preview import jpeg
from semvlp.shards.open import open_store
from semvlp.shards.record import Regions
from semvlp.shards.stores.store import Store

WIDTHS = {"small": 240, "large": 1024}
QUALITY = 85
KEPT = 32
"""The regions of so many photographs that were given are kept for the next question."""


class Given(NamedTuple):
    """A photograph that somebody sent: its name says nothing but what to call it in an error."""

    name: str
    data: bytes


class Vocabulary(NamedTuple):
    """The names of classes and attributes by the ids of regions."""

    objects: tuple[str, ...]
    attributes: tuple[str, ...]


class Album:
    """The photographs of a store: their regions, and their pictures where their files are."""

    def __init__(self, store: Store, files: dict[str, ImageFile]) -> None:
        self.store, self._files = store, files

    @classmethod
    def opened(cls, shards: Path | str, images: Path | None) -> Self:
        """Open the store at `shards`, whose image files are in `images` (see `find_images`).

        Raises:
            InputError: no such store, or no images there.
        """
        files = images_by_id(images)
        return cls(open_store(shards), files)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    @property
    def vocabulary(self) -> Vocabulary:
        """The names of the regions' classes."""
        manifest = self.store.manifest
        return Vocabulary(manifest.object_labels, manifest.attribute_labels)

    def has_picture(self, image_id: str) -> bool:
        """Tell whether the image file of a photograph of the store is at hand."""
        return image_id in self._files and image_id in self.store

    def picture(self, image_id: str, size: str) -> bytes:
        """Return a photograph of the store as a JPEG; no other file is ever read.

        Raises:
            InputError: its file is not at hand or cannot be read.
        """
        if not self.has_picture(image_id) or size not in WIDTHS:
            raise InputError(f"there is no {size} picture of {image_id!r}; --images says where")
        try:
            return jpeg(self._files[image_id], max_width=WIDTHS[size], quality=QUALITY)
        except Refused as error:
            raise InputError(f"{image_id}: {error}") from error


class GivenRegions:
    """The regions of photographs that were given; of the last ones they are remembered."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], Regions] = {}

    def __call__(self, assistant: Assistant, photo: Given) -> Regions:
        """Return the regions of a photograph as the detector of an assistant sees it.

        Raises:
            ConfigError: the detector cannot be found.
            InputError: it is no photograph.
        """
        key = id(assistant), hashlib.sha256(photo.data).hexdigest()
        if key not in self._known:
            try:
                self._known[key] = assistant.regions(from_bytes(photo.data))
            except Refused as error:
                raise InputError(f"{photo.name!r}: {error}") from error
            while len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
        return self._known[key]
