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
    if "://" in str(path):
        from semvlp.shards.remote import localize

        path = localize(str(path))
    path = Path(path)
    pattern = ""
    if path.suffix == ".tar" and not path.is_dir():
        path, pattern = path.parent, path.name
    manifest = read_manifest(path)
    if manifest.store == "lmdb" and not pattern:
        from semvlp.shards.stores.lmdb_store import LmdbStore

        return LmdbStore(path, manifest)
    from semvlp.shards.stores.tar_store import TarStore

    return TarStore(path, manifest, pattern)
