"""Networks of transformers, by the name of the Hub or a folder that transformers wrote."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from semvlp.errors import InputError
from semvlp.progress import without_bars
from semvlp.shards.dataset.hashes import files_sha256

HUB = "hf:"
_CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json")


def opened(
    model: Any, processor: Any, source: str, called: str, uses: Callable[[str], bool] = bool
) -> tuple[Any, Any]:
    """Open a network and what prepares images for it, by their Auto classes.

    Args:
        called: how messages name it.
        uses: tells by its name whether a tensor is used; others may be missing.

    Raises:
        InputError: it cannot be had, is of another kind, or lacks weights.
    """
    try:
        with without_bars():
            network, read = model.from_pretrained(
                source, output_loading_info=True, use_safetensors=True
            )
            prepares = processor.from_pretrained(source)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{called} cannot be opened: {error}") from error
    lacking = [
        name for name in (*read["missing_keys"], *read["mismatched_keys"]) if uses(str(name))
    ]
    if lacking:
        raise InputError(f"{called}: its weights lack {lacking[0]}, or have another shape")
    return network, prepares


def config_sha256(source: str) -> str:
    """Return the hash of the files that say how a network and its images are made."""
    files = (cached_file(source, x, _raise_exceptions_for_missing_entries=False) for x in _CONFIGS)
    return files_sha256([Path(file) for file in files if file])
