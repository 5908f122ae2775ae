"""SemVLPModel, SemVLPForPreTraining, SemVLPForTask: the networks as models of transformers.

M and K positions to predict.
"""

from jaxtyping import Int
from torch import Tensor, nn

from semvlp.model.config import SemVLPConfig
from semvlp.model.layers.heads import AnswerHead, RegionHead, TokenHead, classify, match_head
from semvlp.model.network import SemVLPNetwork
from semvlp.model.outputs import Encoded, PreTrainingOutput
from semvlp.model.packing import Mode, PackedBatch
from semvlp.model.pretrained import SemVLPPreTrainedModel
from semvlp.model.task_network import TaskNetwork
from semvlp.shapes import shapes


class SemVLPModel(SemVLPNetwork, SemVLPPreTrainedModel):
    """The encoder: embeddings, shared stack, pooler."""

    config: SemVLPConfig

    def __init__(self, config: SemVLPConfig) -> None:
        SemVLPPreTrainedModel.__init__(self, config)
        self.build(config)
        self.post_init()  # type: ignore[no-untyped-call]


class SemVLPForPreTraining(SemVLPPreTrainedModel):
    """The encoder with the heads of all pre-training objectives."""

    _tied_weights_keys = {  # noqa: RUF012 (transformers declares it so)
        "token_head.decoder.weight": "semvlp.text_embeddings.word_embeddings.weight"
    }

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__(config)
        answers = config.answers or []
        self.semvlp = SemVLPModel(config)
        self.token_head = TokenHead(config)
        self.region_head = RegionHead(config)
        self.match_head = match_head(config)
        self.answer_head = AnswerHead(config, len(answers)) if answers else None
        self.post_init()  # type: ignore[no-untyped-call]

    def get_output_embeddings(self) -> nn.Linear:
        """Return the decoder of the token head, which is tied to the input embeddings."""
        return self.token_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Take another decoder."""
        self.token_head.decoder = new_embeddings

    @shapes
    def forward(
        self,
        batch: PackedBatch,
        mode: Mode,
        *,
        token_positions: Int[Tensor, "M"],
        region_positions: Int[Tensor, "K"],
    ) -> PreTrainingOutput:
        """Predict what was masked, whether the pairs match, and the answers.

        Args:
            token_positions: [M] int64 indices in `batch.input_ids`.
            region_positions: [K] int64 indices in `batch.region_features`.
        """
        encoded: Encoded = self.semvlp(
            batch, mode, token_positions=token_positions, region_positions=region_positions
        )
        features, objects, attributes = self.region_head(encoded.regions)
        return PreTrainingOutput(
            token_logits=self.token_head(encoded.text),
            region_features=features,
            object_logits=objects,
            attribute_logits=attributes,
            match_logits=self.match_head(encoded.pooled),
            answer_logits=classify(self.answer_head, encoded.pooled),
        )


class SemVLPForTask(TaskNetwork, SemVLPPreTrainedModel):
    """The encoder with one task head."""

    config: SemVLPConfig
    encoder_type = SemVLPModel

    def __init__(self, config: SemVLPConfig) -> None:
        SemVLPPreTrainedModel.__init__(self, config)
        self.build(config)
        self.post_init()  # type: ignore[no-untyped-call]
