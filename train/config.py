"""Settings of pre-training and fine-tuning: their tables, then the whole of each.

The table `train` is in train_config.py. The string under a field is its documentation, which
`semvlp settings` and docs/training.md show.
"""

from dataclasses import dataclass, field
from typing import Literal

from semvlp.addresses import refuse_old_weights
from semvlp.names import (
    BoxEncoding,
    BoxSize,
    CrossAttention,
    CrossStart,
    ImageToken,
    PairHead,
    RegionEmbedding,
    SizePreset,
)
from semvlp.settings import added, formerly, require_at_least, require_between
from semvlp.train.train_config import FinetuneTrainConfig, TrainConfig

ReadOrder = Literal["full", "block", "sequential"]
TokenUnit = Literal["piece", "word"]
MaskedSides = Literal["both", "one"]
Negatives = Literal["text", "batch_text", "batch_image", "hard_text", "hard_image"]
FeatureLoss = Literal["smooth_l1", "mse"]
ClassLoss = Literal["cross_entropy", "kl"]
ClassesOn = Literal["masked", "all"]
TaskNegatives = Literal["random", "batch", "hard"]
Replaced = Literal["text", "image", "either"]
Sampling = Literal["all", "balanced"]

OBJECTIVES = ("mlm", "features", "objects", "attributes", "matching", "answers")
"""Names of the pre-training objectives, as in `objectives.NAME` and `loss_NAME`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which network is trained."""

    preset: SizePreset = "base"
    """Size of the encoder; fine-tuning reads it only where it starts from nothing."""
    num_layers: int | None = None
    """How many blocks; the preset's number unless set. LXMERT's weights need 14."""
    cross_layers: int | None = None
    """How many upper blocks hold the plugged cross-attention; the preset's number unless set."""
    cross_attention: CrossAttention = "shared"
    """Text -> regions and regions -> text with the same weights (`shared`), with `separate` ones,
    or with those of the block's self-attention (`tied`)."""
    cross_start: CrossStart = "fresh"
    """Cross-attention starts at random, or as a copy of its block's `self-attention`."""
    box_size: BoxSize = 4
    """Numbers of a box: x1 y1 x2 y2; 5 adds the area, 7 width, height and area."""
    box_encoding: BoxEncoding = added("fourier", before="linear")
    """What is projected of these numbers: with their sines and cosines at rising frequencies, which
    tell near places apart, or `linear`ly they alone, as all published weights need."""
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
    pretrained: str | None = formerly("bert", None)
    """Hugging Face name or directory of BERT, LXMERT or VisualBERT weights to start from, or a
    SemVLP checkpoint, whose encoder then goes on with other data."""

    def __post_init__(self) -> None:
        require_between(self, 0, 0.9, "dropout", "attention_dropout")
        require_at_least(self, 1, "num_layers")
        require_at_least(self, 64, "vocab_size")
        if self.pretrained is not None:
            refuse_old_weights(self.pretrained, "model.pretrained")
        if self.pretrained is not None and self.tokenizer == "train":
            raise ValueError(
                f"pretrained = {self.pretrained!r} needs its own vocabulary; "
                f"set tokenizer = {self.pretrained!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextAndRegionConfig:
    """How much of a text and of an image is read; shared by pre-training and fine-tuning."""

    max_text_length: int = 60
    """Longest text in word pieces, [CLS] and [SEP] included."""
    max_regions: int = 100
    """Only the most confident regions of an image are used, this many."""

    def __post_init__(self) -> None:
        require_at_least(self, 3, "max_text_length")
        require_at_least(self, 1, "max_regions")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig(TextAndRegionConfig):
    """How visits of images become (text, image) pairs."""

    texts_per_image: int = 1
    """Pairs made of one visit, so that one read of the regions serves several texts."""
    max_answers: int = 9500
    """Size of the answer list: the most frequent answers of all questions."""
    order: ReadOrder = "full"
    """`full` shuffles all images in each epoch; `block` those of `block_shards` shards at a time,
    for disks that are slow at random access; `sequential` follows the files."""
    block_shards: int = 16
    """Shards that are mixed with one another in block order."""
    weights: tuple[float, ...] = ()
    """Share of each data set in the visits, in the order they are given; without it all are one
    data set and their images equally likely."""
    workers: int = 0
    """Processes that make batches of what was read, for a GPU that one thread cannot keep busy; 0
    makes them in a thread of the trainer. Changes no number."""

    def __post_init__(self) -> None:
        TextAndRegionConfig.__post_init__(self)
        require_at_least(self, 1, "texts_per_image", "max_answers", "block_shards")
        require_at_least(self, 0, "workers")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectivesConfig:
    """Weights and rates of the pre-training objectives; weight 0 switches one off."""

    mlm: float = 1.0
    """Masked language modelling (MLM)."""
    features: float = 1.0
    """Regression of the features of masked regions (MRFR)."""
    objects: float = 1.0
    """Object class of masked regions, as the detector says (MRC)."""
    attributes: float = 1.0
    """Attribute of masked regions, as the detector says (MRC of attributes)."""
    matching: float = 1.0
    """Image-text matching (ITM) on captions."""
    answers: float = 1.0
    """Visual question answering (VQA) on matched questions, soft cross-entropy."""
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
    joint_mask_iou: float = formerly("overlap", 0.5)
    """Regions whose IoU with a masked one exceeds this are masked too; 1.0 switches it off."""
    negative_rate: float = formerly("mismatch_rate", 0.5)
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
        require_at_least(self, 0, *OBJECTIVES)
        require_between(self, 0, 1, "token_rate", "region_rate", "joint_mask_iou", "negative_rate")
        require_between(self, 0, 1, "region_zeroed", "region_random")
        if self.region_zeroed + self.region_random > 1:
            raise ValueError(
                "region_zeroed and region_random must be at most 1 together, got "
                f"{self.region_zeroed} and {self.region_random}"
            )
        if not any(self.weights().values()):
            raise ValueError("at least one objective must have a weight above 0")

    def weights(self) -> dict[str, float]:
        """Return the weight of each objective by name."""
        return {name: getattr(self, name) for name in OBJECTIVES}


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneDataConfig(TextAndRegionConfig):
    """How examples of a task are read."""

    cache_images: int = 0
    """Keep the regions of this many images in memory, the first that are read."""
    sampling: Sampling = "all"
    """Every example once an epoch (`all`), or every class equally often (`balanced`): the examples
    of rare classes then come again within the steps of an epoch. The class is the best answer."""

    def __post_init__(self) -> None:
        TextAndRegionConfig.__post_init__(self)
        require_at_least(self, 0, "cache_images")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalConfig:
    """The wrong pairs that the matching head of retrieval is fine-tuned on; other tasks have none.

    A text that any caption of the image says is never taken for a wrong one.
    """

    negative_rate: float = formerly("mismatch_rate", 0.5)
    """Chance of a pair to be made a mismatch."""
    negatives: TaskNegatives = "random"
    """Where a negative comes from: any example (`random`), the same batch (`batch`), or the
    highest-scoring of `pool` candidates of the batch (`hard`)."""
    replaced: Replaced = "text"
    """Side of the pair that is replaced: its `text`; its `image`, which several processes read more
    than once a step; or `either`, equally often."""
    pool: int = 8
    """Candidates that `hard` takes the highest-scoring of; each costs one more forward pass."""

    def __post_init__(self) -> None:
        require_between(self, 0, 1, "negative_rate")
        require_at_least(self, 1, "pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Everything `semvlp pretrain` reads from a file or from `--set`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        require_at_least(self, 1, "train.steps", "train.save_every")
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
