"""Settings of pre-training and fine-tuning: one field a line, defaults that run as they stand.

The SemVLP paper (arXiv 2103.07829) does not state batch size, learning rate or mixing ratio where
we could verify them; the defaults follow LXMERT (airsplay/lxmert) unless a field says otherwise.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast, get_args

from semvlp.model.config import (
    BoxSize,
    CrossAttention,
    CrossStart,
    ImageToken,
    RegionEmbedding,
)

Preset = Literal["tiny", "small", "base", "large"]
Turns = Literal["alternate", "ratio", "single", "two"]
TokenUnit = Literal["piece", "word"]
MaskedSides = Literal["both", "one"]
Negatives = Literal["text", "batch_text", "batch_image", "hard_text", "hard_image"]
TaskNegatives = Literal["random", "batch", "hard"]
Replaced = Literal["text", "image", "either"]
FeatureLoss = Literal["smooth_l1", "mse"]
ClassLoss = Literal["cross_entropy", "kl"]
ClassesOn = Literal["masked", "all"]
Decay = Literal["linear", "cosine", "constant"]
Decayed = Literal["matrices", "all"]
Precision = Literal["fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
PairHead = Literal["concatenation", "attention"]
Parallel = Literal["ddp", "fsdp"]

OBJECTIVES = ("mlm", "features", "objects", "attributes", "matching", "answers")
"""Names of the pre-training objectives, as in `objectives.NAME` and `loss_NAME`."""
WHOLE_OR_NONE = ("part_rows", "threads")
REGION_SHARES = ("region_zeroed", "region_random")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which network is trained."""

    preset: Preset = "base"
    """Size of the encoder; fine-tuning reads it only where it starts from nothing."""
    cross_layers: int | None = None
    """How many upper blocks hold the plugged cross-attention; the preset's number unless set."""
    cross_attention: CrossAttention = "shared"
    """Text -> regions and regions -> text with the same weights, or with `separate` ones."""
    cross_start: CrossStart = "fresh"
    """Cross-attention starts at random, or as a copy of its block's `self-attention`."""
    box_size: BoxSize = 4
    """Numbers of a box: x1 y1 x2 y2; 5 adds the area, 7 width, height and area."""
    region_embedding: RegionEmbedding = "mean-of-norms"
    """How the projections of feature and box become one."""
    image_token: ImageToken = "none"
    """A row for the whole image before its regions: `mean` of their features."""
    dropout: float = 0.1
    """Dropout of hidden states, and of attention weights unless `attention_dropout` is set."""
    attention_dropout: float | None = None
    """Dropout of attention weights; 0 lets a GPU take the flash kernel (docs/model.md)."""
    standardise: bool = True
    """Shift and scale region features by mean and deviation, measured when a network is fresh."""
    tokenizer: str = "train"
    """`train`: WordPiece from the texts at hand; else a Hugging Face name or a directory."""
    vocab_size: int = 30522
    """Largest size of a trained WordPiece vocabulary."""
    pair_head: PairHead = "concatenation"
    """How a task with two images (NLVR2) joins them; `attention` is UNITER's. Not pre-trained."""
    bert: str | None = None
    """Hugging Face name or directory of BERT, LXMERT or VisualBERT weights to start from."""

    def __post_init__(self) -> None:
        _between("dropout", self.dropout, 0, 0.9)
        if self.attention_dropout is not None:
            _between("attention_dropout", self.attention_dropout, 0, 0.9)
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
    order: Literal["full", "block", "sequential"] = "full"
    """`full` shuffles all images in each epoch; `block` those of `block_shards` shards at a time,
    for disks that are slow at random access; `sequential` follows the files."""
    block_shards: int = 16
    """Shards that are mixed with one another in block order."""
    weights: tuple[float, ...] = ()
    """Share of each data set in the visits, in the order they are given; without it all are one
    data set and their images equally likely."""

    def __post_init__(self) -> None:
        TextAndRegionConfig.__post_init__(self)
        _at_least("texts_per_image", self.texts_per_image, 1)
        _at_least("block_shards", self.block_shards, 1)
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
class RetrievalConfig:
    """The wrong pairs that the matching head of retrieval is fine-tuned on; other tasks have none.

    A text that any caption of the image says is never taken for a wrong one.
    """

    mismatch_rate: float = 0.5
    """Chance of a pair to be made a mismatch."""
    negatives: TaskNegatives = "random"
    """Of what it is made: another example of all (`random`), one of the same optimiser step
    (`batch`), or of `pool` of that step the one that the network now thinks fits best (`hard`)."""
    replaced: Replaced = "text"
    """What of the pair is replaced: its `text`; its `image`, which several processes read more than
    once a step; or `either`, equally often."""
    pool: int = 8
    """How many wrong pairs the hardest is chosen of, each one more forward pass."""

    def __post_init__(self) -> None:
        _between("mismatch_rate", self.mismatch_rate, 0, 1)
        _at_least("pool", self.pool, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectivesConfig:
    """Weights and rates of the pre-training objectives; weight 0 switches one off."""

    mlm: float = 1.0
    """Masked language modelling."""
    features: float = 1.0
    """Regression of the features of masked regions."""
    objects: float = 1.0
    """Object class of masked regions, as the detector says."""
    attributes: float = 1.0
    """Attribute of masked regions, as the detector says."""
    matching: float = 1.0
    """Image-text matching on captions."""
    answers: float = 1.0
    """Image question answering on matched questions, soft cross-entropy."""
    token_rate: float = 0.15
    """Chance of a word piece to be masked; at least one of each text is."""
    token_unit: TokenUnit = "piece"
    """What is masked as a whole: a word `piece`, or a `word` with all its pieces."""
    region_rate: float = 0.15
    """Chance of a region to be masked; at least one is."""
    region_zeroed: float = 1.0
    """Share of the masked regions whose features become zeros (UNITER: all)."""
    region_random: float = 0.0
    """Share whose features become those of any region of the batch (LXMERT 0.1, with 0.8 zeroed);
    what is left stays as it is, and is predicted too."""
    masked_sides: MaskedSides = "both"
    """Mask text and regions of `both` sides of a pair, or of `one` side, drawn for each pair (as
    UNITER's conditional masking)."""
    overlap: float = 0.5
    """Regions whose IoU with a masked one exceeds this are masked too; 1.0 switches it off."""
    mismatch_rate: float = 0.5
    """Chance of a caption's pair to be made a mismatch."""
    negatives: Negatives = "text"
    """What makes a mismatch. `text`: a caption of any other image of the data. `batch_text` and
    `batch_image`: a caption, or the regions, of another image of the same batch. `hard_text` and
    `hard_image`: of the one whose detected objects are most alike."""
    on_mismatched: bool = False
    """Predict what is hidden on mismatched pairs too (LXMERT does, VOLTA does not); as much is
    hidden either way, or the masks would tell matches from mismatches."""
    on_questions: bool = True
    """Hide and predict on questions too, as LXMERT does; what is hidden cannot be counted."""
    feature_loss: FeatureLoss = "smooth_l1"
    """Distance of predicted from true features (LXMERT `smooth_l1`, UNITER `mse`)."""
    class_loss: ClassLoss = "cross_entropy"
    """Objects and attributes: `cross_entropy` weighted by the detector's confidence, or `kl`
    against the distribution that this confidence stands for."""
    classes_on: ClassesOn = "masked"
    """Predict objects and attributes of the `masked` regions, or of `all` (LXMERT's code)."""

    def __post_init__(self) -> None:
        for name in OBJECTIVES:
            _at_least(name, getattr(self, name), 0)
        for name in ("token_rate", "region_rate", "overlap", "mismatch_rate", *REGION_SHARES):
            _between(name, getattr(self, name), 0, 1)
        if self.region_zeroed + self.region_random > 1:
            raise ValueError(
                "region_zeroed and region_random must be at most 1 together, got "
                f"{self.region_zeroed} and {self.region_random}"
            )
        if not any(self.weights().values()):
            raise ValueError("at least one objective must have a weight above 0")

    def weights(self) -> dict[str, float]:
        """Weight of each objective by name."""
        return {name: getattr(self, name) for name in OBJECTIVES}


class Phase(NamedTuple):
    """A run of steps whose modes take turns in one way."""

    turns: Turns
    steps: float
    """How many; infinite in the last phase."""


def read_phase(text: str, *, is_last: bool) -> Phase:
    """A phase written as `single 100000`, or as `alternate` where it is the last.

    Raises:
        ValueError: it is written otherwise.
    """
    turns, *steps = text.split()
    number = math.inf if is_last and not steps else _whole_number("".join(steps))
    if turns not in get_args(Turns) or number < 1 or (is_last and steps):
        raise ValueError(
            "schedule must name phases, each with its steps but the last without, such as "
            f'["single 100000", "alternate"], of {", ".join(get_args(Turns))}; got {text!r}'
        )
    return Phase(cast(Turns, turns), number)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The optimisation: how long, how fast, how often something is written."""

    # The list first: an error then speaks of what can be written as one word.
    schedule: tuple[str, ...] | Turns = "alternate"
    """`alternate`: single, two, single, ...; `ratio`: drawn; `single` or `two`: that mode alone. Or
    phases, the last one open: ["single 100000", "alternate"]."""
    single_share: float = 0.5
    """Share of single-stream steps under `ratio`."""
    steps: int = 100_000
    """Optimiser steps."""
    batch_size: int = 256
    """(text, image) pairs of one optimiser step, over all ranks and accumulated parts."""
    accumulate: int = 1
    """Parts that a rank's share of a step is cut into, where memory is short."""
    part_rows: int = 0
    """Or cut it into parts of at most this many rows, tokens and regions together (UNITER: 10240 a
    GPU); 0 leaves it to `accumulate`."""
    lr: float = 1e-4
    """Peak learning rate."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises from zero."""
    decay: Decay = "linear"
    """How it falls to zero after the warm-up; `constant` does not."""
    weight_decay: float = 0.01
    """AdamW's decay."""
    decayed: Decayed = "matrices"
    """What decays: the `matrices`, not biases and normalisation, or `all` (LXMERT)."""
    beta1: float = 0.9
    """AdamW's first moment."""
    beta2: float = 0.98
    """AdamW's second moment (UNITER)."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    average: float = 0.0
    """Decay of a moving average of the weights, which then is what is validated and saved, for
    instance 0.9999; 0 keeps none."""
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
    threads: int = 0
    """Threads of PyTorch on the CPU; 0 leaves it to PyTorch. Small networks are fastest with one:
    more wait for each other and for the thread that makes the batches."""
    parallel: Parallel = "ddp"
    """Where several processes share a run: `ddp` holds the whole model in each, `fsdp` cuts it
    among them."""
    activation_checkpointing: bool = False
    """Compute the activations of each block again in the backward pass, instead of keeping them."""
    compile: bool = False
    """Let torch.compile fuse the operations of each block; the first steps then take minutes."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "log_every", "keep"):
            _at_least(name, getattr(self, name), 1)
        for name in ("steps", "save_every", "weight_decay", "clip", "seed", "lr", *WHOLE_OR_NONE):
            _at_least(name, getattr(self, name), 0)
        for name in ("single_share", "warmup", "beta1", "beta2"):
            _between(name, getattr(self, name), 0, 1)
        _between("average", self.average, 0, 0.999999)
        if self.part_rows and self.accumulate > 1:
            raise ValueError(
                "accumulate and part_rows both say how a step is cut; give one, got "
                f"{self.accumulate} and {self.part_rows}"
            )
        if not self.phases:
            raise ValueError('schedule must name at least one phase, such as ["alternate"], got []')

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The schedule as phases, the last of them without an end.

        Raises:
            ValueError: a phase that cannot be read, or one that ends and is the last.
        """
        written = (self.schedule,) if isinstance(self.schedule, str) else self.schedule
        return tuple(
            read_phase(phase, is_last=number == len(written))
            for number, phase in enumerate(written, start=1)
        )


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
    layer_decay: float = 1.0
    """Learning rate of each block over that of the block above it; 1 treats all alike."""
    head_lr: float = 1.0
    """Learning rate of the task's head over `lr` (UNITER 10, METER 50)."""
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
        for name in ("patience", "head_lr"):
            _at_least(name, getattr(self, name), 0)
        _between("layer_decay", self.layer_decay, 0, 1)
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
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    train: FinetuneTrainConfig = field(default_factory=FinetuneTrainConfig)


def _whole_number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, got {value}")
