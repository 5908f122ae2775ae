"""The networks that the Auto classes of transformers open."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForVisualQuestionAnswering,
)

from semvlp.errors import InputError
from semvlp.model.config import SemVLPConfig
from semvlp.model.semvlp import SemVLPForPreTraining, SemVLPForTask, SemVLPModel


class SemVLPForVisualQuestionAnswering(SemVLPForTask):  # type: ignore[no-untyped-call]
    """A task model that answers questions, as `AutoModelForVisualQuestionAnswering` opens it.

    Raises:
        InputError: the checkpoint was not fine-tuned on questions: its head, if it has one, would
            answer with labels of another kind.
    """

    def __init__(self, config: SemVLPConfig) -> None:
        if not config.answers_questions:
            raise InputError(
                "a model for visual question answering needs a checkpoint fine-tuned on vqa or "
                f"gqa, but this one has the head {config.task_head or 'of pre-training'} and the "
                f"task {config.task or 'none'}; open it by semvlp.model.SemVLPForTask or "
                "AutoModelForPreTraining"
            )
        super().__init__(config)


AutoConfig.register(SemVLPConfig.model_type, SemVLPConfig, exist_ok=True)
AutoModel.register(SemVLPConfig, SemVLPModel, exist_ok=True)
AutoModelForPreTraining.register(SemVLPConfig, SemVLPForPreTraining, exist_ok=True)
AutoModelForVisualQuestionAnswering.register(
    SemVLPConfig, SemVLPForVisualQuestionAnswering, exist_ok=True
)
