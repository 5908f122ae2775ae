"""The pre-training losses, each a pure function of predictions and targets.

Every loss is a SUM over what it predicts. The step divides it by the number of things predicted
over all ranks and accumulated parts, so that neither changes the result.

N pairs, M masked tokens, K masked regions, Q questions, V vocabulary, C object classes,
A attributes, F feature size, Z answers.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from semvlp.model.semvlp import PreTrainingOutput

IGNORED = -1
"""Class of what a classification loss leaves out."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Targets:
    """What the network should have said about one packed batch."""

    token_positions: Tensor
    """[M] int64, masked tokens in the text stream."""
    token_ids: Tensor
    """[M] int64, what stood there."""
    region_positions: Tensor
    """[K] int64, masked regions in the region stream."""
    region_features: Tensor
    """[K, F] float32, their features."""
    object_ids: Tensor
    """[K] int64."""
    object_conf: Tensor
    """[K] float32, the detector's confidence."""
    attribute_ids: Tensor
    """[K] int64, IGNORED where the detector gave none."""
    attribute_conf: Tensor
    """[K] float32, the detector's confidence."""
    matched: Tensor
    """[N] int64, 1 match, 0 mismatch, IGNORED where the pair does not take part."""
    question_pairs: Tensor
    """[Q] int64, the pairs that are questions to be answered."""
    answer_scores: Tensor
    """[Q, Z] float32, score of each answer in 0..1, at least one above 0."""

    def to(self, device: torch.device) -> Self:
        """The same targets on another device."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return type(self)(**moved)

    def counts(self) -> dict[str, int]:
        """How many things each objective predicts: the divisor of its sum."""
        return {
            "mlm": len(self.token_ids),
            "features": len(self.object_ids),
            "objects": len(self.object_ids),
            "attributes": int((self.attribute_ids != IGNORED).sum()),
            "matching": int((self.matched != IGNORED).sum()),
            "answers": len(self.question_pairs),
        }


def pretraining_losses(
    output: PreTrainingOutput, targets: Targets, names: Iterable[str]
) -> dict[str, Tensor]:
    """The sums of the objectives `names`, by name."""
    return {name: _LOSSES[name](output, targets) for name in names}


def masked_tokens(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Cross-entropy of the masked tokens: logits [M, V], ids [M]."""
    return functional.cross_entropy(logits.float(), token_ids, reduction="sum")


def masked_features(predicted: Tensor, features: Tensor) -> Tensor:
    """Smooth L1 of the masked regions [K, F], averaged over F (airsplay/lxmert modeling.py)."""
    loss = functional.smooth_l1_loss(predicted.float(), features, reduction="sum")
    return loss / features.shape[1]


def masked_classes(logits: Tensor, class_ids: Tensor, conf: Tensor) -> Tensor:
    """Cross-entropy of the masked regions' classes, each times the detector's confidence.

    Logits [K, C], classes [K] with IGNORED, confidences [K] in 0..1 (airsplay/lxmert modeling.py,
    there on all regions because of an oversight that its author confirms; here on masked ones).
    """
    losses = functional.cross_entropy(
        logits.float(), class_ids, ignore_index=IGNORED, reduction="none"
    )
    return (losses * conf).sum()


def image_text_matching(logits: Tensor, matched: Tensor) -> Tensor:
    """Cross-entropy of match (1) against mismatch (0): logits [N, 2], classes [N] with IGNORED."""
    return functional.cross_entropy(logits.float(), matched, ignore_index=IGNORED, reduction="sum")


def image_question_answering(logits: Tensor, scores: Tensor) -> Tensor:
    """Soft cross-entropy: logits [Q, Z] against scores [Q, Z] normalised to sum to one.

    Its expectation equals that of drawing one answer in proportion to its score (LXMERT), without
    the noise of the draw.
    """
    share = scores / scores.sum(dim=1, keepdim=True)
    return functional.cross_entropy(logits.float(), share, reduction="sum")


_LOSSES: dict[str, Callable[[PreTrainingOutput, Targets], Tensor]] = {
    "mlm": lambda out, aim: masked_tokens(out.token_logits, aim.token_ids),
    "features": lambda out, aim: masked_features(out.region_features, aim.region_features),
    "objects": lambda out, aim: masked_classes(out.object_logits, aim.object_ids, aim.object_conf),
    "attributes": lambda out, aim: masked_classes(
        out.attribute_logits, aim.attribute_ids, aim.attribute_conf
    ),
    "matching": lambda out, aim: image_text_matching(out.match_logits, aim.matched),
    "answers": lambda out, aim: image_question_answering(
        out.answer_logits[aim.question_pairs], aim.answer_scores
    ),
}
