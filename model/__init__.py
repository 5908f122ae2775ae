"""One network, two attention layouts of a row: single-stream and two-stream, the same weights."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semvlp.model.auto import SemVLPForVisualQuestionAnswering
    from semvlp.model.config import SemVLPConfig
    from semvlp.model.packing import PackedBatch, pack
    from semvlp.model.semvlp import SemVLPForPreTraining, SemVLPForTask, SemVLPModel

__all__ = [
    "PackedBatch",
    "SemVLPConfig",
    "SemVLPForPreTraining",
    "SemVLPForTask",
    "SemVLPForVisualQuestionAnswering",
    "SemVLPModel",
    "pack",
]
_HOMES = {"PackedBatch": "semvlp.model.packing", "pack": "semvlp.model.packing"}


def __getattr__(name: str) -> Any:
    """Import what is asked for: models of transformers take seconds, and answers need none."""
    if name in __all__:
        return getattr(importlib.import_module(_HOMES.get(name, "semvlp.model.auto")), name)
    raise AttributeError(f"module 'semvlp.model' has no attribute {name!r}")
