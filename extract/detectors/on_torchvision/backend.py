"""The detector that runs wherever torchvision does: networks of `faster_rcnn`, opened and run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from semvlp.errors import ConfigError
from semvlp.extract.detectors.batched import (
    BatchedDetector,
    Execution,
    GivenRegions,
    RawDetections,
)
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN
from semvlp.extract.detectors.published import (
    attribute_labels,
    count_labels,
    object_labels,
    read_published,
)
from semvlp.extract.images.resize import Pixels, ResizeRule
from semvlp.extract.networks import NetworkConfig
from semvlp.extract.weights.checkpoint import load_strict, read_detector, state_sha256
from semvlp.settings import override

UNTRAINED = (100, 20)
"""Object classes and attributes of a network that was not trained."""


class TorchvisionDetector(BatchedDetector):
    """A `FasterRCNN`, taken over, that no longer learns; see `Detector`."""

    def __init__(
        self,
        network: FasterRCNN,
        object_labels: Sequence[str],
        attribute_labels: Sequence[str],
        execution: Execution,
        *,
        images_per_pass: int | None = None,
    ) -> None:
        rule = ResizeRule.of(network.config)
        super().__init__(rule, images_per_pass or execution.images_per_pass)
        self.object_labels, self.attribute_labels = tuple(object_labels), tuple(attribute_labels)
        self.feature_size = network.config.feature_size
        self.profile: dict[str, Any] = {
            "backend": "torchvision",
            "network": network.config.stored(),
            "weights_sha256": state_sha256(network.state_dict()),
            "precision": execution.precision,
        }
        network.trunk.fuse_for_inference()
        network.to(memory_format=network.trunk.memory_format)
        self._network, self._execution = network.to(execution.device).eval(), execution

    @torch.inference_mode()
    def _forward(
        self, pixels: Pixels, scales: list[float], given: Sequence[GivenRegions | None]
    ) -> list[RawDetections]:
        batch = torch.from_numpy(pixels).to(self._execution.device).permute(0, 3, 1, 2)
        return self._network.detect(batch, scales, self._execution, given)


def open_trained(
    path: Path, execution: Execution, settings: Sequence[str] = ()
) -> TorchvisionDetector:
    """Open the detector of our own whose JSON file is `path`; `settings` change its config."""
    description, state = read_detector(path)
    if description.network is None:
        raise ConfigError(f"{path} describes a detectron2 config; --backend auto runs it")
    objects, attributes = description.object_labels, description.attribute_labels
    network = _network(override(description.network, settings), objects, attributes)
    load_strict(network, state, str(path.with_suffix(".safetensors")))
    return TorchvisionDetector(network, objects, attributes, execution)


def open_published(
    name: str, config: NetworkConfig, weights: Path, execution: Execution
) -> TorchvisionDetector:
    """Open the network `name` of `NETWORKS` with published weights, or some of our own.

    `config` is the network's, some settings of which may have been changed.
    """
    state = read_published(weights, name)
    num_objects, num_attributes = count_labels(state, str(weights))
    objects, attributes = object_labels(num_objects), attribute_labels(num_attributes)
    network = _network(config, objects, attributes)
    load_strict(network, state, str(weights))
    return TorchvisionDetector(network, objects, attributes, execution)


def open_untrained(config: NetworkConfig, execution: Execution) -> TorchvisionDetector:
    """Open a network with random weights, the same every time."""
    network = untrained(config)
    objects, attributes = object_labels(UNTRAINED[0]), attribute_labels(UNTRAINED[1])
    return TorchvisionDetector(network, objects, attributes, execution)


def untrained(config: NetworkConfig) -> FasterRCNN:
    """Return a network with random weights, always the same, for as many labels as `UNTRAINED`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FasterRCNN(config, num_objects=UNTRAINED[0], num_attributes=UNTRAINED[1])


def _network(
    config: NetworkConfig, objects: Sequence[str], attributes: Sequence[str]
) -> FasterRCNN:
    return FasterRCNN(config, num_objects=len(objects), num_attributes=len(attributes))
