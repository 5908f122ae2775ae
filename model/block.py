"""The shared Transformer block: self-attention, plugged cross-attention, feed-forward.

L rows of the packed row, D width.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from semvlp.model.attention import Attention
from semvlp.model.config import SemVLPConfig
from semvlp.model.segments import AttentionLayout, TwoWayCuts

CROSS_ATTENTIONS = ("cross_attention", "region_cross_attention")


class Block(GradientCheckpointingLayer):  # type: ignore[no-untyped-call]
    """A post-LN BERT layer, with or without a socket for cross-attention.

    With `cross_attention` = shared the same weights serve text -> regions and regions -> text, with
    separate the regions have their own.
    """

    def __init__(self, config: SemVLPConfig, *, cross: bool) -> None:
        super().__init__()
        separate = cross and config.cross_attention == "separate"
        self.self_attention = Attention(config)
        self.self_attention_norm = _norm(config)
        self.cross_attention = Attention(config) if cross else None
        self.cross_attention_norm = _norm(config) if cross else None
        self.region_cross_attention = Attention(config) if separate else None
        self.region_cross_attention_norm = _norm(config) if separate else None
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = _norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden: Tensor,
        self_cuts: AttentionLayout,
        cross_cuts: AttentionLayout | TwoWayCuts | None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """[L, D] to [L, D]; without `cross_cuts` the cross-attention is unplugged.

        Where `rows` [M] are given, only they come out: [M, D].
        """
        hidden = self.self_attend(hidden, self_cuts)
        if cross_cuts is not None:
            hidden = self.cross_attend(hidden, cross_cuts)
        return self.apply_feed_forward(hidden if rows is None else hidden.index_select(0, rows))

    def self_attend(
        self, hidden: Tensor, cuts: AttentionLayout, context: Tensor | None = None
    ) -> Tensor:
        """The self-attention, [L, D] to [L, D]; its keys are rows of `context` where given."""
        mixed = self.self_attention(hidden, cuts, context)
        normed: Tensor = self.self_attention_norm(hidden + self.dropout(mixed))
        return normed

    def cross_attend(
        self,
        hidden: Tensor,
        cuts: AttentionLayout | TwoWayCuts,
        context: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """The cross-attention; unchanged where the block has no socket for it.

        With shared weights `cuts` connect the whole row; with separate ones they are two-way, or
        the queries are text alone. `places` [M] as in `Attention`, for shared weights alone.
        """
        if self.cross_attention is None or self.cross_attention_norm is None:
            return hidden
        if isinstance(cuts, TwoWayCuts):
            return self._both_ways(hidden, cuts)
        mixed = self.cross_attention(hidden, cuts, context, places)
        before = hidden if places is None else hidden.index_select(0, places)
        normed: Tensor = self.cross_attention_norm(before + self.dropout(mixed))
        return normed

    def _both_ways(self, hidden: Tensor, cuts: TwoWayCuts) -> Tensor:
        """[L, D] to [L, D]: each direction has its own weights, neither sees the other's result."""
        text = hidden.index_select(0, cuts.text_rows)  # [T, D]
        regions = hidden.index_select(0, cuts.region_rows)  # [R, D]
        streams = torch.cat(
            [
                self.cross_attend(text, cuts.to_regions, regions),
                self._regions_across(regions, cuts.to_text, text),
            ]
        )
        return streams.index_select(0, cuts.row_sources)

    def _regions_across(self, hidden: Tensor, cuts: AttentionLayout, context: Tensor) -> Tensor:
        if self.region_cross_attention is None or self.region_cross_attention_norm is None:
            return hidden
        mixed = self.region_cross_attention(hidden, cuts, context)
        normed: Tensor = self.region_cross_attention_norm(hidden + self.dropout(mixed))
        return normed

    def apply_feed_forward(self, hidden: Tensor) -> Tensor:
        """The feed-forward."""
        normed: Tensor = self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))
        return normed


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


def attention_twins(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(name in a self-attention, the name of the same weight in a cross-attention), where both."""
    names = set(names)
    for name in sorted(names):
        if "self_attention" in name:
            others = (name.replace("self_attention", cross) for cross in CROSS_ATTENTIONS)
            yield from ((name, other) for other in others if other in names)


def _norm(config: SemVLPConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
