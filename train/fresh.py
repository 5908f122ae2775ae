"""What a model that starts from nothing is made of."""

from collections.abc import Iterable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from semvlp.errors import ConfigError
from semvlp.model.config import SemVLPConfig
from semvlp.model.tokenizer import load_tokenizer, train_wordpiece
from semvlp.shards.manifest import Manifest
from semvlp.train.config import ModelConfig


def make_tokenizer(config: ModelConfig, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """The tokenizer that `model.tokenizer` names; `train` makes one from `texts`."""
    if config.tokenizer == "train":
        return train_wordpiece(texts, config.vocab_size)
    return load_tokenizer(config.tokenizer)


def fresh_config(
    config: ModelConfig,
    manifest: Manifest,
    tokenizer: PreTrainedTokenizerFast,
    *,
    answers: Sequence[str] = (),
) -> SemVLPConfig:
    """The network's configuration: its preset, and sizes from data and vocabulary.

    Raises:
        ConfigError: sizes that do not fit together.
    """
    sizes: dict[str, Any] = (
        {} if config.cross_layers is None else {"cross_layers": config.cross_layers}
    )
    try:
        return SemVLPConfig.preset(
            config.preset,
            vocab_size=len(tokenizer),
            region_feature_size=manifest.feature_size,
            num_objects=len(manifest.object_labels),
            num_attributes=len(manifest.attribute_labels),
            answers=list(answers),
            **dropout(config),
            **sizes,
        )
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error


def dropout(config: ModelConfig) -> dict[str, float]:
    """`model.dropout` in the fields of the network's configuration."""
    return {
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
    }
