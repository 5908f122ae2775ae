"""Text and region embeddings.

T text tokens, R regions, F feature size, D width, B numbers of a box, E numbers of its encoding.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from semvlp.errors import ConfigError
from semvlp.model.config import SemVLPConfig
from semvlp.shapes import shapes

TEXT_TYPE, REGION_TYPE = 0, 1
# Half-waves over an image at the highest frequency are 2^6: boxes a hundredth apart still differ.
BOX_FREQUENCIES = 7
# Name of the buffer in the encoder that `standardise` fills.
FEATURE_MEAN = "region_embeddings.feature_mean"


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

    @shapes
    def forward(
        self, input_ids: Int[Tensor, "T"], positions: Int[Tensor, "T"]
    ) -> Float[Tensor, "T D"]:
        """Embed token ids [T] at positions [T] of their own texts: [T, D]."""
        summed = self.word_embeddings(input_ids) + self.position_embeddings(positions)
        embedded: Tensor = self.norm(summed + self.token_type_embeddings.weight[TEXT_TYPE])
        return self.dropout(embedded)  # type: ignore[no-any-return]


class RegionEmbeddings(nn.Module):
    """Projections of feature and box and the token type of regions, as `region_embedding` says.

    Features are standardised by `feature_mean` and `feature_deviation`, which are weights of the
    checkpoint but never learned: detectors' features have a large common part, and regions that
    differ only in the rest look alike to a fresh network.

    mean-of-norms is LXMERT's (airsplay/lxmert src/lxrt/modeling.py, VisualFeatEncoder) with a token
    type, VisualBERT's habit; sum is ViLBERT's (jiasenlu/vilbert_beta vilbert/vilbert.py,
    BertImageEmbeddings) and sum-of-norms UNITER's (ChenRocks/UNITER model/model.py,
    UniterImageEmbeddings), of which the mask embedding is too. Regions have no positions: their
    order means nothing.
    """

    feature_mean: Tensor
    feature_deviation: Tensor

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        kind, width = config.region_embedding, config.hidden_size
        self.mean = kind == "mean-of-norms"
        self.standardisable = True
        self.register_buffer("feature_mean", torch.zeros(config.region_feature_size))
        self.register_buffer("feature_deviation", torch.ones(config.region_feature_size))
        self.features = nn.Linear(config.region_feature_size, width)
        eps = config.region_norm_eps
        self.feature_norm = nn.Identity() if kind == "sum" else nn.LayerNorm(width, eps=eps)
        self.box_size, self.box_encoding = config.box_size, config.box_encoding
        waves = 1 + 2 * BOX_FREQUENCIES if config.box_encoding == "fourier" else 1
        self.boxes = nn.Linear(config.box_size * waves, width)
        self.box_norm = nn.Identity() if kind == "sum" else nn.LayerNorm(width, eps=eps)
        self.norm = nn.Identity() if self.mean else nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mask = nn.Parameter(torch.zeros(width))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    @shapes
    def standardise(self, mean: Float[Tensor, "F"], deviation: Float[Tensor, "F"]) -> None:
        """Take over mean [F] and standard deviation [F] of the features it will see.

        A dimension that never varies is only shifted.

        Raises:
            ConfigError: the weights were learned on features as they are.
        """
        if not self.standardisable:
            raise ConfigError(
                "model.standardise must be false with weights of LXMERT or VisualBERT, which take "
                "region features as they are; got true"
            )
        self.feature_mean.copy_(mean)
        self.feature_deviation.copy_(torch.where(deviation > 0, deviation, 1))

    @shapes
    def forward(
        self,
        features: Float[Tensor, "R F"],
        boxes: Float[Tensor, "R 4"],
        mask: Bool[Tensor, "R"] | None,
        token_type: Float[Tensor, "D"],
    ) -> Float[Tensor, "R D"]:
        """Embed features [R, F], boxes [R, 4] xyxy in 0..1 and the type's embedding [D]: [R, D].

        Where `mask` [R] is True the feature counts as zeros, and the mask embedding is added to its
        projection.

        Raises:
            ValueError: features of another size than the configuration says.
        """
        if features.shape[-1] != self.features.in_features:
            raise ValueError(
                f"region features must be [R, {self.features.in_features}] as region_feature_size "
                f"says, got {tuple(features.shape)}; use shards of the detector it was trained on"
            )
        if mask is not None:
            features = features.masked_fill(mask[:, None], 0)
        standard = (features - self.feature_mean) / self.feature_deviation  # [R, F]
        projected = self.features(standard.to(self.features.weight.dtype))
        if mask is not None:
            projected = projected + mask[:, None] * self.mask
        projected = self.feature_norm(projected)
        numbers = box_numbers(boxes, self.box_size)
        if self.box_encoding == "fourier":
            numbers = fourier(numbers)
        located = self.box_norm(self.boxes(numbers.to(self.boxes.weight.dtype)))
        if self.mean:
            embedded = (projected + located) / 2 + token_type
        else:
            embedded = self.norm(projected + located + token_type)
        return self.dropout(embedded)  # type: ignore[no-any-return]


@shapes
def box_numbers(boxes: Float[Tensor, "R 4"], size: int) -> Float[Tensor, "R {size}"]:
    """Extend boxes [R, 4], xyxy in 0..1, to the numbers of `box_size`: [R, size], all in 0..1."""
    if size == 4:
        return boxes
    sides = boxes[:, 2:] - boxes[:, :2]  # [R, 2]
    area = sides.prod(dim=1, keepdim=True)
    return torch.cat([boxes, area] if size == 5 else [boxes, sides, area], dim=1)


@shapes
def fourier(numbers: Float[Tensor, "R B"]) -> Float[Tensor, "R E"]:
    """Put the sine and cosine of 2^k pi, k = 0..6, of each number beside it: [R, B] to [R, 15 B].

    Fourier features (Tancik et al. 2020, section 3; NeRF, Mildenhall et al. 2020, equation 4).
    """
    frequencies = math.pi * 2.0 ** torch.arange(BOX_FREQUENCIES, device=numbers.device)  # [7]
    angles = (numbers[:, :, None] * frequencies).flatten(1)  # [R, 7 B]
    return torch.cat([numbers, angles.sin(), angles.cos()], dim=1)
