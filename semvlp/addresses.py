"""Names of what is read: which are paths, and what may be fetched from where.

Over plain HTTP whoever sits between changes what arrives.
"""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from urllib.parse import urlsplit

from semvlp.errors import ConfigError, InputError

OPTION = "--allow-http"
OLD_WEIGHTS = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
"""Endings of files of weights without a network or a vocabulary, which also may be pickles."""
CONVERSION = (
    "import torch, transformers as t; w = torch.load('{old}', weights_only=True); "
    "m = t.{kind}(t.{kind}.config_class.from_pretrained('CONFIG')); "
    "print(m.load_state_dict({{k.removeprefix('module.').removeprefix('bert.'): v "
    "for k, v in w.items()}}, strict=False)); m.save_pretrained('NEW'); "
    "t.AutoTokenizer.from_pretrained('CONFIG').save_pretrained('NEW')"
)
"""Python that makes a checkpoint of old weights; CONFIG is a published one of the same network."""

_allowed: ContextVar[bool] = ContextVar("allowed", default=False)


@contextmanager
def http_allowed() -> Iterator[None]:
    """Let plain HTTP be used inside."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


def refuse_plain_http(address: str) -> None:
    """Raise where an address is plain HTTP to another machine and nobody has allowed that.

    Raises:
        ConfigError: names the address and the option.
    """
    parts = urlsplit(address)
    if parts.scheme.lower() == "http" and not _allowed.get() and not _is_loopback(parts.hostname):
        raise ConfigError(
            f"{address}: over plain http:// anyone on the way can put other data in its place; "
            "give an https:// address, append #sha256=... of weights, ask inside of "
            f"semvlp.addresses.http_allowed() in Python, or say {OPTION}"
        )


def is_path(name: Path | str) -> bool:
    """Tell whether the name of a checkpoint is a path; others are names on the Hugging Face Hub."""
    return isinstance(name, Path) or Path(name).exists() or name.count("/") > 1


def refuse_missing_checkpoint(name: Path | str | None, called: str) -> None:
    """Raise where the name of a checkpoint is a path and no checkpoint is there.

    Args:
        called: what the user calls `name`.

    Raises:
        InputError: says so, and what makes checkpoints.
    """
    if name is not None:
        refuse_old_weights(name, called)
    if name is not None and is_path(name) and not Path(name).exists():
        raise InputError(
            f"{called} {name}: there is no such folder; `semvlp pretrain` and `semvlp finetune` "
            "make checkpoints, and `semvlp demo` some to try"
        )


def refuse_old_weights(name: Path | str, called: str) -> None:
    """Raise where a checkpoint is named by a file of weights alone.

    Raises:
        InputError: says what makes a checkpoint of it.
    """
    file = Path(name)
    if file.suffix not in OLD_WEIGHTS or file.is_dir():
        return
    is_lxmert = any(word in file.name.lower() for word in ("lxrt", "lxmert"))
    kind = "LxmertModel" if is_lxmert else "BertModel"
    config = "unc-nlp/lxmert-base-uncased" if is_lxmert else "bert-base-uncased"
    line = CONVERSION.format(old=file, kind=kind).replace("CONFIG", config)
    raise InputError(
        f"{called} {name}: a checkpoint is a folder with config.json, model.safetensors and a "
        "vocabulary, and this is a file of weights alone. transformers makes a checkpoint NEW of "
        f'it, of a network of the sizes of {config}:\n  python -c "{line}"'
    )


def default_checkpoint(task: str, *, own: Path, of_demo: Path) -> Path:
    """Return the checkpoint that is taken where none is named.

    Raises:
        ConfigError: neither is there.
    """
    for path in (own, of_demo):
        if path.exists():
            return path
    raise ConfigError(
        f"there is no checkpoint at {own} or {of_demo}: `semvlp demo` makes the second in minutes, "
        f"`semvlp finetune --task {task}` the first; or name one by --checkpoint"
    )


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
