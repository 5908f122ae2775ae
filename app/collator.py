"""The collator of `transformers.Trainer`: examples with labels to the inputs of a model."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor
from transformers import BatchFeature

from semvlp.app.eyes import Seen
from semvlp.app.processor import SemVLPProcessor
from semvlp.errors import ConfigError, InputError


class LabelledExample(TypedDict):
    """A row of a data set that a task model is trained on."""

    image: Seen | tuple[Seen, Seen]
    """Regions of a store spare the detector, which is else asked in every epoch."""
    text: str
    label: str | Mapping[str, float]
    """The right label, or the score of each, 0..1, as `Task.read` has them."""


class SemVLPCollator:
    """Calls a processor and puts the labels beside its inputs.

    The trainer is to leave the rows whole: `TrainingArguments(remove_unused_columns=False)`.

    Raises:
        ConfigError: the processor has no labels, as of the region head.
    """

    def __init__(self, processor: SemVLPProcessor) -> None:
        if not processor.labels:
            raise ConfigError(
                "the processor has no labels to train on; name them by labels=..., or train the "
                "region head by `semvlp finetune --task refcoco`"
            )
        self.processor = processor
        self._rows = {label: row for row, label in enumerate(processor.labels)}

    def __call__(self, examples: Sequence[LabelledExample]) -> BatchFeature:
        """Return the inputs of B examples with `labels` [B, Z] float32.

        An answer that is none of several right ones may be unknown to the network: it counts
        nothing.

        Raises:
            InputError: as the processor, or a label that is alone and unknown.
        """
        inputs = self.processor(
            [example["image"] for example in examples], [example["text"] for example in examples]
        )
        inputs["labels"] = torch.stack([self._scores(example["label"]) for example in examples])
        return inputs

    def _scores(self, label: Any) -> Tensor:
        if isinstance(label, str):
            if label not in self._rows:
                raise InputError(
                    f"a label must be one of the {len(self._rows)} of the processor, got {label!r}"
                )
            label = {label: 1.0}
        scores = torch.zeros(len(self._rows))
        for name, score in label.items():
            if name in self._rows:
                scores[self._rows[name]] = score
        return scores
