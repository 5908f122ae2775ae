"""What a training starts from: a model pre-trained here, published elsewhere, or fresh."""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from semvlp.errors import ConfigError, InputError
from semvlp.eval.lookup import IN_TRAINING, RegionLookup
from semvlp.eval.network import PROBLEM, check_regions
from semvlp.eval.task import Example, Task
from semvlp.model.config import SemVLPConfig
from semvlp.model.hub import checkpoint_folder
from semvlp.model.layers.embeddings import FEATURE_MEAN
from semvlp.model.network import SemVLPNetwork
from semvlp.model.published.load import FAMILIES, load_published, model_type
from semvlp.model.semvlp import SemVLPForTask
from semvlp.model.tokenizer import load_tokenizer, train_wordpiece
from semvlp.shards.dataset.hashes import plain
from semvlp.shards.dataset.manifest import Manifest
from semvlp.shards.stores.store import Store
from semvlp.train.config import FinetuneConfig, ModelConfig

CHOICES = (
    "cross_attention",
    "cross_start",
    "box_size",
    "box_encoding",
    "region_embedding",
    "image_token",
)
"""Settings that have the same name in the network's configuration."""
MEASURED_IMAGES = 2000
"""Images by which region features are standardised: seconds, and enough."""


def make_tokenizer(config: ModelConfig, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Load or train the tokenizer that `model.tokenizer` names; `train` takes `texts`."""
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
    """Make the network's configuration: its preset, and sizes from data and vocabulary.

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
            region_profile=plain(manifest.extractor),
            **dropout(config),
            **sizes,
            **choices,
        )
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error


def load_pretrained(
    model: SemVLPNetwork,
    config: ModelConfig,
    store: Store,
    features: Iterable[NDArray[np.float16]],
    *,
    allow_other_regions: bool = False,
) -> None:
    """Take over the weights that `model.pretrained` names, and the scale of some `features` [R, F].

    A network that has seen features goes on with the scale that it knows.

    Raises:
        ConfigError: the weights cannot be had.
        InputError: they are ours, and were trained on other regions than those of `store`.
        WeightsError: they do not fit.
    """
    loaded: tuple[str, ...] = ()
    if config.pretrained is not None:
        loaded = load_published(model, config.pretrained).loaded
        if model_type(config.pretrained) == SemVLPConfig.model_type:
            other = SemVLPConfig.from_pretrained(config.pretrained)
            check_regions(other, config.pretrained, store, allow_other=allow_other_regions)
    if config.standardise and FEATURE_MEAN not in loaded:
        standardise(model, features)


def standardise(model: SemVLPNetwork, features: Iterable[NDArray[np.float16]]) -> None:
    """Fit the region embeddings to the features [R, F] of some images."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for of_image in features:
        rows = torch.tensor(of_image, dtype=torch.float64)  # [R, F]
        count += len(rows)
        total = total + rows.sum(0)  # [F]
        squares = squares + rows.square().sum(0)  # [F]
    mean = total / max(count, 1)
    variance = (squares / max(count, 1) - mean.square()).clamp(min=0)
    model.region_embeddings.standardise(mean, variance.sqrt())


def some_features(stores: Sequence[Store]) -> Iterator[NDArray[np.float16]]:
    """Read features [R, F] of about MEASURED_IMAGES whole images, spread over the stores."""
    stride = math.ceil(sum(map(len, stores)) / MEASURED_IMAGES)
    for store in stores:
        for index in range(0, len(store), stride):
            # What is damaged is told when training meets it.
            with suppress(InputError):
                yield store.sample(index).regions.features


def dropout(config: ModelConfig) -> dict[str, float]:
    """Return both dropouts of `model` in the fields of the network's configuration."""
    own = config.attention_dropout
    return {
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout if own is None else own,
    }


log = logging.getLogger(__name__)


def task_model(
    task: Task,
    examples: Sequence[Example],
    store: Store,
    init: Path | str | None,
    config: FinetuneConfig,
    *,
    allow_other_regions: bool = False,
) -> tuple[SemVLPForTask, PreTrainedTokenizerFast]:
    """Make a model for the task: encoder and head from the checkpoint `init`, or fresh.

    Raises:
        ConfigError: `init` is neither a SemVLP pre-training checkpoint nor of a published family.
        InputError: it cannot be had, is damaged, or was trained on other regions, unless these are
            allowed.
    """
    torch.manual_seed(config.train.seed)
    folder = None if init is None else checkpoint_folder(init, called="--init")
    if folder is not None and not _is_published(folder):
        model, tokenizer = _pretrained(task, examples, folder, config)
        check_regions(model.config, folder, store, allow_other=allow_other_regions)
        model.config.region_profile = plain(store.manifest.extractor)
        return model, tokenizer
    if folder is not None:
        name = str(folder)
        config = replace(config, model=replace(config.model, pretrained=name, tokenizer=name))
    return _fresh(task, examples, store, config, allow_other_regions)


def init_name(init: Path | str | None) -> str | None:
    """Name where a run began: by an absolute path, or a name on the Hub."""
    if init is None or not Path(init).exists():
        return None if init is None else str(init)
    return str(Path(init).absolute())


def _is_published(folder: Path) -> bool:
    """Tell whether a checkpoint is of a published family; refuse what is neither that nor ours."""
    if not (folder / "config.json").is_file():
        return False  # says more when it is opened
    try:
        kind = model_type(str(folder))
    except OSError as error:
        path = folder / "config.json"
        raise InputError(f"{path}: is no model's configuration: {error}") from error
    if kind not in ("semvlp", *FAMILIES):
        raise ConfigError(
            f"--init must be a SemVLP pre-training checkpoint or one of {', '.join(FAMILIES)}, but "
            f"{folder} holds a {kind} model"
        )
    return kind in FAMILIES


def _pretrained(
    task: Task, examples: Sequence[Example], folder: Path, config: FinetuneConfig
) -> tuple[SemVLPForTask, PreTrainedTokenizerFast]:
    labels = task.labels(examples)
    model, report = SemVLPForTask.from_pretraining(
        folder,
        head=task.head,
        labels=labels,
        **_described(task, labels, config.model),
        **dropout(config.model),
    )
    known = len(report.labels)
    log.warning("%s; %d of %d labels known from pre-training", report, known, len(labels))
    return model, load_tokenizer(str(folder))


def _fresh(
    task: Task, examples: Sequence[Example], store: Store, config: FinetuneConfig, other: bool
) -> tuple[SemVLPForTask, PreTrainedTokenizerFast]:
    tokenizer = make_tokenizer(config.model, (example.text for example in examples))
    network = fresh_config(config.model, store.manifest, tokenizer)
    labels = task.labels(examples)
    described = _described(task, labels, config.model)
    model = SemVLPForTask(network.for_task(task.head, labels, **described))
    features = _some_features(examples, store, config.data.max_regions)
    load_pretrained(model.semvlp, config.model, store, features, allow_other_regions=other)
    return model, tokenizer


def _described(task: Task, labels: Sequence[str], config: ModelConfig) -> dict[str, str | None]:
    """Return what config.json says of a task's head besides its labels."""
    # transformers has no problem of one label, such as the region head's.
    problem = PROBLEM[task.loss] if len(labels) > 1 else None
    return {"task": task.name, "problem_type": problem, "pair_head": config.pair_head}


def _some_features(
    examples: Sequence[Example], store: Store, max_regions: int
) -> Iterator[NDArray[np.float16]]:
    """Read features [R, F] of the first images of the examples."""
    names = dict.fromkeys(name for example in examples for name in example.images)
    lookup = RegionLookup(store, examples, max_regions=max_regions, otherwise=IN_TRAINING)
    for name in islice(names, MEASURED_IMAGES):
        features, *_ = lookup([name])[0]
        yield features
