"""The network from which the training of a detector starts."""

import torch

from semvlp.distributed import device_of
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN
from semvlp.extract.detectors.published import read_published
from semvlp.extract.networks import NETWORKS
from semvlp.extract.weights.checkpoint import load_body
from semvlp.extract.weights.download import fetch
from semvlp.settings import override
from semvlp.train.detector.coco import Annotations
from semvlp.train.detector.config import DetectorTrainConfig


def starting_network(config: DetectorTrainConfig, data: Annotations) -> FasterRCNN:
    """A network of `NETWORKS` with random weights, those of `config.start` over them."""
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
