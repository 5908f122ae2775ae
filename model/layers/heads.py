"""Pre-training heads and task heads.

N pairs, M masked tokens, K masked regions, V vocabulary, C object classes, A attributes,
F feature size, D width, B examples of a task, Z labels; R regions of all pairs, Y regions of the
pair with most of them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional

from semvlp.model.config import SemVLPConfig
from semvlp.model.packing import to_padded
from semvlp.shapes import shapes


class Transform(nn.Module):
    """Linear, exact GELU, layer norm: what BERT puts before its decoder."""

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    @shapes
    def forward(self, hidden: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        """Map [M, D] to [M, D]."""
        output: Tensor = self.norm(self.activation(self.dense(hidden)))
        return output


class TokenHead(nn.Module):
    """Predicts the masked words; the model ties the decoder to its word embeddings."""

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.transform = Transform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    @shapes
    def forward(self, hidden: Float[Tensor, "M D"]) -> Float[Tensor, "M V"]:
        """Map [M, D] to logits [M, V]."""
        logits: Tensor = self.decoder(self.transform(hidden))
        return logits


class RegionHead(nn.Module):
    """Predicts the feature, the object class and the attribute of masked regions."""

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.transform = Transform(config)
        self.features = nn.Linear(config.hidden_size, config.region_feature_size)
        self.objects = _classifier(config, config.num_objects)
        self.attributes = _classifier(config, config.num_attributes)

    @shapes
    def forward(
        self, hidden: Float[Tensor, "K D"]
    ) -> tuple[Float[Tensor, "K F"], Float[Tensor, "K C"], Float[Tensor, "K A"]]:
        """Map [K, D] to features [K, F], object logits [K, C] and attribute logits [K, A]."""
        hidden = self.transform(hidden)
        return (
            self.features(hidden),
            classify(self.objects, hidden),
            classify(self.attributes, hidden),
        )


class AnswerHead(nn.Module):
    """Linear to twice the width, GELU, layer norm, linear (LXMERT's answer head).

    The same structure answers in pre-training and in every task with a label list, so that rows
    can be copied; `pieces` pooled vectors are concatenated at its entrance.
    """

    def __init__(self, config: SemVLPConfig, num_labels: int, *, pieces: int = 1) -> None:
        super().__init__()
        width = 2 * config.hidden_size
        self.inner = nn.Linear(pieces * config.hidden_size, width)
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.outer = nn.Linear(width, num_labels)

    @shapes
    def forward(self, pooled: Float[Tensor, "N W"]) -> Float[Tensor, "N Z"]:
        """Map [N, W = pieces D] to logits [N, Z]."""
        logits: Tensor = self.outer(self.norm(self.activation(self.inner(pooled))))
        return logits


class ReferringHead(nn.Module):
    """Scores each region against the text: which one it speaks of.

    Linear, GELU, layer norm, linear over the regions' last states, and a softmax over the regions
    of an image where it is trained and asked (ChenRocks/UNITER model/re.py, `mlp=2`, `loss=cls`).
    """

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.transform = Transform(config)
        self.score = nn.Linear(config.hidden_size, 1)

    @shapes
    def forward(
        self, hidden: Float[Tensor, "R D"], lengths: Int[Tensor, "N"]
    ) -> Float[Tensor, "N Y"]:
        """Map regions [R, D] of N pairs to logits [N, Y], the least number where none is.

        Args:
            lengths: [N] regions of each pair, on the CPU.
        """
        logits, real = to_padded(self.score(self.transform(hidden)).squeeze(1), lengths)
        # Not -inf: it would make NaN of a target of nothing.
        return logits.masked_fill(~real, torch.finfo(logits.dtype).min)


def match_head(config: SemVLPConfig) -> nn.Linear:
    """Build the head of image-text matching on the pooled vector: class 1 = match."""
    return nn.Linear(config.hidden_size, 2)


def task_head(config: SemVLPConfig) -> nn.Module:
    """Build the head that `config.task_head` names, for the labels of `config`.

    Raises:
        ValueError: the configuration names none.
    """
    if config.task_head is None:
        raise ValueError(
            "task_head must be pooled, pair, match or region, got none in the configuration"
        )
    if config.task_head == "region":
        return ReferringHead(config)
    if config.task_head == "match":
        return match_head(config)
    pieces = 2 if config.task_head == "pair" else 1
    return AnswerHead(config, len(config.labels), pieces=pieces)


@shapes
def classify(layer: nn.Module | None, hidden: Float[Tensor, "K D"]) -> Float[Tensor, "K Z"]:
    """Map [K, D] to logits [K, Z]; [K, 0] where there are no labels and so no layer."""
    if layer is None:
        return hidden.new_zeros(len(hidden), 0)
    logits: Tensor = layer(hidden)
    return logits


@shapes
def label_loss(
    logits: Float[Tensor, "B Z"],
    scores: Float[Tensor, "B Z"],
    *,
    exclusive: bool,
    weights: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """Sum the loss of a task head over examples: logits [B, Z] against scores [B, Z], 0..1.

    An example counts as much as its weight [B], or once.

    Binary cross-entropy is summed over the labels: its mean times their number, as in LXMERT.
    Exclusive labels take the cross-entropy of the scores normalised to one; an example without a
    known label counts zero.
    """
    logits = logits.float()
    if weights is None:
        weights = logits.new_ones(len(logits))
    if not exclusive:
        of_labels = weights[:, None]
        return functional.binary_cross_entropy_with_logits(
            logits, scores, of_labels, reduction="sum"
        )
    share = scores / scores.sum(dim=1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
    return (weights * functional.cross_entropy(logits, share, reduction="none")).sum()


@shapes
def label_scores(labels: Shaped[Tensor, "B *any"], num_labels: int) -> Float[Tensor, "B Z"]:
    """Return scores [B, Z] of labels: scores as they are, or the index [B] of the right one."""
    if labels.is_floating_point():
        return labels.float()
    return functional.one_hot(labels, num_labels).float()


@shapes
def mean_logits(logits: Sequence[Float[Tensor, "B Z"]], *, exclusive: bool) -> Float[Tensor, "B Z"]:
    """Return logits [B, Z] whose probabilities are the mean of those of several passes."""
    if len(logits) == 1:
        return logits[0]
    passes = torch.stack([one.float() for one in logits])
    if exclusive:
        return passes.log_softmax(2).logsumexp(0)
    return functional.logsigmoid(passes).logsumexp(0) - functional.logsigmoid(-passes).logsumexp(0)


def _classifier(config: SemVLPConfig, num_classes: int) -> nn.Linear | None:
    return nn.Linear(config.hidden_size, num_classes) if num_classes else None
