"""Opening a store, whatever it is and wherever it lies."""

from pathlib import Path

from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.stores.store import Store


def open_store(path: Path | str) -> Store:
    """Open the tar shards or the LMDB in the directory `path`, by its `manifest.json`.

    A tar, or a pattern such as `shards/shard-00000*.tar`, opens those shards of the data set alone.
    A remote address is copied first, see `remote.py`.

    Raises:
        InputError: no manifest, an unknown format version, or files that differ from the manifest;
            a pattern that no shard fits.
    """
    path, pattern = _split(_localized(path))
    manifest = read_manifest(path)
    if manifest.store == "lmdb" and not pattern:
        from semvlp.shards.stores.lmdb_store import LmdbStore

        return LmdbStore(path, manifest)
    from semvlp.shards.stores.tar_store import TarStore

    return TarStore(path, manifest, pattern)


def local_store(path: Path | str) -> Path:
    """Return where on this machine a store lies that has a manifest, without opening it.

    Raises:
        InputError: as `open_store`, of the manifest.
    """
    here = _localized(path)
    read_manifest(_split(here)[0])
    return here


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
