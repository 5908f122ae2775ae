"""Settings of the network that is trained."""

from dataclasses import dataclass
from typing import Literal

from semvlp.model.config import (
    BoxSize,
    CrossAttention,
    CrossStart,
    ImageToken,
    PairHead,
    RegionEmbedding,
)
from semvlp.train.bounds import at_least, between

Preset = Literal["tiny", "small", "base", "large"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which network is trained."""

    preset: Preset = "base"
    """Size of the encoder; fine-tuning reads it only where it starts from nothing."""
    num_layers: int | None = None
    """How many blocks; the preset's number unless set. LXMERT's weights need 14."""
    cross_layers: int | None = None
    """How many upper blocks hold the plugged cross-attention; the preset's number unless set."""
    cross_attention: CrossAttention = "shared"
    """Text -> regions and regions -> text with the same weights, or with `separate` ones."""
    cross_start: CrossStart = "fresh"
    """Cross-attention starts at random, or as a copy of its block's `self-attention`."""
    box_size: BoxSize = 4
    """Numbers of a box: x1 y1 x2 y2; 5 adds the area, 7 width, height and area."""
    region_embedding: RegionEmbedding = "mean-of-norms"
    """How the projections of feature and box become one."""
    image_token: ImageToken = "none"
    """A row for the whole image before its regions: `mean` of their features."""
    dropout: float = 0.1
    """Dropout of hidden states, and of attention weights unless `attention_dropout` is set."""
    attention_dropout: float | None = None
    """Dropout of attention weights; 0 lets a GPU take the flash kernel (docs/model.md)."""
    standardise: bool = True
    """Shift and scale region features by mean and deviation, measured when a network is fresh."""
    tokenizer: str = "train"
    """`train`: WordPiece from the texts at hand; else a Hugging Face name or a directory."""
    vocab_size: int = 30522
    """Largest size of a trained WordPiece vocabulary."""
    pair_head: PairHead = "concatenation"
    """How a task with two images (NLVR2) joins them; `attention` is UNITER's. Not pre-trained."""
    bert: str | None = None
    """Hugging Face name or directory of BERT, LXMERT or VisualBERT weights to start from, or a
    SemVLP checkpoint, whose encoder then goes on with other data."""

    def __post_init__(self) -> None:
        between("dropout", self.dropout, 0, 0.9)
        if self.attention_dropout is not None:
            between("attention_dropout", self.attention_dropout, 0, 0.9)
        if self.num_layers is not None:
            at_least("num_layers", self.num_layers, 1)
        at_least("vocab_size", self.vocab_size, 64)
        if self.bert is not None and self.tokenizer == "train":
            raise ValueError(
                f"bert = {self.bert!r} needs its own vocabulary; set tokenizer = {self.bert!r}"
            )
