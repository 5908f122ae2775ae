"""What a model that starts from nothing is made of."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from semvlp.errors import ConfigError
from semvlp.model.config import SemVLPConfig
from semvlp.model.embeddings import FEATURE_MEAN
from semvlp.model.published.load import load_published
from semvlp.model.semvlp import SemVLPModel
from semvlp.model.tokenizer import load_tokenizer, train_wordpiece
from semvlp.shards.dataset.manifest import Manifest
from semvlp.shards.stores.store import Store
from semvlp.train.model_config import ModelConfig

CHOICES = ("cross_attention", "cross_start", "box_size", "region_embedding", "image_token")
"""Settings that have the same name in the network's configuration."""
MEASURED_IMAGES = 2000
"""Images by which region features are standardised: seconds, and enough."""


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
    layers = {"num_hidden_layers": config.num_layers, "cross_layers": config.cross_layers}
    sizes: dict[str, Any] = {name: count for name, count in layers.items() if count is not None}
    choices = {name: getattr(config, name) for name in CHOICES}
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
            **choices,
        )
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error


def fill(model: SemVLPModel, config: ModelConfig, features: Iterable[NDArray[np.float16]]) -> None:
    """Take over the weights that `model.bert` names, and the scale of some `features` [R, F].

    A network that has seen features goes on with the scale that it knows.

    Raises:
        ConfigError: the weights cannot be had.
        WeightsError: they do not fit.
    """
    loaded = () if config.bert is None else load_published(model, config.bert).loaded
    if config.standardise and FEATURE_MEAN not in loaded:
        standardise(model, features)


def standardise(model: SemVLPModel, features: Iterable[NDArray[np.float16]]) -> None:
    """Fit the region embeddings to the features [R, F] of some images."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for found in features:
        rows = torch.tensor(found, dtype=torch.float64)  # [R, F]
        count += len(rows)
        total = total + rows.sum(0)  # [F]
        squares = squares + rows.square().sum(0)  # [F]
    mean = total / max(count, 1)
    variance = (squares / max(count, 1) - mean.square()).clamp(min=0)
    model.region_embeddings.standardise(mean, variance.sqrt())


def some_features(stores: Sequence[Store]) -> Iterator[NDArray[np.float16]]:
    """Features [R, F] of about MEASURED_IMAGES images, evenly spread over the stores."""
    stride = math.ceil(sum(map(len, stores)) / MEASURED_IMAGES)
    for store in stores:
        for index in range(0, len(store), stride):
            yield store.sample(index).regions.features


def dropout(config: ModelConfig) -> dict[str, float]:
    """Both dropouts of `model` in the fields of the network's configuration."""
    own = config.attention_dropout
    return {
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout if own is None else own,
    }
