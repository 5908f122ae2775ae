"""Settings of pre-training and fine-tuning: one field a line, defaults that run as they stand.

The SemVLP paper (arXiv 2103.07829) does not state batch size, learning rate or mixing ratio where
we could verify them; the defaults follow LXMERT (airsplay/lxmert) unless a field says otherwise.
"""

from dataclasses import dataclass, field
from typing import Literal

Preset = Literal["tiny", "small", "base", "large"]
Schedule = Literal["alternate", "ratio", "single", "two"]
Decay = Literal["linear", "cosine", "constant"]
Precision = Literal["fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]

OBJECTIVES = ("mlm", "features", "objects", "attributes", "matching", "answers")
"""Names of the pre-training objectives, as in `objectives.NAME` and `loss_NAME`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which network is trained."""

    preset: Preset = "base"
    """Size of the encoder; fine-tuning reads it only where it starts from nothing."""
    cross_layers: int | None = None
    """How many upper blocks hold the plugged cross-attention; the preset's number unless set."""
    dropout: float = 0.1
    """Dropout of hidden states and attention weights."""
    tokenizer: str = "train"
    """`train`: WordPiece from the texts at hand; else a Hugging Face name or a directory."""
    vocab_size: int = 30522
    """Largest size of a trained WordPiece vocabulary."""
    bert: str | None = None
    """Hugging Face name or directory of BERT weights to start the shared encoder from."""

    def __post_init__(self) -> None:
        _between("dropout", self.dropout, 0, 0.9)
        _at_least("vocab_size", self.vocab_size, 64)
        if self.bert is not None and self.tokenizer == "train":
            raise ValueError(
                f"bert = {self.bert!r} needs BERT's own vocabulary; set tokenizer = {self.bert!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextAndRegionConfig:
    """How much of a text and of an image is read; shared by pre-training and fine-tuning."""

    max_text_length: int = 60
    """Longest text in word pieces, [CLS] and [SEP] included."""
    max_regions: int = 100
    """Only the most confident regions of an image are used, this many."""

    def __post_init__(self) -> None:
        _at_least("max_text_length", self.max_text_length, 3)
        _at_least("max_regions", self.max_regions, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig(TextAndRegionConfig):
    """How visits of images become (text, image) pairs."""

    texts_per_image: int = 1
    """Pairs made of one visit, so that one read of the regions serves several texts."""
    max_answers: int = 9500
    """Size of the answer list: the most frequent answers of all questions."""
    order: Literal["full", "sequential"] = "full"
    """`full` shuffles all images in each epoch; `sequential` follows the files, for slow disks."""

    def __post_init__(self) -> None:
        TextAndRegionConfig.__post_init__(self)
        _at_least("texts_per_image", self.texts_per_image, 1)
        _at_least("max_answers", self.max_answers, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneDataConfig(TextAndRegionConfig):
    """How examples of a task are read."""

    cache_images: int = 0
    """Keep the regions of this many images in memory, the first that are read."""

    def __post_init__(self) -> None:
        TextAndRegionConfig.__post_init__(self)
        _at_least("cache_images", self.cache_images, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectivesConfig:
    """Weights and rates of the pre-training objectives; weight 0 switches one off."""

    mlm: float = 1.0
    """Masked language modelling."""
    features: float = 1.0
    """Regression of the features of masked regions, smooth L1."""
    objects: float = 1.0
    """Object class of masked regions, weighted by the detector's confidence."""
    attributes: float = 1.0
    """Attribute of masked regions, weighted by the detector's confidence."""
    matching: float = 1.0
    """Image-text matching on captions."""
    answers: float = 1.0
    """Image question answering on matched questions, soft cross-entropy."""
    token_rate: float = 0.15
    """Chance of a word piece to be masked; at least one of each text is."""
    region_rate: float = 0.15
    """Chance of a region to be masked; at least one is."""
    overlap: float = 0.5
    """Regions whose IoU with a masked one exceeds this are masked too; 1.0 switches it off."""
    mismatch_rate: float = 0.5
    """Chance of a caption to be replaced by one of another image."""
    on_mismatched: bool = False
    """Predict what is hidden on mismatched pairs too (LXMERT does, VOLTA does not); as much is
    hidden either way, or the masks would tell matches from mismatches."""
    on_questions: bool = True
    """Hide and predict on questions too, as LXMERT does; what is hidden cannot be counted."""

    def __post_init__(self) -> None:
        for name in OBJECTIVES:
            _at_least(name, getattr(self, name), 0)
        for name in ("token_rate", "region_rate", "overlap", "mismatch_rate"):
            _between(name, getattr(self, name), 0, 1)
        if not any(self.weights().values()):
            raise ValueError("at least one objective must have a weight above 0")

    def weights(self) -> dict[str, float]:
        """Weight of each objective by name."""
        return {name: getattr(self, name) for name in OBJECTIVES}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The optimisation: how long, how fast, how often something is written."""

    schedule: Schedule = "alternate"
    """`alternate`: single, two, single, ...; `ratio`: drawn; `single` or `two`: that mode alone."""
    single_share: float = 0.5
    """Share of single-stream steps under `ratio`."""
    steps: int = 100_000
    """Optimiser steps."""
    batch_size: int = 256
    """(text, image) pairs of one optimiser step, over all ranks and accumulated parts."""
    accumulate: int = 1
    """Parts that a rank's share of a step is cut into, where memory is short."""
    lr: float = 1e-4
    """Peak learning rate."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises from zero."""
    decay: Decay = "linear"
    """How it falls to zero after the warm-up; `constant` does not."""
    weight_decay: float = 0.01
    """AdamW's decay, of matrices only: not of biases and normalisation."""
    beta1: float = 0.9
    """AdamW's first moment."""
    beta2: float = 0.98
    """AdamW's second moment (UNITER)."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    seed: int = 0
    """Everything random follows from it."""
    log_every: int = 10
    """Steps between two entries of metrics.jsonl; both modes are shown where two alternate."""
    save_every: int = 1000
    """Steps between two checkpoints."""
    keep: int = 2
    """Newest checkpoints kept; the best one is kept besides."""
    precision: Precision = "fp32"
    """`bf16` runs the matrix products in bfloat16; weights and losses stay float32."""
    device: Device = "auto"
    """`auto` takes a GPU where there is one."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "log_every", "keep"):
            _at_least(name, getattr(self, name), 1)
        for name in ("steps", "save_every", "weight_decay", "clip", "seed", "lr"):
            _at_least(name, getattr(self, name), 0)
        for name in ("single_share", "warmup", "beta1", "beta2"):
            _between(name, getattr(self, name), 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneTrainConfig(TrainConfig):
    """The optimisation of one task."""

    steps: int = 0
    """Optimiser steps; 0 takes `epochs`."""
    epochs: float = 4.0
    """Passes over the training examples."""
    batch_size: int = 32
    """Examples of one optimiser step, over all ranks and accumulated parts."""
    lr: float = 5e-5
    """Peak learning rate."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises from zero."""
    save_every: int = 0
    """Steps between two checkpoints, each validated; 0 is once an epoch."""
    patience: int = 0
    """Stop after this many validations in a row without a better score; 0 never stops early."""
    validation_mode: Literal["single", "two", "both"] = "both"
    """Which passes the validation uses; `both` averages their probabilities."""

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        _at_least("patience", self.patience, 0)
        if self.steps == 0 and self.epochs <= 0:
            raise ValueError(f"epochs must be above 0 where steps is 0, got {self.epochs}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Everything `semvlp pretrain` reads from a file or from `--set`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        _at_least("train.steps", self.train.steps, 1)
        _at_least("train.save_every", self.train.save_every, 1)
        if self.train.batch_size % self.data.texts_per_image:
            raise ValueError(
                f"train.batch_size ({self.train.batch_size}) must be a multiple of "
                f"data.texts_per_image ({self.data.texts_per_image})"
            )

    @property
    def images_per_step(self) -> int:
        """Images read for one optimiser step over all ranks."""
        return self.train.batch_size // self.data.texts_per_image


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """Everything `semvlp finetune` reads from a file or from `--set`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: FinetuneDataConfig = field(default_factory=FinetuneDataConfig)
    train: FinetuneTrainConfig = field(default_factory=FinetuneTrainConfig)


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, got {value}")
