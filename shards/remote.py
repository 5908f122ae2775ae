"""Data sets at remote addresses: copied once into a cache that is named by their content.

The cache is kept within a bound: the data set used longest ago goes first.
"""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin

import aiohttp
import fsspec

from semvlp import atomic
from semvlp.addresses import refuse_plain_http
from semvlp.errors import ConfigError, InputError
from semvlp.progress import Progress
from semvlp.shards.dataset.hashes import file_sha256
from semvlp.shards.dataset.manifest import MANIFEST_NAME, Manifest, ShardEntry, read_manifest
from semvlp.shards.stores.tar_index import INDEX_NAME, read_index

log = logging.getLogger(__name__)

CACHE_VARIABLE = "SEMVLP_CACHE"
BOUND_VARIABLE = "SEMVLP_CACHE_GB"
LOCK_NAME = ".lock"
USED_NAME = ".used"
ATTEMPTS = 3
STALL_SECONDS = 60.0
"""A server that sends nothing for so long has failed."""
BACKOFF_SECONDS = 1.0
"""Pause after the first failed attempt; doubled after each further one."""
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
"""What the extra `remote` installs."""

# Open as long as this process runs: what it has opened is not removed by another one.
_in_use: dict[Path, IO[str]] = {}


def localize(address: str) -> Path:
    """Return the local directory of a data set; a local path stays as it is.

    A remote one (`https://`, `s3://`, `gs://`, `hf://`, ...) is downloaded whole: its manifest, the
    files that lists, each checked by size and SHA-256 before it counts as there. What an earlier
    call has finished is kept. The cache is $SEMVLP_CACHE, else ~/.cache/semvlp; two data sets of
    one name never meet in it. With $SEMVLP_CACHE_GB the data sets used longest ago are removed from
    it until the new one fits; those that a running process has opened stay.

    Raises:
        ConfigError: the protocol is unknown or needs a package that is not installed, or the cache
            is too small, or it is plain HTTP and nobody has allowed that.
        InputError: there is no data set, or its files cannot be had as the manifest states them, or
            its regions lie in another one.
    """
    if "://" not in address:
        return Path(address)
    remote = _Remote(address)
    cache = cache_folder()
    atomic.make_directory(cache)
    with atomic.scratch(cache / MANIFEST_NAME) as folder:
        aside = folder / MANIFEST_NAME
        remote.fetch(MANIFEST_NAME, aside, check=lambda path: None)
        manifest = read_manifest(folder)
        if manifest.base is not None:
            raise InputError(
                f"{address} holds texts alone and reads the regions of {manifest.base.path} beside "
                "it; copy both to this machine, or publish what `semvlp shards convert` makes of it"
            )
        target: Path = cache / file_sha256(aside)[:32]
        atomic.make_directory(target)
        with _locked(target):
            make_room(cache, target, sum(shard.bytes for shard in manifest.shards))
            _download(remote, manifest, target)
            atomic.write_bytes(target / MANIFEST_NAME, aside.read_bytes())
        hold(target)
    return target


def cache_folder() -> Path:
    """Return the folder of what can be had again: $SEMVLP_CACHE, else ~/.cache/semvlp."""
    return Path(os.environ.get(CACHE_VARIABLE, "~/.cache/semvlp")).expanduser()


def make_room(cache: Path, target: Path, size: int) -> None:
    """Remove data sets that nobody uses until `target` can grow to `size` bytes.

    Raises:
        ConfigError: it does not fit even so, or the bound is no number.
    """
    bound = _bound()
    if bound is None:
        return
    others = [folder for folder in cache.iterdir() if folder.is_dir() and folder != target]
    others = [folder for folder in others if (folder / USED_NAME).exists()]
    sizes = {folder: _size(folder) for folder in others}
    for folder in sorted(others, key=lambda folder: (folder / USED_NAME).stat().st_mtime):
        if size + sum(sizes.values()) <= bound:
            return
        if _remove(folder):
            del sizes[folder]
    if size + sum(sizes.values()) > bound:
        raise ConfigError(
            f"the cache {cache} may hold {bound / 1e9:g} GB and {sum(sizes.values()) / 1e9:g} GB "
            f"of it are in use, but {size / 1e9:g} GB are needed: raise {BOUND_VARIABLE}"
        )


def hold(folder: Path) -> None:
    """Mark a data set of the cache as used now, and as in use until this process ends."""
    if folder not in _in_use:
        _in_use[folder] = (folder / USED_NAME).open("a")
        fcntl.flock(_in_use[folder], fcntl.LOCK_SH)
    os.utime(folder / USED_NAME)


def _bound() -> float | None:
    """Return the bytes that the cache may hold, None without a bound."""
    text = os.environ.get(BOUND_VARIABLE)
    try:
        return float(text) * 1e9 if text else None
    except ValueError:
        raise ConfigError(f"{BOUND_VARIABLE} must be a number of GB, got {text!r}") from None


def _remove(folder: Path) -> bool:
    """Remove a data set unless a process has opened it."""
    if folder in _in_use:
        return False
    with (folder / USED_NAME).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        log.info("removing %s from the cache", folder)
        shutil.rmtree(folder)
    return True


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process of a machine download; the others wait and find everything there."""
    with (folder / LOCK_NAME).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Remote:
    """A directory on any file system fsspec knows."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/").removesuffix(f"/{MANIFEST_NAME}")
        for part in address.split("::"):  # as in simplecache::https://...
            refuse_plain_http(part)
        options: dict[str, Any] = {}
        if address.startswith("http"):
            # The default ends a download after five minutes, however well it goes.
            limits = aiohttp.ClientTimeout(
                total=None, sock_connect=STALL_SECONDS, sock_read=STALL_SECONDS
            )
            watch = aiohttp.TraceConfig()
            watch.on_request_redirect.append(_check_redirect)
            options = {"client_kwargs": {"timeout": limits, "trace_configs": [watch]}}
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address, **options)
        except ImportError as error:
            package = _PACKAGES.get(address.partition("://")[0])
            remedy = f"needs the package {package}: pip install 'semvlp[remote]'" if package else ""
            raise ConfigError(f"{address} {remedy or f'cannot be opened: {error}'}") from error
        except ValueError as error:
            raise ConfigError(f"{address} cannot be opened: {error}") from error

    def fetch(self, name: str, path: Path, *, check: Callable[[Path], object]) -> None:
        """Download one file to `path`, where it appears only once `check` has passed.

        Raises:
            InputError: it is not there, or every attempt failed.
        """
        for attempt in range(ATTEMPTS):
            try:
                with atomic.aside(path) as made:
                    self._files.get_file(f"{self._root}/{name}", str(made))
                    check(made)
                return
            except FileNotFoundError as error:
                raise InputError(
                    f"{self.address}/{name} does not exist; a data set's address is that of the "
                    f"directory with its {MANIFEST_NAME}"
                ) from error
            except ConfigError:
                raise  # sent on to where it may not go, however often it asks
            except Exception as error:
                # Each file system has exceptions of its own for a connection that breaks.
                self._wait(name, attempt, error)

    def _wait(self, name: str, attempt: int, error: BaseException) -> None:
        """Pause before the next attempt; after the last one there is none."""
        if attempt == ATTEMPTS - 1:
            raise InputError(
                f"{self.address}/{name} could not be downloaded in {ATTEMPTS} attempts; "
                f"the last one: {error}; the same command goes on with the files still missing"
            ) from error
        pause = BACKOFF_SECONDS * 2**attempt
        log.warning("%s/%s: %s; again in %.1f s", self.address, name, error, pause)
        time.sleep(pause)


async def _check_redirect(session: object, context: object, parameters: Any) -> None:
    """Raise where a server sends us on from where we may go to where we may not."""
    target = urljoin(str(parameters.url), parameters.response.headers.get("Location", ""))
    refuse_plain_http(target)


def _download(remote: _Remote, manifest: Manifest, target: Path) -> None:
    missing = [shard for shard in manifest.shards if not _is_complete(target, shard)]
    done = len(manifest.shards) - len(missing)
    with Progress("downloading", total=len(manifest.shards), unit="files", done=done) as bar:
        for shard in missing:
            remote.fetch(shard.name, target / shard.name, check=_checker(shard))
            bar.advance()
    if manifest.store == "tar" and not (target / INDEX_NAME).exists():
        # The manifest does not list it; the store compares it with the shards.
        remote.fetch(INDEX_NAME, target / INDEX_NAME, check=read_index)


def _is_complete(target: Path, shard: ShardEntry) -> bool:
    """Tell by its size whether a file, which passed its check to get this name, was not touched."""
    path = target / shard.name
    return path.is_file() and path.stat().st_size == shard.bytes


def _checker(shard: ShardEntry) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        size = path.stat().st_size
        if size != shard.bytes:
            raise InputError(f"{shard.bytes} bytes expected, {size} received")
        if file_sha256(path) != shard.sha256:
            raise InputError("its SHA-256 is not that of the manifest")

    return check
