"""Both backends give the same from the same weights, for the network of every published family.

On the ten photographs of the golden rows, at a small size so that it runs on a CPU.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from semvlp.extract.detector import KNOWN, Proposals, load_detector
from semvlp.extract.families import DETECTRON2, FAMILIES, Family, from_ours
from semvlp.extract.faster_rcnn import FasterRCNN
from semvlp.extract.images import find_images, load
from semvlp.extract.networks import NETWORKS

pytest.importorskip("detectron2", reason="detectron2 is not installed; it is built from source")

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    # detectron2 and its dependencies use what newer Python and torch versions deprecate.
    pytest.mark.filterwarnings("ignore"),
]

OBJECTS, ATTRIBUTES, PROPOSALS = 30, 7, 12
SETTINGS = ["shorter_side=96", "longer_side=160", f"num_proposals={PROPOSALS}"]
# Two implementations add in another order. Absolute, per tensor: boxes in pixels of the original
# image, probabilities, and features relative to their largest.
TOLERANCE = {
    "proposals": 2e-2,
    "boxes": 5e-2,
    "object_scores": 1e-4,
    "attribute_scores": 1e-4,
    "features": 1e-4,
}


def family_for(network: str) -> Family:
    return next(family for family in FAMILIES if network in family.networks)


@pytest.fixture
def photographs(real_data: Path) -> list[NDArray[np.uint8]]:
    found = find_images(real_data / "butd_golden" / "images")
    assert len(found) == 10
    return [load(file) for file in found]


def write_weights(folder: Path, network: str) -> Path:
    """A file of the family with random weights that spread boxes and scores as trained ones do."""
    config = replace(NETWORKS[network], num_proposals=PROPOSALS)
    torch.manual_seed(0)
    family = family_for(network)
    # detectron2's model zoo has none.
    attributes = 0 if family is DETECTRON2 else ATTRIBUTES
    made = FasterRCNN(config, num_objects=OBJECTS, num_attributes=attributes)
    with torch.no_grad():
        made.rpn.head.bbox_pred.weight.mul_(10)
        made.predictor.objects.weight.mul_(20)
        made.predictor.boxes.weight.mul_(100)
    torch.save({"model": from_ours(made.state_dict(), family)}, folder / "weights.pth")
    return folder / "weights.pth"


def differences(one: Proposals, other: Proposals) -> dict[str, float]:
    """Largest absolute difference of each tensor; features are divided by their largest."""
    found = {}
    for name in TOLERANCE:
        a, b = getattr(one, name), getattr(other, name)
        assert a.shape == b.shape, name
        scale = max(float(np.abs(a).max()), 1e-9) if name == "features" else 1.0
        found[name] = float(np.abs(a - b).max()) / scale if a.size else 0.0
    return found


@pytest.mark.parametrize(
    "name", [name for name, spec in KNOWN.items() if spec.published or name == "untrained"]
)
def test_same_proposals_boxes_scores_and_features(
    tmp_path: Path, photographs: list[NDArray[np.uint8]], name: str
) -> None:
    published = KNOWN[name].published
    weights = str(write_weights(tmp_path, KNOWN[name].network)) if published else None
    results = {}
    for backend in ("torchvision", "detectron2"):
        detector = load_detector(
            name,
            weights=weights,
            backend=backend,  # type: ignore[arg-type]
            device="cpu",
            settings=SETTINGS,
        )
        assert detector.profile["backend"] == backend
        results[backend] = detector(photographs)
    worst = dict.fromkeys(TOLERANCE, 0.0)
    for ours, theirs in zip(results["torchvision"], results["detectron2"], strict=True):
        assert 0 < len(ours.proposals) <= PROPOSALS
        for tensor, value in differences(ours, theirs).items():
            worst[tensor] = max(worst[tensor], value)
    print(name, {tensor: f"{value:.1e}" for tensor, value in worst.items()})
    assert all(worst[tensor] <= limit for tensor, limit in TOLERANCE.items()), worst
