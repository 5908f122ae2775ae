"""Learners: a network of either backend behind the few calls that the training loop makes.

B images of one shape, H x W a resized image.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from semvlp.distributed import device_of
from semvlp.doctor import without_detectron2
from semvlp.errors import ConfigError
from semvlp.extract.detectors.batched import Execution
from semvlp.extract.detectors.detector import Runner
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN, Target
from semvlp.extract.detectors.published import read_published
from semvlp.extract.images.resize import ResizeRule
from semvlp.extract.networks import NETWORKS
from semvlp.extract.weights.checkpoint import Description, load_body, save_detector
from semvlp.extract.weights.download import fetch
from semvlp.names import Backend
from semvlp.settings import override
from semvlp.train.detector.coco import Annotations
from semvlp.train.detector.config import DetectorTrainConfig


class Learner(Protocol):
    """A network in training."""

    resize: ResizeRule
    """The resizing of its images, in training as in detection."""

    @property
    def network(self) -> nn.Module:
        """Return the module that has the parameters."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Return what must not change between the parts of a run beside its settings, by name."""

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the losses of Faster R-CNN with attributes on RGB images [B, 3, H, W], 0..255."""

    def save(self, out: Path) -> None:
        """Write the detector that was learned into the directory `out`."""


def runner_of(config: DetectorTrainConfig, backend: Backend) -> Runner:
    """Return the backend that trains the network of `config`.

    Raises:
        ConfigError: `backend` does not have it.
    """
    is_config = config.architecture is None
    if backend == "transformers":
        raise ConfigError(
            "detectors of transformers find, but are not trained here; leave --backend out"
        )
    if backend == "torchvision" and is_config:
        raise ConfigError(f"{config.network} is a detectron2 config; --backend auto trains it")
    if backend == "detectron2" and config.architecture == "small":
        raise ConfigError(
            "the small network is no network of detectron2; leave --backend out, or name another "
            "with --set network=NAME (`semvlp detector list`, or a detectron2 .yaml config)"
        )
    return "detectron2" if is_config or backend == "detectron2" else "torchvision"


def open_learner(config: DetectorTrainConfig, data: Annotations, runner: Runner) -> Learner:
    """Return the network of `config` for the labels of `data`, with the weights it starts from.

    Raises:
        ConfigError: a setting that cannot be, or detectron2 is not installed.
        InputError: weights that cannot be had or do not fit.
    """
    if runner == "torchvision":
        return TorchvisionLearner(starting_network(config, data), data)
    try:
        from semvlp.extract.detectors.on_detectron2 import learner as on_detectron2
    except (ImportError, OSError) as error:
        raise without_detectron2(error, f"training {config.network}") from error
    labels = data.object_labels, data.attribute_labels
    if config.architecture is not None:
        return on_detectron2.learner_of_network(
            starting_network(config, data), labels, config.network
        )
    return on_detectron2.learner_of_config(
        config.network,
        labels,
        Execution(str(device_of(config.device))),
        settings=config.settings,
        start=config.start,
        seed=config.seed,
    )


def starting_network(config: DetectorTrainConfig, data: Annotations) -> FasterRCNN:
    """Return a network of `NETWORKS` with random weights, those of `config.start` over them."""
    name = config.architecture or config.network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = FasterRCNN(
            override(NETWORKS[name], config.settings),
            num_objects=len(data.object_labels),
            num_attributes=len(data.attribute_labels),
        )
    if config.start is not None:
        path = fetch(config.start)
        load_body(network, read_published(path, name), ("predictor.",), str(path))
    return network.to(device_of(config.device))


class TorchvisionLearner:
    """A `FasterRCNN` in training; see `Learner`."""

    def __init__(self, network: FasterRCNN, data: Annotations) -> None:
        self.network, self._data = network.train(), data
        self.resize = ResizeRule.of(network.config)
        self.identity = {"backend": "torchvision"}

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return five losses by name; see `FasterRCNN.losses`."""
        device = self.network.mean.device
        moved = [Target(*(part.to(device) for part in target)) for target in targets]
        return self.network.losses(images.to(device), moved)

    def save(self, out: Path) -> None:
        """Write a detector that both backends open into the directory `out`."""
        description = Description(
            network=self.network.config,
            object_labels=self._data.object_labels,
            attribute_labels=self._data.attribute_labels,
        )
        save_detector(out, self.network.state_dict(), description)
