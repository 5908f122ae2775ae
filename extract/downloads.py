"""Weights from wherever the user says: a path, an https URL, a repository of the hub."""

import hashlib
import logging
from pathlib import Path

from semvlp.errors import InputError
from semvlp.shards.hashes import file_sha256

log = logging.getLogger(__name__)

_HUB_FILE = "detector.safetensors"


def fetch(address: str) -> Path:
    """The local file of `address`; downloads are kept in torch's or Hugging Face's own cache.

    `address` is a path, `https://...`, or `hf:OWNER/NAME[/FILE]` (FILE is detector.safetensors
    unless given). Behind `#sha256=` stands the hash the file must have.

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

    name = f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{url.rsplit('/', 1)[-1]}"
    path = Path(hub.get_dir(), "checkpoints", name)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    log.info("downloading %s", url)
    try:
        # Writes aside and renames, so a file that is there is whole.
        hub.download_url_to_file(url, str(path), progress=log.isEnabledFor(logging.INFO))
    except OSError as error:
        raise InputError(f"{url} cannot be downloaded ({error})") from error
    return path


def _from_hub(address: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    owner, _, rest = address.removeprefix("hf:").partition("/")
    name, _, file = rest.partition("/")
    if not owner or not name:
        raise InputError(f"{address}: a hub address is hf:OWNER/NAME or hf:OWNER/NAME/FILE")
    try:
        return Path(hf_hub_download(f"{owner}/{name}", file or _HUB_FILE))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(f"{address} cannot be downloaded ({error})") from error
