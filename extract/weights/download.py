"""Weights from wherever the user says: a path, an https URL, a repository of the hub."""

import hashlib
import logging
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from semvlp import atomic
from semvlp.errors import InputError
from semvlp.progress import Progress
from semvlp.shards.dataset.hashes import file_sha256

log = logging.getLogger(__name__)

# A detector of our own, and what Hugging Face's library called every model's weights.
_HUB_FILES = ("detector.safetensors", "pytorch_model.bin")
# A server that sends nothing for so long has failed.
_STALL_SECONDS = 60.0
_MIB = 2**20


def fetch(address: str) -> Path:
    """Return the local file of `address`; downloads stay in torch's or Hugging Face's own cache.

    `address` is a path, `https://...`, or `hf:OWNER/NAME[/FILE]`; without FILE it is
    detector.safetensors, where there is none pytorch_model.bin. Behind `#sha256=` stands the hash
    the file must have.

    Raises:
        InputError: it cannot be downloaded, is no file, or has another hash.
    """
    address, _, sha256 = address.partition("#sha256=")
    path = _local(address)
    if sha256 and file_sha256(path) != sha256.lower():
        raise InputError(
            f"{path}: its sha256 is {file_sha256(path)}, not {sha256}; delete it and try again"
        )
    return path


def _local(address: str) -> Path:
    if address.startswith("hf:"):
        return _from_hub(address)
    if address.startswith(("https://", "http://")):
        return _from_web(address)
    path = Path(address).expanduser()
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; --weights takes a path, a URL or hf:NAME")
    return path


def _from_web(url: str) -> Path:
    from torch import hub

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
            _download(url, made)
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(f"{url} cannot be downloaded ({error}); try again") from error
    return path


def _download(url: str, path: Path) -> None:
    """Write what `url` gives to `path`.

    Raises:
        OSError: no answer, or fewer bytes than the server announced: the connection was cut.
    """
    request = Request(url, headers={"User-Agent": "semvlp"})
    with urlopen(request, timeout=_STALL_SECONDS) as response, path.open("wb") as file:
        announced = response.headers["Content-Length"]
        total = announced and -(-int(announced) // _MIB)
        with Progress("downloading", total=total, unit="MiB") as bar:
            while chunk := response.read(_MIB):
                file.write(chunk)
                bar.advance()
    size = path.stat().st_size
    if announced and size != int(announced):
        raise OSError(f"{size} bytes came of the {announced} announced")


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
