"""Both backends give the same from the same weights, for the network of every published family.

On the ten photographs of the golden rows, at a small size so that it runs on a CPU. A file is read
by one table for both backends; where detectron2 has the network itself, its own model loads the
file too, under its own names and without a table of ours.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from semvlp.extract.detectors.batched import Execution
from semvlp.extract.detectors.detector import Detector, Proposals
from semvlp.extract.detectors.known import KNOWN
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN
from semvlp.extract.detectors.on_torchvision.fpn import ResNetFPN, levels_of
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.images.find import find_images, load
from semvlp.extract.networks import NETWORKS
from semvlp.extract.weights.families import (
    BUTD,
    CAFFE,
    DETECTRON2,
    DETECTRON2_FPN,
    FAMILIES,
    MILVLG,
    VINVL,
    Family,
    from_ours,
)

pytest.importorskip("detectron2", reason="detectron2 is not installed; it is built from source")

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    # detectron2 and its dependencies use what newer Python and torch versions deprecate.
    pytest.mark.filterwarnings("ignore"),
]

PROPOSALS = 36


class Size(NamedTuple):
    """How large images are, and how many candidates a feature map has; in the words of both."""

    shorter: int
    longer: int
    candidates: int

    def ours(self) -> list[str]:
        return [
            f"shorter_side={self.shorter}",
            f"longer_side={self.longer}",
            f"num_candidates={self.candidates}",
            f"num_proposals={PROPOSALS}",
        ]

    def detectron2s(self) -> list[str]:
        return [
            f"INPUT.MIN_SIZE_TEST={self.shorter}",
            f"INPUT.MAX_SIZE_TEST={self.longer}",
            f"MODEL.RPN.PRE_NMS_TOPK_TEST={self.candidates}",
            f"MODEL.RPN.POST_NMS_TOPK_TEST={PROPOSALS}",
        ]


SMALL = Size(96, 160, 6000)
# Regions for every map of a pyramid, where random weights would find all on one: 5 times 7 are few
# enough to be kept.
LARGE = Size(448, 672, 7)
# Object classes and attributes of each family's files.
LABELS = {
    DETECTRON2: (80, 0),
    DETECTRON2_FPN: (80, 0),
    BUTD: (1600, 400),
    CAFFE: (1600, 400),
    MILVLG: (1600, 400),
    VINVL: (1594, 524),
}
# Names in detectron2's model zoo.
ZOO = {
    "coco-r50-c4": "faster_rcnn_R_50_C4_3x",
    "coco-r101-c4": "faster_rcnn_R_101_C4_3x",
    "coco-r50-fpn": "faster_rcnn_R_50_FPN_3x",
    "coco-r101-fpn": "faster_rcnn_R_101_FPN_3x",
    "coco-x101-fpn": "faster_rcnn_X_101_32x8d_FPN_3x",
}
# Two implementations may add in another order. Absolute, per tensor: boxes in pixels of the image
# as it was given, probabilities, and features relative to their largest.
TOLERANCE = {
    "proposals": 5e-3,
    "boxes": 5e-3,
    "object_scores": 5e-6,
    "attribute_scores": 5e-6,
    "features": 1e-5,
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
    torch.manual_seed(0)
    family = family_for(network)
    objects, attributes = LABELS[family]
    made = FasterRCNN(NETWORKS[network], num_objects=objects, num_attributes=attributes)
    for module in made.modules():
        if isinstance(module, FrozenBatchNorm2d):
            enliven(module)
    with torch.no_grad():
        made.rpn.head.bbox_pred.weight.mul_(10)
        made.predictor.objects.weight.mul_(20)
        made.predictor.boxes.weight.mul_(100)
    torch.save({"model": from_ours(made.state_dict(), family)}, folder / "weights.pth")
    return folder / "weights.pth"


def enliven(norm: nn.Module) -> None:
    """Give every channel a factor and an offset of its own, of the size they have."""
    norm.running_mean.normal_(std=0.1)
    norm.running_var.uniform_(0.5, 2)
    norm.weight.mul_(torch.empty_like(norm.weight).uniform_(0.5, 1.5))
    norm.bias.normal_(std=0.1)


def zoos_own(name: str, weights: Path, size: Size) -> Detector:
    """The model of a name in detectron2's model zoo, with the tensors as detectron2 names them."""
    from semvlp.extract.detectors.on_detectron2.backend import Detectron2Detector, build_network
    from semvlp.extract.detectors.on_detectron2.cfg import read_config, set_keys

    cfg = read_config(f"COCO-Detection/{ZOO[name]}.yaml")
    set_keys(cfg, size.detectron2s())
    model = build_network(cfg, Execution(), name)
    model.load_state_dict(torch.load(weights, weights_only=True)["model"], strict=True)
    return Detectron2Detector(model, cfg, Execution())


def maps_of(found: Proposals, size: Size) -> Tensor:
    """[P] the map of a pyramid that each region was pooled from."""
    factor = size.shorter / min(found.width, found.height)
    return levels_of(torch.from_numpy(found.proposals) * factor, ResNetFPN.strides[:4])


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
    "name",
    [
        name
        for name, spec in KNOWN.items()
        if (spec.published or name == "untrained") and spec.network in NETWORKS
    ],
)
def test_same_proposals_boxes_scores_and_features(
    tmp_path: Path, photographs: list[NDArray[np.uint8]], name: str
) -> None:
    published, size = KNOWN[name].published, LARGE if name.endswith("fpn") else SMALL
    weights = write_weights(tmp_path, KNOWN[name].network) if published else None
    ours, theirs = (
        load_detector(
            name,
            weights=str(weights) if weights else None,
            backend=backend,
            device="cpu",
            settings=size.ours(),
        )
        for backend in ("torchvision", "detectron2")
    )
    assert (ours.profile["backend"], theirs.profile["backend"]) == ("torchvision", "detectron2")
    others = [theirs, zoos_own(name, weights, size)] if weights and name in ZOO else [theirs]
    found = ours(photographs)
    assert all(0 < len(each.proposals) <= PROPOSALS for each in found)
    if size is LARGE:
        assert set(torch.cat([maps_of(each, size) for each in found]).tolist()) == {0, 1, 2, 3}
    worst = dict.fromkeys(TOLERANCE, 0.0)
    for other in others:
        for one, two in zip(found, other(photographs), strict=True):
            for tensor, value in differences(one, two).items():
                worst[tensor] = max(worst[tensor], value)
    print(name, {tensor: f"{value:.1e}" for tensor, value in worst.items()})
    assert all(worst[tensor] <= limit for tensor, limit in TOLERANCE.items()), worst
