"""Text and region embeddings.

T text tokens, R regions, F feature size, D width.
"""

import torch
from torch import Tensor, nn

from semvlp.model.config import SemVLPConfig

TEXT_TYPE, REGION_TYPE = 0, 1

# Larger than BERT's 1e-12: a zeroed feature row has hardly any variance, and a normalisation
# multiplies its gradient by up to 1 / sqrt(eps).
REGION_NORM_EPS = 1e-5


class TextEmbeddings(nn.Module):
    """Word + position + token type, normalised: BERT's, on a packed stream of tokens.

    The regions borrow `token_type_embeddings`: type 0 is text, type 1 a region.
    """

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(2, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """Token ids [T] and their places in their own texts [T] to [T, D]."""
        words = self.word_embeddings(input_ids) + self.position_embeddings(positions)
        embedded: Tensor = self.norm(words + self.token_type_embeddings.weight[TEXT_TYPE])
        return self.dropout(embedded)  # type: ignore[no-any-return]


class RegionEmbeddings(nn.Module):
    """Mean of the normalised projections of feature and box, plus the token type of regions.

    The mean is LXMERT's (airsplay/lxmert src/lxrt/modeling.py, VisualFeatEncoder), the token type
    VisualBERT's habit, the mask embedding UNITER's. Regions have no positions: their order means
    nothing.
    """

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.features = nn.Linear(config.region_feature_size, config.hidden_size)
        self.feature_norm = nn.LayerNorm(config.hidden_size, eps=REGION_NORM_EPS)
        self.boxes = nn.Linear(4, config.hidden_size)
        self.box_norm = nn.LayerNorm(config.hidden_size, eps=REGION_NORM_EPS)
        self.mask = nn.Parameter(torch.zeros(config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, features: Tensor, boxes: Tensor, mask: Tensor | None, token_type: Tensor
    ) -> Tensor:
        """Features [R, F], boxes [R, 4] xyxy in 0..1 and the type's embedding [D] to [R, D].

        Where `mask` [R] is True the mask embedding is added to the projected feature.

        Raises:
            ValueError: features of another size than the configuration says.
        """
        if features.shape[-1] != self.features.in_features:
            raise ValueError(
                f"region features must be [R, {self.features.in_features}] as region_feature_size "
                f"says, got {tuple(features.shape)}; use shards of the detector it was trained on"
            )
        projected = self.features(features.to(self.features.weight.dtype))
        if mask is not None:
            projected = projected + mask[:, None] * self.mask
        located = self.box_norm(self.boxes(boxes.to(self.boxes.weight.dtype)))
        embedded = (self.feature_norm(projected) + located) / 2 + token_type
        return self.dropout(embedded)  # type: ignore[no-any-return]
