"""Hugging Face checkpoints: read without ado, described by a card, pushed to the hub."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils.logging import (
    disable_progress_bar,
    enable_progress_bar,
    get_verbosity,
    is_progress_bar_enabled,
    set_verbosity,
    set_verbosity_error,
)

from semvlp.errors import ConfigError
from semvlp.model.weights import WeightsError

CARD = "README.md"
M = TypeVar("M", bound=PreTrainedModel)


@contextmanager
def without_bars() -> Iterator[None]:
    """Without the progress bars of transformers: commands have their own, programs want none."""
    shown = is_progress_bar_enabled()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def _without_reports() -> Iterator[None]:
    """Without the table of transformers about tensors that it did not load."""
    verbosity = get_verbosity()
    set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        set_verbosity(verbosity)


def read_encoder(kind: type[M], name_or_path: str) -> tuple[M, list[str]]:
    """The encoder of a checkpoint of another model, and the names of tensors beside it: its heads.

    Safetensors alone are read. What becomes of each is for the caller to report.

    Raises:
        ConfigError: the checkpoint cannot be had in safetensors, or is not of this kind.
        WeightsError: it lacks a tensor of the encoder.
    """
    try:
        with without_bars(), _without_reports():
            # The declared type leaves out that `output_loading_info` makes it a pair.
            loaded: Any = kind.from_pretrained(
                name_or_path, output_loading_info=True, use_safetensors=True
            )
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"model.bert must be a local directory with a checkpoint of {kind.__name__} in "
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
    model: PreTrainedModel,
    repo_id: str,
    *,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    max_shard_size: int | str = "50GB",
) -> str:
    """Upload the model and, unless the repository has one, its card; the address of the commit."""
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
