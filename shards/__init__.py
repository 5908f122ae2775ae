"""Region features and texts on disk: tar shards to train from, LMDB to look up, one record."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semvlp.shards.open import open_store
    from semvlp.shards.record import Question, Regions, Sample, Texts

__all__ = ["Question", "Regions", "Sample", "Texts", "open_store"]


def __getattr__(name: str) -> Any:
    """Import `name` when it is first used: the command line shows help without NumPy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "open" if name == "open_store" else "record"
    return getattr(import_module(f"{__name__}.{home}"), name)
