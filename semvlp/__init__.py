"""SemVLP: region-feature vision-language pre-training, one encoder in two modes.

import semvlp

vlp = semvlp.load("runs/finetune-vqa/best")
print(vlp.ask("photo.jpg", "what colour is the dog?").answer)
"""

import importlib
from typing import TYPE_CHECKING, Any

from semvlp.auto_classes import announce

if TYPE_CHECKING:
    from semvlp.app.assistant import Assistant, load
    from semvlp.app.collator import SemVLPCollator
    from semvlp.app.processor import SemVLPProcessor
    from semvlp.app.reply import Answer, Reply
    from semvlp.model import SemVLPConfig

__version__ = "0.2.0"
__all__ = [
    "Answer",
    "Assistant",
    "Reply",
    "SemVLPCollator",
    "SemVLPConfig",
    "SemVLPProcessor",
    "__version__",
    "load",
]
_HOMES = {
    "Answer": "semvlp.app.reply",
    "Reply": "semvlp.app.reply",
    "SemVLPCollator": "semvlp.app.collator",
    "SemVLPConfig": "semvlp.model",
    "SemVLPProcessor": "semvlp.app.processor",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: torch takes seconds, and most commands need none of it."""
    if name in __all__:
        return getattr(importlib.import_module(_HOMES.get(name, "semvlp.app.assistant")), name)
    raise AttributeError(f"module 'semvlp' has no attribute {name!r}")


announce()
