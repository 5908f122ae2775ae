"""The networks that `train.py` compares, and one batch of pairs as each of them takes it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    LxmertConfig,
    LxmertForPreTraining,
    VisualBertConfig,
    VisualBertForPreTraining,
)

from semvlp.model import PackedBatch, SemVLPConfig, SemVLPForPreTraining
from semvlp.model.packing import Mode, to_padded
from semvlp.names import Device, Precision, SizePreset
from semvlp.train.run.throughput import step_flops

TOKENS, REGIONS, FEATURES = (8, 24), (36, 100), 2048
VOCABULARY, OBJECTS, ATTRIBUTES, ANSWERS = 30522, 1600, 400, 9500
MASKED = 0.15
IGNORED = -100  # what cross_entropy, and so the other two, leave out

MODES: tuple[Mode, ...] = ("single", "two")
PEERS = ("VisualBERT", "LXMERT")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is the same for every network of a run."""

    preset: SizePreset
    device: Device
    precision: Precision
    batch_size: int
    attention_dropout: float
    compiled: bool
    seed: int
    regions: tuple[int, int] = REGIONS
    """Fewest and most of an image; `semvlp extract` makes 36 to 100."""


@dataclass(frozen=True)
class Pairs:
    """The batch of a step, and what is to be predicted of it."""

    batch: PackedBatch
    tokens: Tensor
    """[M] masked places in `input_ids`."""
    regions: Tensor
    """[K] masked places in `region_features`."""
    matched: Tensor
    """[N]"""
    answers: Tensor
    """[N]"""
    objects: Tensor
    """[R]"""
    attributes: Tensor
    """[R]"""


def draw_pairs(setting: Setting, number: int = 0) -> Pairs:
    """Pairs of uneven lengths, drawn by the seed; each number is another batch."""
    random = torch.Generator().manual_seed(setting.seed + number)
    count = setting.batch_size
    text_lengths = torch.randint(TOKENS[0], TOKENS[1] + 1, (count,), generator=random)
    fewest, most = setting.regions
    region_lengths = torch.randint(fewest, most + 1, (count,), generator=random)
    num_tokens, num_regions = int(text_lengths.sum()), int(region_lengths.sum())
    corners = torch.rand(num_regions, 2, 2, generator=random)
    regions = torch.randperm(num_regions, generator=random)[: round(MASKED * num_regions)]
    mask = torch.zeros(num_regions, dtype=torch.bool)
    mask[regions] = True
    batch = PackedBatch(
        input_ids=torch.randint(1000, VOCABULARY, (num_tokens,), generator=random),
        region_features=torch.randn(num_regions, FEATURES, generator=random).abs(),
        region_boxes=torch.cat([corners.amin(1), corners.amax(1)], dim=1),
        text_lengths=text_lengths,
        region_lengths=region_lengths,
        region_mask=mask,
    )
    return Pairs(
        batch=batch.to(setting.device),
        tokens=torch.randperm(num_tokens, generator=random)[: round(MASKED * num_tokens)].to(
            setting.device
        ),
        regions=regions.to(setting.device),
        matched=torch.randint(0, 2, (count,), generator=random).to(setting.device),
        answers=torch.randint(0, ANSWERS, (count,), generator=random).to(setting.device),
        objects=torch.randint(0, OBJECTS, (num_regions,), generator=random).to(setting.device),
        attributes=torch.randint(0, ATTRIBUTES, (num_regions,), generator=random).to(
            setting.device
        ),
    )


def our_loss(model: nn.Module, pairs: Pairs, mode: Mode) -> Tensor:
    """All six objectives of pre-training."""
    output = model(pairs.batch, mode, token_positions=pairs.tokens, region_positions=pairs.regions)
    cross_entropy = functional.cross_entropy
    masked = pairs.regions
    return (
        cross_entropy(output.token_logits, pairs.batch.input_ids[pairs.tokens])
        + functional.smooth_l1_loss(output.region_features, pairs.batch.region_features[masked])
        + cross_entropy(output.object_logits, pairs.objects[masked])
        + cross_entropy(output.attribute_logits, pairs.attributes[masked])
        + cross_entropy(output.match_logits, pairs.matched)
        + cross_entropy(output.answer_logits, pairs.answers)
    )


def visual_bert_inputs(pairs: Pairs) -> dict[str, Tensor]:
    """VisualBERT predicts masked words and whether text and image match."""
    batch = pairs.batch
    ids, real_tokens = to_padded(batch.input_ids, batch.text_lengths)
    features, real_regions = to_padded(batch.region_features, batch.region_lengths)
    labels, _ = to_padded(_labels(batch.input_ids, pairs.tokens) - IGNORED, batch.text_lengths)
    no_words = torch.zeros_like(real_regions, dtype=torch.int64)
    return {
        "input_ids": ids,
        "attention_mask": real_tokens.long(),
        "visual_embeds": features,
        "visual_attention_mask": real_regions.long(),
        "labels": torch.cat([labels, no_words], dim=1) + IGNORED,
        "sentence_image_labels": pairs.matched,
    }


def lxmert_inputs(pairs: Pairs) -> dict[str, Any]:
    """LXMERT predicts words, objects, attributes, features, matching and answers."""
    batch = pairs.batch
    ids, real_tokens = to_padded(batch.input_ids, batch.text_lengths)
    features, real_regions = to_padded(batch.region_features, batch.region_lengths)
    labels, _ = to_padded(_labels(batch.input_ids, pairs.tokens) - IGNORED, batch.text_lengths)
    chosen = torch.zeros(len(pairs.objects), device=batch.device).index_fill(0, pairs.regions, 1)
    masked, _ = to_padded(chosen, batch.region_lengths)
    objects, _ = to_padded(pairs.objects, batch.region_lengths)
    attributes, _ = to_padded(pairs.attributes, batch.region_lengths)
    return {
        "input_ids": ids,
        "attention_mask": real_tokens.long(),
        "visual_feats": features,
        "visual_pos": to_padded(batch.region_boxes, batch.region_lengths)[0],
        "visual_attention_mask": real_regions.long(),
        "labels": labels + IGNORED,
        "obj_labels": {
            "obj": (objects, masked),
            "attr": (attributes, masked),
            "feat": (features, masked),
        },
        "matched_label": pairs.matched,
        "ans": pairs.answers,
    }


def _labels(ids: Tensor, places: Tensor) -> Tensor:
    """[T] the ids at `places`, IGNORED elsewhere."""
    return torch.full_like(ids, IGNORED).index_copy_(0, places, ids[places])


def own_config(setting: Setting) -> SemVLPConfig:
    """The configuration of our network."""
    return SemVLPConfig.preset(
        setting.preset,
        answers=[str(number) for number in range(ANSWERS)],
        attention_probs_dropout_prob=setting.attention_dropout,
    )


def operations(setting: Setting, mode: Mode) -> float:
    """What forward and backward of a step of ours need: no padding, nothing done twice."""
    pairs = draw_pairs(replace(setting, device="cpu"))
    return step_flops(
        own_config(setting),
        pairs.batch,
        mode,
        tokens=len(pairs.tokens),
        regions=len(pairs.regions),
        questions=pairs.batch.num_pairs,
    )


def build(name: str, setting: Setting) -> nn.Module:
    """The network called `name`, fresh."""
    torch.manual_seed(setting.seed)
    own = own_config(setting)
    # LXMERT's numbers of layers are its own: 9 of text, 5 of regions, 5 of both.
    shared = ("hidden_size", "num_attention_heads", "intermediate_size")
    sizes = {key: getattr(own, key) for key in (*shared, "attention_probs_dropout_prob")}
    model: nn.Module
    if name == "VisualBERT":
        model = VisualBertForPreTraining(
            VisualBertConfig(
                visual_embedding_dim=FEATURES, num_hidden_layers=own.num_hidden_layers, **sizes
            )
        )
    elif name == "LXMERT":
        model = LxmertForPreTraining(LxmertConfig(num_qa_labels=ANSWERS, **sizes))
    else:
        model = SemVLPForPreTraining(own)
        if setting.compiled:
            model.compile_blocks()
    model.train()
    return nn.Module.to(model, setting.device)


def loss_of(name: str, model: nn.Module, pairs: Pairs) -> Callable[[], Tensor]:
    """The forward pass of a network, in one of our modes or a peer's."""
    if name == "VisualBERT":
        inputs = visual_bert_inputs(pairs)
        return lambda: model(**inputs).loss
    if name == "LXMERT":
        lxmert = lxmert_inputs(pairs)
        return lambda: model(**lxmert).loss
    mode: Mode = "single" if name == "single" else "two"
    return functools.partial(our_loss, model, pairs, mode)
