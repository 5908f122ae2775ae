"""Settings with which a tiny network is pre-trained on drawn scenes; every run starts from them.

In small scenes most answers hang on one region and one word: nothing is hidden from questions, and
dropout only slows a network that sees every text once.
"""

import torch

from semvlp.doctor import native_bf16

PRETRAIN = (
    "model.preset=tiny",
    "model.dropout=0.0",
    "model.vocab_size=2000",
    "data.texts_per_image=4",
    "data.max_text_length=40",
    "objectives.on_questions=false",
    "objectives.mlm=0.3",
    "objectives.features=0.1",
    "objectives.objects=0.1",
    "objectives.attributes=0.1",
    "train.batch_size=128",
    "train.lr=8e-4",
    "train.warmup_ratio=0.02",
    "train.threads=1",
    "train.save_every=500",
)

# A tiny network then learns from about half as many pairs.
MUON = ("train.optimizer=muon", "train.lr=2e-3")

FINETUNE = (
    "model.dropout=0.0",
    "train.batch_size=64",
    "train.lr=5e-4",
    "train.threads=1",
    "data.cache_images=20000",
)


def precision() -> str:
    """Choose bf16 where the processor has it in hardware, which takes a third off a step."""
    return f"train.precision={'bf16' if native_bf16(torch) else 'fp32'}"


def first_single(steps: int) -> str:
    """Write a schedule whose modes take turns only after `steps` single-stream steps.

    A fresh network finds out which words mean which regions sooner in one mode than in two.
    """
    return f'train.schedule=["single {steps}", "alternate"]'
