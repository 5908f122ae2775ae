"""The model that a fine-tuning starts from: pre-trained here, published elsewhere, or fresh."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from numpy.typing import NDArray
from transformers import AutoConfig, PreTrainedTokenizerFast

from semvlp.errors import ConfigError, InputError
from semvlp.eval.lookup import RegionLookup
from semvlp.eval.task import Example, Task
from semvlp.model.published.load import FAMILIES
from semvlp.model.semvlp import SemVLPForTask
from semvlp.model.tokenizer import load_tokenizer
from semvlp.shards.stores.store import Store
from semvlp.train.config import FinetuneConfig
from semvlp.train.fresh import MEASURED_IMAGES, dropout, fill, fresh_config, make_tokenizer

# All that a checkpoint in the Hugging Face layout needs; foreign pickles are not fetched.
FILES = ["*.json", "*.txt", "*.safetensors"]
log = logging.getLogger(__name__)


def task_model(
    task: Task,
    examples: Sequence[Example],
    store: Store,
    init: Path | str | None,
    config: FinetuneConfig,
) -> tuple[SemVLPForTask, PreTrainedTokenizerFast]:
    """A model for the task: encoder and head from the checkpoint `init`, or fresh.

    Raises:
        ConfigError: `init` is neither a SemVLP pre-training checkpoint nor of a published family.
        InputError: it cannot be had, is damaged, or is of other region features.
    """
    torch.manual_seed(config.train.seed)
    folder = None if init is None else checkpoint_folder(init)
    if folder is not None and not _is_published(folder):
        return _pretrained(task, examples, store, folder, config)
    if folder is not None:
        name = str(folder)
        config = replace(config, model=replace(config.model, bert=name, tokenizer=name))
    return _fresh(task, examples, store, config)


def init_name(init: Path | str | None) -> str | None:
    """What a run says of where it began: an absolute path, or a name on the Hub."""
    if init is None or not Path(init).exists():
        return None if init is None else str(init)
    return str(Path(init).absolute())


def checkpoint_folder(init: Path | str) -> Path:
    """The folder of a checkpoint; a name that is no path here is fetched from the Hub.

    Raises:
        InputError: there is no such folder, and the Hub does not give it.
    """
    path = Path(init)
    if path.exists() or isinstance(init, Path) or str(init).count("/") > 1:
        return path
    try:
        return Path(snapshot_download(str(init), allow_patterns=FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"--init must be a checkpoint folder or the name of a model on the Hugging Face Hub, "
            f"but {init} is no folder here, and the Hub says: {error}"
        ) from error


def _is_published(folder: Path) -> bool:
    """Whether a checkpoint is of a published family; what is neither that nor ours is refused."""
    if not (folder / "config.json").is_file():
        return False  # says more when it is opened
    try:
        kind = str(AutoConfig.from_pretrained(folder).model_type)
    except (OSError, ValueError) as error:
        path = folder / "config.json"
        raise InputError(f"{path}: is no model's configuration: {error}") from error
    if kind not in ("semvlp", *FAMILIES):
        raise ConfigError(
            f"--init must be a SemVLP pre-training checkpoint or one of {', '.join(FAMILIES)}, but "
            f"{folder} holds a {kind} model"
        )
    return kind in FAMILIES


def _pretrained(
    task: Task, examples: Sequence[Example], store: Store, folder: Path, config: FinetuneConfig
) -> tuple[SemVLPForTask, PreTrainedTokenizerFast]:
    labels = task.labels(examples)
    model, report = SemVLPForTask.from_pretraining(
        folder,
        head=task.head,
        labels=labels,
        pair_head=config.model.pair_head,
        **dropout(config.model),
    )
    _check_features(model, store, folder)
    known = len(report.labels)
    log.warning("%s; %d of %d labels known from pre-training", report, known, len(labels))
    return model, load_tokenizer(str(folder))


def _fresh(
    task: Task, examples: Sequence[Example], store: Store, config: FinetuneConfig
) -> tuple[SemVLPForTask, PreTrainedTokenizerFast]:
    tokenizer = make_tokenizer(config.model, (example.text for example in examples))
    network = fresh_config(config.model, store.manifest, tokenizer)
    labels, pair_head = task.labels(examples), config.model.pair_head
    model = SemVLPForTask(network.for_task(task.head, labels, pair_head=pair_head))
    features = _some_features(examples, store, config.data.max_regions)
    fill(model.semvlp, config.model, features)
    return model, tokenizer


def _some_features(
    examples: Sequence[Example], store: Store, max_regions: int
) -> Iterator[NDArray[np.float16]]:
    """Features [R, F] of the first images of the examples."""
    names = dict.fromkeys(name for example in examples for name in example.images)
    lookup = RegionLookup(store, examples, max_regions=max_regions)
    for name in islice(names, MEASURED_IMAGES):
        features, *_ = lookup([name])[0]
        yield features


def _check_features(model: SemVLPForTask, store: Store, init: Path) -> None:
    wanted, found = model.config.region_feature_size, store.manifest.feature_size
    if wanted != found:
        raise InputError(
            f"{store.path}: region features must have {wanted} numbers, as those that {init} was "
            f"trained on, but have {found}; extract the images with the same detector"
        )
