"""The encoder over a packed batch: a module of torch, which transformers need not be loaded for.

N pairs, T text tokens, R regions, L = T + R, M and K positions to predict, D width. Padded inputs
are such as `PaddedInputs` has them, B texts.
"""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from semvlp.model.config import SemVLPConfig
from semvlp.model.layers.attention_weights import cross_attentions, self_attentions, watched
from semvlp.model.layers.embeddings import REGION_TYPE, RegionEmbeddings, TextEmbeddings
from semvlp.model.layers.encoder import Encoder
from semvlp.model.layers.image_tokens import with_image_tokens
from semvlp.model.layers.two_stream_cache import CachedPairs, LowerStates
from semvlp.model.outputs import Encoded
from semvlp.model.packing import Mode, PackedBatch, to_padded
from semvlp.model.padded import pack_padded
from semvlp.shapes import shapes


class SemVLPNetwork(nn.Module):
    """The encoder: embeddings, shared stack, pooler."""

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.config = config
        self.build(config)

    def build(self, config: SemVLPConfig) -> None:
        """Make the layers; a model of transformers begins in its own way and calls it too."""
        self.text_embeddings = TextEmbeddings(config)
        self.region_embeddings = RegionEmbeddings(config)
        self.encoder = Encoder(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)

    @shapes
    def forward(
        self,
        batch: PackedBatch | None = None,
        mode: Mode = "two",
        *,
        token_positions: Int[Tensor, "M"] | None = None,
        region_positions: Int[Tensor, "K"] | None = None,
        input_ids: Int[Tensor, "B T"] | None = None,
        attention_mask: Shaped[Tensor, "B T"] | None = None,
        region_features: Float[Tensor, "B *I R F"] | None = None,
        region_boxes: Float[Tensor, "B *I R 4"] | None = None,
        region_attention_mask: Shaped[Tensor, "B *I R"] | None = None,
        output_attentions: bool = False,
    ) -> Encoded:
        """Encode N pairs: a packed batch, or padded inputs by keyword.

        1. Embed all tokens and all regions.
        2. Lay them in one row t1 r1 t2 r2 ...
        3. Run the shared stack over the row, with the attention layout of `mode`.
        4. Take tokens and regions out of the row again; pool each pair's [CLS].

        Args:
            token_positions: [M] int64 indices in `batch.input_ids`; only these are in `text`, and
                the last feed-forward is spared for the others. All where None.
            region_positions: [K] int64 indices in `batch.region_features`, likewise.
            output_attentions: whether the weights of attention are computed as well, which no
                kernel gives.

        Raises:
            ValueError: a text longer than max_position_embeddings, features of another size, or
                neither a batch nor padded inputs.
        """
        packed = batch or pack_padded(
            input_ids, attention_mask, region_features, region_boxes, region_attention_mask
        )
        encoded = self._encode(packed, mode, token_positions, region_positions, output_attentions)
        if batch is None:
            encoded.text, _ = to_padded(encoded.text, packed.text_lengths)
            encoded.regions, _ = to_padded(encoded.regions, packed.region_lengths)
        return encoded

    def _encode(
        self,
        batch: PackedBatch,
        mode: Mode,
        token_positions: Tensor | None,
        region_positions: Tensor | None,
        output_attentions: bool,
    ) -> Encoded:
        batch, indices = self._with_image_tokens(batch)
        first = batch.text_rows.index_select(0, batch.first_tokens)
        text = _select(batch.text_rows, token_positions)
        regions = _select(_select(batch.region_rows, indices), region_positions)
        rows = torch.cat([first, text, regions])
        blocks = self.encoder.all_blocks() if output_attentions else []
        with watched(blocks) as (within, across):
            hidden = self.encoder(self._embed(batch), batch, mode, rows)
        first, text, regions = hidden.split([len(first), len(text), len(regions)])
        encoded = Encoded(text=text, regions=regions, pooled=self._pool(first))
        if output_attentions:
            encoded.attentions = self_attentions(within, batch, mode)
            upper = blocks[self.encoder.num_lower :] if mode == "two" else []
            encoded.cross_attentions = cross_attentions(upper, across, batch)
        return encoded

    def lower(self, batch: PackedBatch) -> tuple[LowerStates, LowerStates]:
        """Compute texts and images of a two-stream pass up to the first cross-attention.

        The states of a text or an image depend on nothing else here, so they may be cached and be
        paired with any others by `upper`. An image has `config.num_image_tokens` rows more than
        regions.
        """
        batch, _ = self._with_image_tokens(batch)
        row = self.encoder.lower(self._embed(batch), batch)
        return (
            LowerStates(row.index_select(0, batch.text_rows), batch.text_lengths),
            LowerStates(row.index_select(0, batch.region_rows), batch.region_lengths),
        )

    @shapes
    def upper(
        self,
        text: LowerStates,
        regions: LowerStates,
        texts: Int[Tensor, "N"] | None = None,
        images: Int[Tensor, "N"] | None = None,
    ) -> Float[Tensor, "N D"]:
        """Compute the rest of the two-stream pass: `pooled` [N, D] of `forward`.

        Args:
            text: texts that `lower` gave, whichever batches they were in.
            regions: images that `lower` gave, likewise.
            texts: [N] int64 on the CPU, the text of each pair; as they lie where None.
            images: [N] int64 on the CPU, the image of each pair, likewise.
        """
        return self._pool(self.encoder.upper(CachedPairs.of(text, regions, texts, images)))

    def _pool(self, first: Tensor) -> Tensor:
        """Pool first tokens [N, D] in the dtype of the pooler, which may be finer than theirs."""
        return torch.tanh(self.pooler(first.to(self.pooler.weight.dtype)))

    def _with_image_tokens(self, batch: PackedBatch) -> tuple[PackedBatch, Tensor | None]:
        """Add `image_token`; return the indices of the regions then, None where they stay."""
        if self.config.image_token == "none":
            return batch, None
        return with_image_tokens(batch)

    def _embed(self, batch: PackedBatch) -> Tensor:
        """Embed the packed row t1 r1 t2 r2 ...: [L, D]."""
        streams = torch.cat([self._embed_text(batch), self._embed_regions(batch)])
        return streams.index_select(0, batch.row_sources)

    def _embed_text(self, batch: PackedBatch) -> Tensor:
        longest, limit = int(batch.text_lengths.max()), self.config.max_position_embeddings
        if longest > limit:
            raise ValueError(
                f"a text must be at most {limit} tokens (max_position_embeddings), got {longest}; "
                "encode with a smaller max_length"
            )
        embedded: Tensor = self.text_embeddings(batch.input_ids, batch.text_positions)
        return embedded

    def _embed_regions(self, batch: PackedBatch) -> Tensor:
        token_type = self.text_embeddings.token_type_embeddings.weight[REGION_TYPE]
        embedded: Tensor = self.region_embeddings(
            batch.region_features, batch.region_boxes, batch.region_mask, token_type
        )
        return embedded


def _select(rows: Tensor, positions: Tensor | None) -> Tensor:
    return rows if positions is None else rows.index_select(0, positions)
