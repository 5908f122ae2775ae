"""SemVLP: region-feature vision-language pre-training, one encoder in two modes.

import semvlp

vlp = semvlp.load("runs/finetune-vqa/best")
print(vlp.ask("photo.jpg", "what colour is the dog?").answer)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semvlp.app.assistant import Answer, Assistant, Reply, load

__version__ = "0.2.0"
__all__ = ["Answer", "Assistant", "Reply", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: torch takes seconds, and most commands need none of it."""
    if name in __all__:
        return getattr(importlib.import_module("semvlp.app.assistant"), name)
    raise AttributeError(f"module 'semvlp' has no attribute {name!r}")
