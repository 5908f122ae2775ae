"""The encoder with one task head, its loss, and what it takes from a checkpoint.

N pairs, T text tokens, B examples, Z labels, D width. Padded inputs are such as `PaddedInputs` has
them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from semvlp.errors import InputError
from semvlp.model.config import ConfigFileError, SemVLPConfig, TaskHead
from semvlp.model.layers.heads import (
    ReferringHead,
    label_loss,
    label_scores,
    mean_logits,
    task_head,
)
from semvlp.model.layers.pair_head import PairedAttentionHead
from semvlp.model.network import SemVLPNetwork
from semvlp.model.outputs import Encoded, TaskOutput
from semvlp.model.packing import Mode, PackedBatch
from semvlp.model.padded import pack_padded
from semvlp.model.weights import LoadReport, filled, load_pretraining, refuse_larger
from semvlp.names import EvalMode
from semvlp.shapes import shapes


class TaskNetwork(nn.Module):
    """The encoder with one task head, a module of torch; `SemVLPForTask` is one of transformers.

    `pooled`: N pairs, one prediction each. `match`: likewise, class 1 = match. `pair`: N = 2 B
    pairs (text, left), (text, right), ..., the two pooled vectors make one prediction. `region`:
    N pairs, one score for each region.
    """

    encoder_type: type[SemVLPNetwork] = SemVLPNetwork

    def __init__(self, config: SemVLPConfig) -> None:
        super().__init__()
        self.config = config
        self.build(config)

    def build(self, config: SemVLPConfig) -> None:
        """Make encoder and head; a model of transformers begins in its own way and calls it too."""
        self.semvlp = self.encoder_type(config)
        self.head = self._head(config)

    @shapes
    def forward(
        self,
        batch: PackedBatch | None = None,
        mode: EvalMode = "both",
        *,
        input_ids: Int[Tensor, "B T"] | None = None,
        attention_mask: Shaped[Tensor, "B T"] | None = None,
        region_features: Float[Tensor, "B *I R F"] | None = None,
        region_boxes: Float[Tensor, "B *I R 4"] | None = None,
        region_attention_mask: Shaped[Tensor, "B *I R"] | None = None,
        labels: Shaped[Tensor, "B *Z"] | None = None,
        output_attentions: bool = False,
    ) -> TaskOutput:
        """Compute logits [B, Z] of a packed batch, or of padded inputs by keyword.

        For the region head Z is the most regions that a pair has.

        Args:
            mode: `both` runs both passes: the probabilities of its logits are their mean, its loss
                is the mean of theirs.
            labels: scores [B, Z] of the labels, 0..1, or the index [B] int64 of the right one.
            output_attentions: whether the weights of attention are computed as well.

        Raises:
            ValueError: the pair head got an odd number of pairs, or there is neither a batch nor
                padded inputs.
        """
        batch = batch or pack_padded(
            input_ids, attention_mask, region_features, region_boxes, region_attention_mask
        )
        modes: tuple[Mode, ...] = ("single", "two") if mode == "both" else (mode,)
        passes = [self._one_pass(batch, one, output_attentions) for one in modes]
        exclusive = self.config.has_exclusive_labels
        output = TaskOutput(logits=mean_logits([one.logits for one in passes], exclusive=exclusive))
        if labels is not None:
            scores = label_scores(labels, output.logits.shape[1])
            # Summed over examples: those without a known label teach an exclusive head nothing.
            count = scores.any(1).sum().clamp(min=1) if exclusive else len(scores)
            losses = [label_loss(one.logits, scores, exclusive=exclusive) for one in passes]
            output.loss = torch.stack(losses).mean() / count
        if output_attentions:
            output.attentions = tuple(w for one in passes for w in one.attentions or ())
            output.cross_attentions = tuple(w for one in passes for w in one.cross_attentions or ())
        return output

    def _one_pass(self, batch: PackedBatch, mode: Mode, output_attentions: bool) -> TaskOutput:
        if self.config.task_head == "pair" and batch.num_pairs % 2:
            raise ValueError(
                "the pair head needs (text, left), (text, right) for every example, got an "
                f"odd number of pairs: {batch.num_pairs}"
            )
        attends, refers = (
            isinstance(self.head, kind) for kind in (PairedAttentionHead, ReferringHead)
        )
        none = batch.input_ids.new_empty(0)
        encoded: Encoded = self.semvlp(
            *(batch, mode),
            token_positions=None if attends else none,
            region_positions=None if attends or refers else none,
            output_attentions=output_attentions,
        )
        if attends:
            logits: Tensor = self.head(encoded.text, encoded.regions, batch)
        elif refers:
            logits = self.head(encoded.regions, batch.region_lengths)
        else:
            pooled = encoded.pooled
            if self.config.task_head == "pair":
                pooled = pooled.view(-1, 2 * pooled.shape[1])  # [B, 2 D]
            logits = self.head(pooled)
        return TaskOutput(
            logits=logits,
            attentions=encoded.attentions,
            cross_attentions=encoded.cross_attentions,
        )

    @staticmethod
    def _head(config: SemVLPConfig) -> nn.Module:
        if config.task_head == "pair" and config.pair_head == "attention":
            return PairedAttentionHead(config, len(config.labels))
        return task_head(config)

    @classmethod
    def from_checkpoint(cls, directory: Path) -> Self:
        """Open a fine-tuned checkpoint, ready to answer.

        Raises:
            InputError: it is damaged, or its tensors are not those that its config.json describes.
        """
        return filled(cls, SemVLPConfig.from_pretrained(directory), directory).eval()

    @classmethod
    def from_pretraining(
        cls, path: str | Path, *, head: TaskHead, labels: Sequence[str], **overrides: Any
    ) -> tuple[Self, LoadReport]:
        """Make a task model with the encoder of a pre-training checkpoint; report what was loaded.

        Args:
            path: checkpoint directory in the Hugging Face layout.
            head: pooled takes over the answer head's rows by label, match the matching head.
            labels: labels of the head in the order of its rows.
            overrides: fields of the configuration to replace, for instance dropout.

        Raises:
            InputError: no checkpoint there, or one whose tensors do not fit: then it is also a
                ValueError that names tensor, both shapes and file.
            ValueError: labels or overrides that cannot be.
        """
        directory = Path(path)
        if not (directory / "config.json").is_file():
            raise InputError(f"{directory}: a pre-training checkpoint must hold config.json")
        try:
            pretrained = SemVLPConfig.from_pretrained(directory)
        except ConfigFileError:
            raise
        except (OSError, ValueError, TypeError) as error:
            raise ConfigFileError(
                f"{directory / 'config.json'}: describes no SemVLP network: {error}"
            ) from error
        refuse_larger(SemVLPNetwork, pretrained, directory)
        model = cls(pretrained.for_task(head, labels, **overrides))
        report = load_pretraining(model, model.config, directory, pretrained.answers or [])
        return model, report
