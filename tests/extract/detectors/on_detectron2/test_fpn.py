"""Feature pyramids with an attribute head in detectron2: they find and learn what ours do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.networks import NETWORKS
from semvlp.extract.weights.families import from_ours, in_detectron2
from semvlp.train.detector.config import DetectorTrainConfig
from semvlp.train.detector.train import train_detector

pytest.importorskip("detectron2", reason="detectron2 is not installed; it is built from source")

from tests.extract.detectors.on_detectron2.test_backend import images, write_config
from tests.train.detector.test_detectron2_learner import SHORT, check_same_losses

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.usefixtures("one_thread"),
    # detectron2 and its dependencies use what newer Python and torch versions deprecate.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DetectorTrainConfig:
    """A short training of a pyramid from weights as the model zoo has them."""
    torch.manual_seed(0)
    network = replace(NETWORKS["resnet50_fpn"], pool_size=5)
    state = FasterRCNN(network, num_objects=80, num_attributes=0).state_dict()
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save({"model": from_ours(state, in_detectron2(network))}, path)
    return replace(SHORT, network="coco-r50-fpn", init=str(path))


def test_region_heads_with_attributes_are_named_in_any_config(tmp_path: Path) -> None:
    yaml = write_config(tmp_path, base="FPN", heads="AttributeStandardROIHeads")
    (found,) = load_detector(yaml, device="cpu")(images((90, 140)))
    assert found.features.shape == (len(found.proposals), 1024)
    assert found.attribute_scores.shape == (len(found.proposals), 7)
    assert found.attribute_scores.any()


def test_both_backends_have_the_same_losses_from_the_same_weights(
    config: DetectorTrainConfig, drawn: Path
) -> None:
    check_same_losses(config, drawn)


def test_what_detectron2_trained_opens_in_both_backends(
    config: DetectorTrainConfig, drawn: Path, tmp_path: Path
) -> None:
    train_detector(drawn / "boxes.json", drawn, tmp_path, config, backend="detectron2")
    image = [np.full((48, 64, 3), 200, np.uint8)]
    ours, theirs = (
        load_detector(str(tmp_path), backend=backend, device="cpu")(image)[0]
        for backend in ("torchvision", "detectron2")
    )
    np.testing.assert_allclose(ours.proposals, theirs.proposals, atol=1e-2)
    np.testing.assert_allclose(ours.object_scores, theirs.object_scores, atol=1e-4)
    np.testing.assert_allclose(ours.attribute_scores, theirs.attribute_scores, atol=1e-4)
