"""Settings of pre-training and fine-tuning: their tables, and what must hold between them."""

from dataclasses import dataclass, field

from semvlp.train.bounds import at_least
from semvlp.train.data_config import DataConfig, FinetuneDataConfig, RetrievalConfig
from semvlp.train.model_config import ModelConfig
from semvlp.train.objectives_config import ObjectivesConfig
from semvlp.train.train_config import FinetuneTrainConfig, TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Everything `semvlp pretrain` reads from a file or from `--set`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        at_least("train.steps", self.train.steps, 1)
        at_least("train.save_every", self.train.save_every, 1)
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
