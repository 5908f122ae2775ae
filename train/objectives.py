"""The pre-training losses, each a pure function of predictions and targets.

Every loss is a SUM over what it predicts. The step divides it by the number of things predicted
over all ranks and micro-batches, so that neither changes the result.

N pairs, M masked tokens, K regions whose classes are predicted, J of them masked, Q questions,
V vocabulary, C classes, F feature size, Z answers.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from semvlp.model.outputs import PreTrainingOutput
from semvlp.model.packing import to_device
from semvlp.shapes import shapes
from semvlp.train.config import ClassLoss, FeatureLoss, ObjectivesConfig

IGNORED = -1
"""Class of what a classification loss leaves out."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Targets:
    """The targets of one packed batch."""

    token_positions: Tensor
    """[M] int64, masked tokens in the text stream."""
    token_ids: Tensor
    """[M] int64, what stood there."""
    region_positions: Tensor
    """[K] int64, the regions in the region stream whose classes are asked for."""
    masked_index: Tensor
    """[J] int64, those of the K that were masked: their features are asked for too."""
    region_features: Tensor
    """[J, F] float16 or float32, their features."""
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
        """Return the same targets on another device."""
        return type(self)(
            **{f.name: to_device(getattr(self, f.name), device) for f in fields(self)}
        )

    def counts(self) -> dict[str, int]:
        """Count the things that each objective predicts: the divisor of its sum."""
        return {
            "mlm": len(self.token_ids),
            "features": len(self.masked_index),
            "objects": len(self.object_ids),
            "attributes": int((self.attribute_ids != IGNORED).sum()),
            "matching": int((self.matched != IGNORED).sum()),
            "answers": len(self.question_pairs),
        }


def pretraining_losses(
    output: PreTrainingOutput, targets: Targets, names: Iterable[str], config: ObjectivesConfig
) -> dict[str, Tensor]:
    """Sum the objectives `names`, by name; `config` says which form a loss has."""
    return {name: _LOSSES[name](output, targets, config) for name in names}


@shapes
def masked_tokens(logits: Float[Tensor, "M V"], token_ids: Int[Tensor, "M"]) -> Float[Tensor, ""]:
    """Return the cross-entropy of the masked tokens: logits [M, V], ids [M]."""
    return functional.cross_entropy(logits.float(), token_ids, reduction="sum")


@shapes
def masked_features(
    predicted: Float[Tensor, "J F"],
    features: Float[Tensor, "J F"],
    form: FeatureLoss = "smooth_l1",
) -> Float[Tensor, ""]:
    """Return the distance of the masked regions' features [J, F], averaged over F.

    Smooth L1 as in airsplay/lxmert modeling.py, squares as in ChenRocks/UNITER model/pretrain.py.
    """
    distance = functional.smooth_l1_loss if form == "smooth_l1" else functional.mse_loss
    return distance(predicted.float(), features.float(), reduction="sum") / features.shape[1]


@shapes
def region_classes(
    logits: Float[Tensor, "K C"],
    class_ids: Int[Tensor, "K"],
    conf: Float[Tensor, "K"],
    form: ClassLoss = "cross_entropy",
) -> Float[Tensor, ""]:
    """Measure how far the regions' classes are from what the detector says.

    Logits [K, C], classes [K] with IGNORED, the detector's confidences [K] in 0..1. Which regions
    these are is the caller's choice: in airsplay/lxmert modeling.py all, because of an oversight
    that its author confirms.
    """
    return (
        class_divergence(logits, class_ids, conf)
        if form == "kl"
        else class_entropy(logits, class_ids, conf)
    )


@shapes
def class_entropy(
    logits: Float[Tensor, "K C"], class_ids: Int[Tensor, "K"], conf: Float[Tensor, "K"]
) -> Float[Tensor, ""]:
    """Return the cross-entropy, each region's times the detector's confidence (airsplay/lxmert)."""
    losses = functional.cross_entropy(
        logits.float(), class_ids, ignore_index=IGNORED, reduction="none"
    )
    return (losses * conf).sum()


@shapes
def class_divergence(
    logits: Float[Tensor, "K C"], class_ids: Int[Tensor, "K"], conf: Float[Tensor, "K"]
) -> Float[Tensor, ""]:
    """Return the KL divergence from the detector's distribution (ChenRocks/UNITER, MRC-kl).

    Of that distribution the shards keep the best class and its confidence; what is missing to one
    is spread evenly over the other classes, which assumes the least about them.
    """
    known, classes = class_ids != IGNORED, logits.shape[1]
    spread = (1 - conf) / max(classes - 1, 1)
    share = spread[:, None].expand(-1, classes).clone()
    share.scatter_(1, class_ids.clamp(min=0)[:, None], conf[:, None])  # [K, C]
    each = functional.kl_div(logits.float().log_softmax(1), share, reduction="none").sum(1)
    return (each * known).sum()


@shapes
def image_text_matching(
    logits: Float[Tensor, "N 2"], matched: Int[Tensor, "N"]
) -> Float[Tensor, ""]:
    """Return the cross-entropy of match (1) and mismatch (0): logits [N, 2], classes [N]."""
    return functional.cross_entropy(logits.float(), matched, ignore_index=IGNORED, reduction="sum")


@shapes
def image_question_answering(
    logits: Float[Tensor, "Q Z"], scores: Float[Tensor, "Q Z"]
) -> Float[Tensor, ""]:
    """Return the soft cross-entropy: logits [Q, Z], scores [Q, Z] normalised to sum to one.

    Its expectation equals that of drawing one answer in proportion to its score (LXMERT), without
    the noise of the draw.
    """
    share = scores / scores.sum(dim=1, keepdim=True)
    return functional.cross_entropy(logits.float(), share, reduction="sum")


_LOSSES: dict[str, Callable[[PreTrainingOutput, Targets, ObjectivesConfig], Tensor]] = {
    "mlm": lambda out, targets, config: masked_tokens(out.token_logits, targets.token_ids),
    "features": lambda out, targets, config: masked_features(
        out.region_features[targets.masked_index], targets.region_features, config.feature_loss
    ),
    "objects": lambda out, targets, config: region_classes(
        out.object_logits, targets.object_ids, targets.object_conf, config.class_loss
    ),
    "attributes": lambda out, targets, config: region_classes(
        out.attribute_logits, targets.attribute_ids, targets.attribute_conf, config.class_loss
    ),
    "matching": lambda out, targets, config: image_text_matching(out.match_logits, targets.matched),
    "answers": lambda out, targets, config: image_question_answering(
        out.answer_logits[targets.question_pairs], targets.answer_scores
    ),
}
