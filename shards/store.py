"""What every store of samples offers, and how one is opened."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from semvlp.shards.manifest import Manifest, read_manifest
from semvlp.shards.record import Sample, Texts


class Store(Protocol):
    """Random access to the samples of one data set, in the order of its plan."""

    path: Path
    manifest: Manifest

    @property
    def image_ids(self) -> Sequence[str]:
        """The images in the order of the plan; refused ones are not among them."""

    def __len__(self) -> int: ...

    def __contains__(self, image_id: object) -> bool: ...

    def index_of(self, image_id: str) -> int:
        """Position of an image.

        Raises:
            InputError: the store does not hold it.
        """

    def sample(self, index: int) -> Sample:
        """The whole sample, its checksum compared the first time it is read.

        Raises:
            InputError: the sample is damaged; names file and key.
        """

    def texts(self, index: int) -> Texts:
        """The texts alone, without reading the regions."""

    def members(self, index: int) -> tuple[bytes, bytes | memoryview]:
        """The JSON and the regions as they are stored, to be copied without change."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_store(path: Path | str) -> Store:
    """Open the tar shards or the LMDB in the directory `path`, by its `manifest.json`.

    Raises:
        InputError: no manifest, an unknown format version, or files that differ from the manifest.
    """
    manifest = read_manifest(path)
    if manifest.store == "lmdb":
        from semvlp.shards.lmdb_store import LmdbStore

        return LmdbStore(Path(path), manifest)
    from semvlp.shards.tar_store import TarStore

    return TarStore(Path(path), manifest)
