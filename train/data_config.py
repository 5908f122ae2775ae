"""Settings of what is read."""

from dataclasses import dataclass
from typing import Literal

from semvlp.train.bounds import at_least, between

TaskNegatives = Literal["random", "batch", "hard"]
Replaced = Literal["text", "image", "either"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextAndRegionConfig:
    """How much of a text and of an image is read; shared by pre-training and fine-tuning."""

    max_text_length: int = 60
    """Longest text in word pieces, [CLS] and [SEP] included."""
    max_regions: int = 100
    """Only the most confident regions of an image are used, this many."""

    def __post_init__(self) -> None:
        at_least("max_text_length", self.max_text_length, 3)
        at_least("max_regions", self.max_regions, 1)


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
    workers: int = 0
    """Processes that make batches of what was read, for a GPU that one thread cannot keep busy; 0
    makes them in a thread of the trainer. Changes no number."""

    def __post_init__(self) -> None:
        TextAndRegionConfig.__post_init__(self)
        at_least("texts_per_image", self.texts_per_image, 1)
        at_least("block_shards", self.block_shards, 1)
        at_least("max_answers", self.max_answers, 1)
        at_least("workers", self.workers, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneDataConfig(TextAndRegionConfig):
    """How examples of a task are read."""

    cache_images: int = 0
    """Keep the regions of this many images in memory, the first that are read."""

    def __post_init__(self) -> None:
        TextAndRegionConfig.__post_init__(self)
        at_least("cache_images", self.cache_images, 0)


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
        between("mismatch_rate", self.mismatch_rate, 0, 1)
        at_least("pool", self.pool, 1)
