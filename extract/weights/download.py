"""Weights from wherever the user says: a path, an https URL, a repository of the hub."""

import hashlib
import logging
import re
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from semvlp import atomic
from semvlp.addresses import refuse_plain_http
from semvlp.errors import InputError
from semvlp.progress import Progress
from semvlp.shards.dataset.hashes import file_sha256
from semvlp.web import announced, opened, pieces

log = logging.getLogger(__name__)

# A detector of our own, and what Hugging Face's library called every model's weights.
_HUB_FILES = ("detector.safetensors", "pytorch_model.bin")
_PYTORCH = "download.pytorch.org"
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")
_HASH_DIGITS = 64
_MIB = 2**20


def fetch(address: str) -> Path:
    """Return the local file of `address`; downloads stay in torch's or Hugging Face's own cache.

    `address` is a path, `https://...`, or `hf:OWNER/NAME[/FILE]`; without FILE it is
    detector.safetensors, where there is none pytorch_model.bin. Behind `#sha256=` stands the hash
    the file must have; PyTorch's own files have the start of theirs in their names.

    Raises:
        ConfigError: it is plain HTTP without a hash, and nobody has allowed that.
        InputError: it cannot be downloaded, is no file, or has another hash.
    """
    address, _, sha256 = address.partition("#sha256=")
    sha256 = sha256.lower() or _hash_in_name(address)
    path = _local(address, sha256)
    _check_hash(path, sha256, str(path))
    return path


def _hash_in_name(address: str) -> str:
    """Return the first digits of its sha256 that a file of PyTorch's server has in its name."""
    parts = urlsplit(address)
    found = _HASH_IN_NAME.search(parts.path) if parts.hostname == _PYTORCH else None
    return found[1] if found else ""


def _check_hash(path: Path, sha256: str, name: str) -> None:
    """Raise unless the hash of a file starts with `sha256`, which is empty where none is known."""
    if sha256 and not (found := file_sha256(path)).startswith(sha256):
        raise InputError(f"{name}: its sha256 is {found}, not {sha256}; delete it and try again")


def _local(address: str, sha256: str) -> Path:
    if address.startswith("hf:"):
        return _from_hub(address)
    if address.startswith(("https://", "http://")):
        return _from_web(address, sha256)
    path = Path(address).expanduser()
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; --weights takes a path, a URL or hf:NAME")
    return path


def _from_web(url: str, sha256: str) -> Path:
    from torch import hub

    known = len(sha256) == _HASH_DIGITS
    if not known:
        refuse_plain_http(url)
    # Behind the path may stand a query, such as `?download=true`, that is no part of the name.
    name = PurePosixPath(urlsplit(url).path).name
    directory = Path(hub.get_dir(), "checkpoints")
    path = directory / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name}"
    if path.exists():
        return path
    atomic.make_directory(directory)
    log.info("downloading %s", url)
    try:
        # A file that has its name is whole.
        with atomic.aside(path) as made:
            _download(url, made, known=known)
            _check_hash(made, sha256, url)
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(f"{url} cannot be downloaded ({error}); try again") from error
    return path


def _download(url: str, path: Path, *, known: bool) -> None:
    """Write what `url` gives to `path`; the way there is of no matter where its hash is known.

    Raises: as `web.opened` and `web.pieces`.
    """
    with opened(url, anywhere=known) as response, path.open("wb") as file:
        size = announced(response)
        total = size and -(-size // _MIB)
        with Progress("downloading", total=total, unit="MiB") as bar:
            for piece in pieces(response):
                file.write(piece)
                bar.advance(-(-file.tell() // _MIB) - bar.done)


def _from_hub(address: str) -> Path:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    owner, _, rest = address.removeprefix("hf:").partition("/")
    name, _, file = rest.partition("/")
    if not owner or not name:
        raise InputError(f"{address}: a hub address is hf:OWNER/NAME or hf:OWNER/NAME/FILE")
    files = (file,) if file else _HUB_FILES
    try:
        return _first_on_hub(f"{owner}/{name}", files)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        asked = " or ".join(files)
        raise InputError(f"{address} ({asked}) cannot be downloaded ({error})") from error


def _first_on_hub(repository: str, files: tuple[str, ...]) -> Path:
    """Return the first of `files` in the repository; raises as `hf_hub_download` for the last."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for file in files[:-1]:
        try:
            return Path(hf_hub_download(repository, file))
        except EntryNotFoundError:
            log.info("%s: no %s there", repository, file)
    return Path(hf_hub_download(repository, files[-1]))
