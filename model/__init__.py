"""One network, two ways to cut the row: single-stream and two-stream over the same weights."""

from semvlp.model.config import SemVLPConfig
from semvlp.model.packing import PackedBatch, pack
from semvlp.model.semvlp import SemVLPForPreTraining, SemVLPForTask, SemVLPModel

__all__ = [
    "PackedBatch",
    "SemVLPConfig",
    "SemVLPForPreTraining",
    "SemVLPForTask",
    "SemVLPModel",
    "pack",
]
