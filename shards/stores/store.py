"""The interface of every store of samples."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from semvlp.closing import Closing
from semvlp.errors import InputError
from semvlp.shards.batch import Damage, StoredSample
from semvlp.shards.codec import (
    Layout,
    blob_layout,
    check_blob,
    decode,
    decode_entry,
    name_of,
    texts_of,
)
from semvlp.shards.dataset.manifest import Manifest
from semvlp.shards.keys import Keys
from semvlp.shards.record import Regions, Sample, Texts

Members = tuple[bytes, bytes | memoryview]
"""The JSON and the regions of a sample as they are stored."""


class Store(Closing, ABC):
    """Random access to the samples of one data set, in the order of its plan.

    Safe after a fork and in a pickle.
    """

    def __init__(self, path: Path, manifest: Manifest, image_ids: Keys) -> None:
        self.path, self.manifest = path, manifest
        self.image_ids = image_ids
        """The images in the order of the plan; refused ones are not among them."""
        self._layouts: list[Layout | None] = [None] * len(image_ids)
        """Of the samples whose checksums were compared; their headers are not read again."""

    def __len__(self) -> int:
        return len(self.image_ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self.image_ids

    def index_of(self, image_id: str) -> int:
        """Return the position of an image.

        Raises:
            InputError: the store does not hold it.
        """
        index = self.image_ids.find(image_id)
        if index is None:
            raise InputError(f"{self.path} has no image {image_id!r}")
        return index

    def sample(self, index: int) -> Sample:
        """Read the whole sample; its checksum is compared the first time.

        Raises:
            InputError: the sample is damaged; names file and key.
        """
        return self._decoded(index, self._read(index))

    def regions(self, image_id: str) -> Regions:
        """Read the regions of an image.

        Raises:
            InputError: the store does not hold it, or it is damaged.
        """
        return self.sample(self.index_of(image_id)).regions

    def texts(self, index: int) -> Texts:
        """Read the texts alone, without reading the regions."""
        text = self.entry(index)
        with self._naming(index):
            return texts_of(decode_entry(text))

    def name(self, index: int) -> str:
        """Read the name of an image as its file spells it, without the extension."""
        text = self.entry(index)
        with self._naming(index):
            return name_of(decode_entry(text)) or self.image_ids[index]

    def members(self, index: int) -> Members:
        """Read the JSON and the regions as they are stored, to be copied without change."""
        members = self._read(index)
        self._decoded(index, members)
        return members

    @property
    def source(self) -> Path:
        """What opens the store."""
        return self.path

    @property
    def base(self) -> "Store":
        """The store that holds the regions: itself, unless it refers to another one."""
        return self

    @property
    def shard_sizes(self) -> Sequence[int]:
        """Images of each shard; those of an LMDB are what its tar shards would hold."""
        return self.manifest.shard_sizes

    def checked_entry(self, index: int) -> bytes:
        """Read the JSON alone, as it is stored, and what it says of itself.

        Raises:
            InputError: it is damaged, or of another image or extractor.
        """
        text = self.entry(index)
        self._check_entry(index, text)
        return text

    @abstractmethod
    def entry(self, index: int) -> bytes:
        """Read the JSON alone, as it is stored."""

    @abstractmethod
    def entries(self, indices: Sequence[int]) -> list[bytes | Damage]:
        """Read the JSON of several samples; it is decoded until the sample was read whole."""

    def text_counts(self) -> Sequence[int]:
        """Return the number of texts of each image; without an index, every JSON is read."""
        counts = self.indexed_text_counts()
        if counts is not None:
            return cast("list[int]", counts.tolist())
        every = map(self.texts, range(len(self)))
        return [len(texts.captions) + len(texts.questions) for texts in every]

    def indexed_text_counts(self) -> NDArray[np.integer[Any]] | None:
        """Return the number of texts of each image [N] by the index, None where there is none."""
        return None

    @abstractmethod
    def view(
        self, indices: Sequence[int]
    ) -> AbstractContextManager[Iterator[StoredSample | Damage]]:
        """Give samples without a copy, for as long as the context; they are checked like `sample`.

        Each is looked up when it is asked for: bytes that were just touched are copied fastest.
        """

    @abstractmethod
    def prefetch(self, samples: Sequence[int], entries: Sequence[int]) -> None:
        """Tell the system what is read soon: whole samples, and JSON alone; returns at once."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _read(self, index: int) -> Members:
        """Read the members into memory of their own."""

    @abstractmethod
    def _damage(self, index: int, problem: str) -> str:
        """Return the message for a damaged sample: where it lies and what is wrong."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)

    def _decoded(self, index: int, members: Members) -> Sample:
        with self._naming(index):
            sample = decode(*members, check=self._layouts[index] is None)
            self._check_key(index, sample.key)
        self._layouts[index] = blob_layout(members[1])
        return sample

    def damage_of(self, index: int, error: InputError) -> Damage:
        """Return the value that an error of reading a sample is for who goes on behind it."""
        return Damage(self.image_ids[index], str(self.path), str(error))

    def _stored(self, index: int, read: Callable[[int], Members]) -> StoredSample | Damage:
        """Read the members, compared with their checksum unless that was done before."""
        try:
            members = read(index)
            layout = self._layouts[index]
            if layout is None:
                with self._naming(index):
                    layout = self._checked_layout(index, *members)
        except InputError as error:
            return self.damage_of(index, error)
        self._layouts[index] = layout
        return (*members, layout)

    def _checked_entry(self, index: int, read: Callable[[int], bytes]) -> bytes | Damage:
        """Read the JSON of a sample that was not read before."""
        try:
            text = read(index)
            self._check_entry(index, text)
        except InputError as error:
            return self.damage_of(index, error)
        return text

    def _check_entry(self, index: int, text: bytes) -> None:
        with self._naming(index):
            entry = decode_entry(text)
            self._check_key(index, entry["key"])
            if entry["profile"] != self.manifest.profile:
                raise InputError(f"it is of the profile {entry['profile']}")
            texts_of(entry)

    @contextmanager
    def _naming(self, index: int) -> Iterator[None]:
        """Let an error that is raised inside say where the sample lies."""
        try:
            yield
        except InputError as error:
            raise InputError(self._damage(index, str(error))) from error

    def _checked_layout(self, index: int, text: bytes, blob: bytes | memoryview) -> Layout:
        entry = decode_entry(text)
        self._check_key(index, entry["key"])
        check_blob(entry, blob)
        texts_of(entry)
        layout = blob_layout(blob, entry["key"])
        size = layout.spans[0].shape[1]
        if size != self.manifest.feature_size:
            raise InputError(f"features must have size {self.manifest.feature_size}, got {size}")
        return layout

    def _check_key(self, index: int, key: str) -> None:
        if key != self.image_ids[index]:
            raise InputError(f"it holds the sample {key!r}")
