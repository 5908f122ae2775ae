"""The detector that runs wherever torchvision does: networks of `faster_rcnn`, opened and run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from semvlp.extract.checkpoints import load_strict, read_detector, read_weights, state_sha256
from semvlp.extract.detector import Proposals
from semvlp.extract.families import to_ours
from semvlp.extract.faster_rcnn import FasterRCNN
from semvlp.extract.networks import NETWORKS, NetworkConfig
from semvlp.extract.passes import Found, Pixels, Place, detect_in_passes
from semvlp.settings import to_tree


class TorchvisionDetector:
    """A `FasterRCNN` ready to run; see `semvlp.extract.detector.Detector`."""

    def __init__(
        self,
        network: FasterRCNN,
        object_labels: Sequence[str],
        attribute_labels: Sequence[str],
        place: Place,
        *,
        images_per_pass: int | None = None,
    ) -> None:
        self.object_labels, self.attribute_labels = tuple(object_labels), tuple(attribute_labels)
        self.feature_size = network.config.feature_size
        self.profile: dict[str, Any] = {
            "backend": "torchvision",
            "network": to_tree(network.config),
            "weights_sha256": state_sha256(network.state_dict()),
            "precision": place.precision,
        }
        self._network, self._place = network.to(place.device).eval(), place
        self._images_per_pass = images_per_pass or place.images_per_pass

    def __call__(self, images: Sequence[Pixels]) -> list[Proposals]:
        """Detect in RGB images [H, W, 3]; only images of equal resized shape share a pass."""
        config = self._network.config
        return detect_in_passes(
            images,
            self._find,
            shorter=config.shorter_side,
            longer=config.longer_side,
            images_per_pass=self._images_per_pass,
        )

    @torch.inference_mode()
    def _find(self, pixels: Pixels) -> list[Found]:
        batch = torch.from_numpy(pixels).to(self._place.device).permute(0, 3, 1, 2)
        return self._network.find(batch, self._place)


def open_trained(path: Path, place: Place) -> TorchvisionDetector:
    """The detector of our own whose JSON file is `path`."""
    description, state = read_detector(path)
    objects, attributes = description.object_labels, description.attribute_labels
    network = _network(description.network, objects, attributes)
    load_strict(network, state, str(path.with_suffix(".safetensors")))
    return TorchvisionDetector(network, objects, attributes, place)


def open_untrained(name: str, place: Place) -> TorchvisionDetector:
    """The network `name` with random weights, the same every time."""
    objects = [f"object {index}" for index in range(80)]
    attributes = [f"attribute {index}" for index in range(20)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _network(NETWORKS[name], objects, attributes)
    return TorchvisionDetector(network, objects, attributes, place)


def open_coco(name: str, weights: Path, place: Place) -> TorchvisionDetector:
    """The network `name` with weights for the 80 classes of COCO, ours or detectron2's."""
    categories = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    objects = [name for name in categories if name not in ("__background__", "N/A")]
    network = _network(NETWORKS[name], objects, [])
    state = to_ours(read_weights(weights), dict(network.named_buffers()), str(weights))
    load_strict(network, state, str(weights))
    return TorchvisionDetector(network, objects, [], place)


def _network(
    config: NetworkConfig, objects: Sequence[str], attributes: Sequence[str]
) -> FasterRCNN:
    return FasterRCNN(config, num_objects=len(objects), num_attributes=len(attributes))
