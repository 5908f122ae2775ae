"""Opening a store, whatever it is and wherever it lies."""

import os.path
from pathlib import Path

from semvlp.errors import InputError
from semvlp.shards.dataset.manifest import Base, Manifest, read_manifest
from semvlp.shards.stores.store import Store


def open_store(path: Path | str) -> Store:
    """Open the data set in the directory `path`, by its `manifest.json`.

    It has tar shards, an LMDB, or texts alone with the regions of another data set. A tar, or a
    pattern such as `shards/shard-00000*.tar`, opens those shards of the data set alone.
    A remote address is copied first, see `remote.py`.

    Raises:
        InputError: no manifest, an unknown format version, or files that differ from the manifest;
            a pattern that no shard fits; the other data set is not there or has changed.
    """
    path, pattern = _split(_localized(path))
    manifest = read_manifest(path)
    if manifest.base is None or pattern:
        return _open_whole(path, manifest, pattern)
    from semvlp.shards.stores.reference_store import ReferenceStore

    return ReferenceStore(path, manifest, open_base(path, manifest.base))


def open_base(path: Path, base: Base) -> Store:
    """Open the data set whose regions the one in `path` reads.

    Raises:
        InputError: it cannot be opened, or is not the one that it was; names both.
    """
    source = Path(os.path.normpath(path.resolve() / base.path))
    try:
        folder, pattern = _split(source)
        manifest = read_manifest(folder)
        if manifest.base is not None:
            raise InputError(f"{folder} has no regions of its own")
        store = _open_whole(folder, manifest, pattern)
        if store.manifest.dataset_sha256 != base.dataset_sha256:
            store.close()
            raise InputError(
                f"it held {base.images} images under the hash {base.dataset_sha256[:16]}, now "
                f"{len(store)} under {store.manifest.dataset_sha256[:16]}"
            )
    except InputError as error:
        raise InputError(
            f"{path} reads the regions of {source}, which were moved, changed or lost: {error}; "
            "put them back, or join the texts anew to regions that are there"
        ) from error
    return store


def local_store(path: Path | str) -> Path:
    """Return where on this machine a store lies that has a manifest, without opening it.

    Raises:
        InputError: as `open_store`, of the manifest.
    """
    here = _localized(path)
    read_manifest(_split(here)[0])
    return here


def _open_whole(path: Path, manifest: Manifest, pattern: str) -> Store:
    if manifest.store == "lmdb" and not pattern:
        from semvlp.shards.stores.lmdb_store import LmdbStore

        return LmdbStore(path, manifest)
    from semvlp.shards.stores.tar_store import TarStore

    return TarStore(path, manifest, pattern)


def _localized(path: Path | str) -> Path:
    if "://" not in str(path):
        return Path(path)
    from semvlp.shards.remote import localize

    return localize(str(path))


def _split(path: Path) -> tuple[Path, str]:
    """Return the folder of a data set, and the pattern of the shards that alone are meant."""
    if path.suffix == ".tar" and not path.is_dir():
        return path.parent, path.name
    return path, ""
