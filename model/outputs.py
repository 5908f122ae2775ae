"""What the models return, as Hugging Face models do.

N pairs, T text tokens, R regions, M and K positions to predict, V vocabulary, F feature size,
C object classes, D width, B examples of a task, Z labels, H heads, L rows of the longest pair.
"""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils.generic import ModelOutput


@dataclass
class Encoded(ModelOutput):
    """The encoder's outputs for a batch; of padded inputs [N, ..., D], zeros where padding is."""

    text: Tensor = None  # type: ignore[assignment]
    """[T, D], or [M, D] where only some were asked for; [N, T, D] of padded inputs."""
    regions: Tensor = None  # type: ignore[assignment]
    """[R, D], or [K, D]; [N, R, D] of padded inputs."""
    pooled: Tensor = None  # type: ignore[assignment]
    """[N, D] tanh(W [CLS]): the first token of each pair."""
    attentions: tuple[Tensor, ...] | None = None
    """Of each block [N, H, L, L], where asked for: from each row of a pair (tokens, image token,
    regions) to each; zeros to what it does not see and where padding is."""
    cross_attentions: tuple[Tensor, ...] | None = None
    """Likewise of each cross-attention of a two-stream pass: between tokens and regions."""


@dataclass
class PreTrainingOutput(ModelOutput):
    """Predictions of all pre-training heads."""

    token_logits: Tensor = None  # type: ignore[assignment]
    """[M, V]"""
    region_features: Tensor = None  # type: ignore[assignment]
    """[K, F]"""
    object_logits: Tensor = None  # type: ignore[assignment]
    """[K, C]"""
    attribute_logits: Tensor = None  # type: ignore[assignment]
    """[K, attributes]"""
    match_logits: Tensor = None  # type: ignore[assignment]
    """[N, 2], class 1 = match."""
    answer_logits: Tensor = None  # type: ignore[assignment]
    """[N, answers]"""


@dataclass
class TaskOutput(ModelOutput):
    """Predictions of a task head."""

    loss: Tensor | None = None
    """Where labels were given: a scalar, the mean over the examples that have one."""
    logits: Tensor = None  # type: ignore[assignment]
    """[B, Z]"""
    attentions: tuple[Tensor, ...] | None = None
    """As of the encoder; with `both` those of the single-stream pass, then of the two-stream."""
    cross_attentions: tuple[Tensor, ...] | None = None
    """As of the encoder."""
