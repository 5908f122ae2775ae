"""Pre-training heads and task heads.

N pairs, M masked tokens, K masked regions, V vocabulary, C object classes, F feature size,
D width.
"""

from torch import Tensor, nn

from semvlp.model.config import SemVLPConfig


class Transform(nn.Module):
    """Linear, exact GELU, layer norm: what BERT puts before its decoder."""

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [M, D] to [M, D]."""
        output: Tensor = self.norm(self.activation(self.dense(hidden)))
        return output


class TokenHead(nn.Module):
    """Predicts the masked words; the model ties the decoder to its word embeddings."""

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.transform = Transform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden: Tensor) -> Tensor:
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

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map [K, D] to features [K, F], object logits [K, C] and attribute logits."""
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

    def forward(self, pooled: Tensor) -> Tensor:
        """Map [N, pieces D] to logits [N, num_labels]."""
        logits: Tensor = self.outer(self.norm(self.activation(self.inner(pooled))))
        return logits


def match_head(config: SemVLPConfig) -> nn.Linear:
    """Build the head of image-text matching on the pooled vector: class 1 = match."""
    return nn.Linear(config.hidden_size, 2)


def task_head(config: SemVLPConfig) -> nn.Module:
    """Build the head that `config.task_head` names, for the labels of `config`.

    Raises:
        ValueError: the configuration names none.
    """
    if config.task_head is None:
        raise ValueError("task_head must be pooled, pair or match, got none in the configuration")
    if config.task_head == "match":
        return match_head(config)
    pieces = 2 if config.task_head == "pair" else 1
    return AnswerHead(config, len(config.labels), pieces=pieces)


def classify(layer: nn.Module | None, hidden: Tensor) -> Tensor:
    """Map [K, D] to logits [K, classes]; [K, 0] where there are no classes and so no layer."""
    if layer is None:
        return hidden.new_zeros(len(hidden), 0)
    logits: Tensor = layer(hidden)
    return logits


def _classifier(config: SemVLPConfig, num_classes: int) -> nn.Linear | None:
    return nn.Linear(config.hidden_size, num_classes) if num_classes else None
