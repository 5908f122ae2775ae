"""What learns: a network of either backend behind the few calls that the training loop makes.

B images of one shape, H x W a resized image.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from semvlp.distributed import device_of
from semvlp.doctor import without_detectron2
from semvlp.errors import ConfigError
from semvlp.extract.detectors.batched import Execution
from semvlp.extract.detectors.detector import Backend, Runner
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN, Target
from semvlp.extract.images.resize import ResizeRule
from semvlp.extract.weights.checkpoint import Description, save_detector
from semvlp.train.detector.coco import Annotations
from semvlp.train.detector.config import DetectorTrainConfig
from semvlp.train.detector.initial_network import starting_network


class Learner(Protocol):
    """A network in training."""

    resize: ResizeRule
    """How its images are resized, as they will be when it finds."""

    @property
    def network(self) -> nn.Module:
        """What has the parameters."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What must not change between the parts of one run beside the training's settings."""

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The losses of Faster R-CNN with attributes on RGB images [B, 3, H, W] of 0..255."""

    def save(self, out: Path) -> None:
        """Write the detector that was learned into the directory `out`."""


def runner_of(config: DetectorTrainConfig, backend: Backend) -> Runner:
    """Which backend trains the network of `config`.

    Raises:
        ConfigError: `backend` does not have it.
    """
    is_config = config.architecture is None
    if backend == "torchvision" and is_config:
        raise ConfigError(f"{config.network} is a detectron2 config; --backend auto trains it")
    if backend == "detectron2" and config.architecture == "small":
        raise ConfigError(
            "the small network is no network of detectron2; leave --backend out, or name another "
            "with --set network=NAME (`semvlp detector list`, or a detectron2 .yaml config)"
        )
    return "detectron2" if is_config or backend == "detectron2" else "torchvision"


def open_learner(config: DetectorTrainConfig, data: Annotations, runner: Runner) -> Learner:
    """The network of `config` for the labels of `data`, with the weights it starts from.

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


class TorchvisionLearner:
    """A `FasterRCNN` in training; see `Learner`."""

    def __init__(self, network: FasterRCNN, data: Annotations) -> None:
        self.network, self._data = network.train(), data
        self.resize = ResizeRule.of(network.config)
        self.identity = {"backend": "torchvision"}

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Five losses by name; see `FasterRCNN.losses`."""
        device = self.network.mean.device
        moved = [Target(*(part.to(device) for part in target)) for target in targets]
        return self.network.losses(images.to(device), moved)

    def save(self, out: Path) -> None:
        """A detector that both backends open."""
        description = Description(
            network=self.network.config,
            object_labels=self._data.object_labels,
            attribute_labels=self._data.attribute_labels,
        )
        save_detector(out, self.network.state_dict(), description)
