"""One network, two attention layouts of a row: single-stream and two-stream, the same weights."""

from semvlp.model.auto import SemVLPForVisualQuestionAnswering
from semvlp.model.config import SemVLPConfig
from semvlp.model.packing import PackedBatch, pack
from semvlp.model.semvlp import SemVLPForPreTraining, SemVLPModel
from semvlp.model.task_model import SemVLPForTask

__all__ = [
    "PackedBatch",
    "SemVLPConfig",
    "SemVLPForPreTraining",
    "SemVLPForTask",
    "SemVLPForVisualQuestionAnswering",
    "SemVLPModel",
    "pack",
]
