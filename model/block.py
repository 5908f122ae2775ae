"""The shared Transformer block: self-attention, plugged cross-attention, feed-forward.

L rows of the packed row, D width.
"""

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from semvlp.model.attention import Attention, Cuts
from semvlp.model.config import SemVLPConfig


class Block(GradientCheckpointingLayer):  # type: ignore[no-untyped-call]
    """A post-LN BERT layer, with or without a socket for cross-attention.

    The same cross-attention weights serve text -> regions and regions -> text (as in LXMERT).
    """

    def __init__(self, config: SemVLPConfig, *, cross: bool) -> None:
        super().__init__()
        self.self_attention = Attention(config)
        self.self_attention_norm = _norm(config)
        self.cross_attention = Attention(config) if cross else None
        self.cross_attention_norm = _norm(config) if cross else None
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = _norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, self_cuts: Cuts, cross_cuts: Cuts | None) -> Tensor:
        """[L, D] to [L, D]; without `cross_cuts` the cross-attention is unplugged."""
        mixed = self.self_attention(hidden, self_cuts)
        hidden = self.self_attention_norm(hidden + self.dropout(mixed))
        if cross_cuts is not None and self.cross_attention and self.cross_attention_norm:
            mixed = self.cross_attention(hidden, cross_cuts)
            hidden = self.cross_attention_norm(hidden + self.dropout(mixed))
        hidden = self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))
        return hidden


class FeedForward(nn.Module):
    """Linear, exact GELU, linear, on every row."""

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = nn.GELU()
        self.outer = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """[L, D] to [L, D]."""
        output: Tensor = self.outer(self.activation(self.inner(hidden)))
        return output


def _norm(config: SemVLPConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
