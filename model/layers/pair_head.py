"""The paired-attention head: two (text, image) rows read each other before they are pooled.

N = 2 B pairs of a text and an image, L rows of all of them, M rows of the longest, D width,
T tokens, R regions, Z labels.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from semvlp.model.config import SemVLPConfig
from semvlp.model.layers.attention import Attention, network_path
from semvlp.model.layers.heads import AnswerHead
from semvlp.model.layers.segments import Segments, attention_layout
from semvlp.model.packing import PackedBatch, to_padded
from semvlp.shapes import shapes


class PairedAttentionHead(nn.Module):
    """Each pair attends to its partner and is pooled by attention; both vectors make one answer.

    After ChenRocks/UNITER model/nlvr2.py (UniterForNlvr2PairedAttn), which has attention weights of
    its own for left to right and for right to left; here both directions share them, as everything
    else does.
    """

    def __init__(self, config: SemVLPConfig, num_labels: int) -> None:
        super().__init__()
        self.config = config
        self.attention = Attention(config)
        self.mix = nn.Linear(2 * config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.score = nn.Linear(config.hidden_size, 1)
        self.answer = AnswerHead(config, num_labels, pieces=2)

    @shapes
    def forward(
        self, text: Float[Tensor, "T D"], regions: Float[Tensor, "R D"], batch: PackedBatch
    ) -> Float[Tensor, "B Z"]:
        """Map encoded tokens [T, D] and regions [R, D] of `batch` to logits [B, Z]."""
        row = torch.cat([text, regions]).index_select(0, batch.row_sources)  # [L, D]
        pairs = Segments(batch.text_starts, batch.lengths)
        partner = torch.arange(batch.num_pairs).view(-1, 2).flip(1).flatten()  # 1 0 3 2 ...
        path = network_path(self.config, row, training=self.training)
        attended = self.attention(
            row, attention_layout([(pairs, pairs.take(partner))], row.device, path)
        )
        mixed = self.dropout(functional.relu(self.mix(torch.cat([row, attended], dim=1))))
        padded, real = to_padded(mixed, batch.lengths)  # [N, M, D], [N, M]
        scores = self.score(padded).squeeze(2).masked_fill(~real, -torch.inf)
        pooled = (scores.softmax(1)[:, :, None] * padded).sum(1)  # [N, D]
        logits: Tensor = self.answer(pooled.view(-1, 2 * pooled.shape[1]))  # [B, 2 D]
        return logits
