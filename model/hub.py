"""Hugging Face checkpoints: read, and pushed to the hub."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers.utils.logging import (
    get_verbosity,
    set_verbosity,
    set_verbosity_error,
)

from semvlp.addresses import is_path, refuse_missing_checkpoint
from semvlp.errors import ConfigError, InputError
from semvlp.model.card import CARD
from semvlp.model.weights import WeightsError, refuse_larger
from semvlp.progress import without_bars

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# All that a checkpoint in the Hugging Face layout needs; foreign pickles are not fetched.
FILES = ["*.json", "*.txt", "*.safetensors"]
M = TypeVar("M", bound="PreTrainedModel")


def checkpoint_folder(name: Path | str, *, called: str) -> Path:
    """Return the folder of a checkpoint; a name that is no path here is fetched from the Hub.

    Args:
        called: what the user calls `name`.

    Raises:
        InputError: there is no such folder, and the Hub does not give it.
    """
    refuse_missing_checkpoint(name, called)
    if is_path(name):
        return Path(name)
    try:
        return Path(snapshot_download(str(name), allow_patterns=FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"{called} must be a folder or the name of a model on the Hugging Face Hub, but {name} "
            f"is no folder here, and the Hub says: {str(error).partition(chr(10))[0]}"
        ) from error


def read_encoder(kind: type[M], name_or_path: str) -> tuple[M, list[str]]:
    """Read the encoder of another model's checkpoint, and the names of its other tensors: heads.

    Safetensors alone are read. The caller reports what became of each.

    Raises:
        ConfigError: the checkpoint cannot be had in safetensors, or is not of this kind.
        WeightsError: it lacks a tensor of the encoder, or is far smaller than its config.json says.
    """
    folder = Path(name_or_path)
    if folder.is_dir() and kind.config_class:
        refuse_larger(kind, kind.config_class.from_pretrained(folder), folder)
    try:
        with without_bars(), _without_reports():
            # The declared type leaves out that `output_loading_info` makes it a pair.
            loaded: Any = kind.from_pretrained(
                name_or_path, output_loading_info=True, use_safetensors=True
            )
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"model.pretrained must be a local directory with a checkpoint of {kind.__name__} in "
            f"safetensors or a name that the Hugging Face hub gives out (transformers makes "
            f"safetensors of a pytorch_model.bin: {kind.__name__}.from_pretrained(OLD)"
            f".save_pretrained(NEW)); {name_or_path!r} could not be read: {error}"
        ) from error
    model, info = loaded
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise WeightsError(f"{name_or_path}: not a whole {kind.__name__}, it lacks {missing}")
    return model, sorted(info["unexpected_keys"])


def push(
    model: "PreTrainedModel",
    repo_id: str,
    *,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    max_shard_size: int | str = "50GB",
) -> str:
    """Upload the model and its card, if the repository has none; return the commit's address."""
    api = HfApi(token=token)
    repository = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        if api.file_exists(repository, CARD, revision=revision):
            (Path(folder) / CARD).unlink()
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=commit_message or f"Upload {type(model).__name__}",
            revision=revision,
            create_pr=create_pr,
        )
    return str(commit)


@contextmanager
def _without_reports() -> Iterator[None]:
    """Hide the table of transformers about tensors that it did not load."""
    verbosity = get_verbosity()
    set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        set_verbosity(verbosity)
