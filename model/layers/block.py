"""The shared Transformer block: self-attention, plugged cross-attention, feed-forward.

L rows of the packed row, M of them that are asked for, S rows of keys, D width.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from semvlp.model.config import SemVLPConfig
from semvlp.model.layers.attention import Attention
from semvlp.model.layers.segments import AttentionLayout, TwoWayLayout
from semvlp.shapes import shapes

CROSS_ATTENTIONS = ("cross_attention", "region_cross_attention")


class Block(nn.Module):
    """A post-LN BERT layer, with or without a cross-attention slot.

    With `cross_attention` = shared the same weights serve text -> regions and regions -> text, with
    separate the regions have their own, and with tied both directions are served by those of the
    self-attention: the same row, cut across the pair instead of along it.
    """

    # `activation_checkpointing_enable` of transformers sets both in whatever module has the first.
    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., Tensor]

    def __init__(self, config: SemVLPConfig, *, cross: bool) -> None:
        super().__init__()
        own = cross and config.cross_attention != "tied"
        separate = cross and config.cross_attention == "separate"
        self.self_attention = Attention(config)
        self.self_attention_norm = _norm(config)
        self.cross_attention = Attention(config) if own else None
        self.cross_attention_norm = _norm(config) if cross else None
        self.region_cross_attention = Attention(config) if separate else None
        self.region_cross_attention_norm = _norm(config) if separate else None
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = _norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    @shapes
    def forward(
        self,
        hidden: Float[Tensor, "L D"],
        self_layout: AttentionLayout,
        cross_layout: AttentionLayout | TwoWayLayout | None,
        rows: Int[Tensor, "M"] | None = None,
    ) -> Float[Tensor, "_ D"]:
        """Compute the block, [L, D] to [L, D]; without `cross_layout` the slot is unplugged.

        Where `rows` [M] int64 are given, only they come out: [M, D].
        """
        given = hidden, self_layout, cross_layout, rows
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(self._compute, *given)
        return self._compute(*given)

    def _compute(
        self,
        hidden: Tensor,
        self_layout: AttentionLayout,
        cross_layout: AttentionLayout | TwoWayLayout | None,
        rows: Tensor | None,
    ) -> Tensor:
        hidden = self.self_attend(hidden, self_layout)
        if cross_layout is not None:
            hidden = self.cross_attend(hidden, cross_layout)
        return self.apply_feed_forward(hidden if rows is None else hidden.index_select(0, rows))

    @shapes
    def self_attend(
        self,
        hidden: Float[Tensor, "L D"],
        layout: AttentionLayout,
        context: Float[Tensor, "S D"] | None = None,
    ) -> Float[Tensor, "L D"]:
        """Compute the self-attention, [L, D] to [L, D]; with `context`, keys are rows of it."""
        mixed = self.self_attention(hidden, layout, context)
        normed: Tensor = self.self_attention_norm(hidden + self.dropout(mixed))
        return normed

    @shapes
    def cross_attend(
        self,
        hidden: Float[Tensor, "L D"],
        layout: AttentionLayout | TwoWayLayout,
        context: Float[Tensor, "S D"] | None = None,
        indices: Int[Tensor, "M"] | None = None,
    ) -> Float[Tensor, "_ D"]:
        """Compute the cross-attention; return `hidden` unchanged where the block has no slot.

        With shared weights `layout` connects the whole row; with separate ones it is two-way, or
        the queries are text alone. `indices` [M] as in `Attention`, for shared weights alone.
        """
        if self.cross_attention_norm is None:
            return hidden
        if isinstance(layout, TwoWayLayout):
            return self._both_ways(hidden, layout)
        attention = self.cross_attention or self.self_attention  # tied
        mixed = attention(hidden, layout, context, indices)
        before = hidden if indices is None else hidden.index_select(0, indices)
        normed: Tensor = self.cross_attention_norm(before + self.dropout(mixed))
        return normed

    def _both_ways(self, hidden: Tensor, layout: TwoWayLayout) -> Tensor:
        """Cross-attend [L, D] to [L, D] with weights for each direction, both on the same input."""
        text = hidden.index_select(0, layout.text_rows)  # [T, D]
        regions = hidden.index_select(0, layout.region_rows)  # [R, D]
        streams = torch.cat(
            [
                self.cross_attend(text, layout.to_regions, regions),
                self._regions_across(regions, layout.to_text, text),
            ]
        )
        return streams.index_select(0, layout.row_sources)

    def _regions_across(self, hidden: Tensor, layout: AttentionLayout, context: Tensor) -> Tensor:
        if self.region_cross_attention is None or self.region_cross_attention_norm is None:
            return hidden
        mixed = self.region_cross_attention(hidden, layout, context)
        normed: Tensor = self.region_cross_attention_norm(hidden + self.dropout(mixed))
        return normed

    @shapes
    def apply_feed_forward(self, hidden: Float[Tensor, "L D"]) -> Float[Tensor, "L D"]:
        """Compute the feed-forward, [L, D] to [L, D]."""
        normed: Tensor = self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))
        return normed


class FeedForward(nn.Module):
    """Linear, exact GELU, linear, on every row."""

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = nn.GELU()
        self.outer = nn.Linear(config.intermediate_size, config.hidden_size)

    @shapes
    def forward(self, hidden: Float[Tensor, "L D"]) -> Float[Tensor, "L D"]:
        """Map [L, D] to [L, D]."""
        output: Tensor = self.outer(self.activation(self.inner(hidden)))
        return output


def attention_twins(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the name of a self-attention weight with that of the cross-attention weight like it."""
    names = set(names)
    for name in sorted(names):
        if "self_attention" in name:
            others = (name.replace("self_attention", cross) for cross in CROSS_ATTENTIONS)
            yield from ((name, other) for other in others if other in names)


def _norm(config: SemVLPConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
