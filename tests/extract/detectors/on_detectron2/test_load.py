"""Starting from a backbone alone, as ImageNet files are, in each of the forms they come in."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from semvlp.errors import InputError
from semvlp.extract.detectors.zoo import load_detector
from semvlp.train.detector.coco import read_annotations
from semvlp.train.detector.config import DetectorTrainConfig
from semvlp.train.detector.learner import open_learner

pytest.importorskip("detectron2", reason="detectron2 is not installed; it is built from source")

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.usefixtures("one_thread"),
    # detectron2 and its dependencies use what newer Python and torch versions deprecate.
    pytest.mark.filterwarnings("ignore"),
]

CONFIG = """
_BASE_: {base}
MODEL:
  WEIGHTS: "{weights}"
  MASK_ON: false
  RESNETS: {{DEPTH: 50}}
  RPN: {{POST_NMS_TOPK_TRAIN: 20, POST_NMS_TOPK_TEST: 12}}
INPUT: {{MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 96}}
"""
BACKBONES = {"FPN": ("backbone.bottom_up.",), "C4": ("backbone.", "roi_heads.res5.")}
STATISTICS = (".running_mean", ".running_var")
# Caffe2's name of each part of a ResNet, by detectron2's.
CAFFE2 = (
    (r"stem\.conv1\.norm\.", "res_conv1_bn."),
    (r"stem\.", ""),
    (r"\.shortcut", ".branch1"),
    (r"\.conv1", ".branch2a"),
    (r"\.conv2", ".branch2b"),
    (r"\.conv3", ".branch2c"),
    (r"\.norm\.", "_bn."),
    (r"bn\.weight", "bn_s"),
    (r"weight$", "w"),
    (r"bias$", "b"),
    (r"\.", "_"),
)


def learner(folder: Path, drawn: Path, base: str, weights: str = "") -> dict[str, Tensor]:
    """The tensors that a training with these weights starts from."""
    state: dict[str, Tensor] = open_learner(
        DetectorTrainConfig(network=write_config(folder, base, weights), device="cpu"),
        read_annotations(drawn / "boxes.json", drawn),
        "detectron2",
    ).network.state_dict()
    return state


def write_config(folder: Path, base: str, weights: str) -> str:
    from detectron2 import model_zoo

    zoo = Path(model_zoo.get_config_file("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml")).parents[1]
    path = folder / "network.yaml"
    path.write_text(CONFIG.format(base=zoo / f"Base-RCNN-{base}.yaml", weights=weights))
    return str(path)


def backbone(state: dict[str, Tensor], base: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith(BACKBONES[base])}


def bare(state: dict[str, Tensor], base: str) -> dict[str, Any]:
    """Random weights for the backbone of `state` under the names of a ResNet, as NumPy arrays."""
    rng = np.random.default_rng(0)
    return {
        re.sub(r"^(backbone|roi_heads)\.(bottom_up\.)?", "", name): (
            rng.random(tensor.shape, np.float32)
        )
        for name, tensor in backbone(state, base).items()
    }


def in_caffe2(arrays: dict[str, Any]) -> dict[str, Any]:
    """The same under Caffe2's names, without the statistics that it folded into the norms."""
    found = {name: array for name, array in arrays.items() if not name.endswith(STATISTICS)}
    for pattern, name in CAFFE2:
        found = {re.sub(pattern, name, each): array for each, array in found.items()}
    classifier = {"fc1000_w": np.ones((1000, 2048), np.float32), "fc1000_b": np.ones(1000)}
    return found | classifier | {"conv1_b": np.zeros(64, np.float32)}


def from_torchvision(arrays: dict[str, Any]) -> dict[str, Any]:
    """As detectron2's tools/convert-torchvision-to-d2.py writes it."""
    counter = {"stem.conv1.norm.num_batches_tracked": np.array(0)}
    classifier = {"stem.fc.weight": np.ones((1000, 2048)), "stem.fc.bias": np.ones(1000)}
    return {
        "model": arrays | counter | classifier,
        "__author__": "torchvision",
        "matching_heuristics": True,
    }


@pytest.mark.parametrize("base", ["FPN", "C4"])
@pytest.mark.parametrize("form", [in_caffe2, from_torchvision])
def test_the_backbone_is_loaded_and_the_rest_is_as_without_weights(
    drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, base: str, form: Any
) -> None:
    fresh = learner(tmp_path, drawn, base)
    arrays = bare(fresh, base)
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(form(arrays)))
    with caplog.at_level("INFO", logger="semvlp"):
        state = learner(tmp_path, drawn, base, str(tmp_path / "R-50.pkl"))
    assert f"R-50.pkl holds a backbone ({BACKBONES[base][0]}*" in caplog.text
    own = backbone(state, base)
    assert len(own) == len(arrays) > 200
    for (name, tensor), array in zip(own.items(), arrays.values(), strict=True):
        given = form is from_torchvision or not name.endswith(STATISTICS)
        assert torch.equal(tensor, torch.from_numpy(array) if given else fresh[name]), name
    for name in state.keys() - own.keys():
        assert torch.equal(state[name], fresh[name]), name


@pytest.mark.parametrize("form", [in_caffe2, from_torchvision])
def test_a_backbone_alone_finds_nothing(drawn: Path, tmp_path: Path, form: Any) -> None:
    arrays = bare(learner(tmp_path, drawn, "FPN"), "FPN")
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(form(arrays)))
    config = write_config(tmp_path, "FPN", str(tmp_path / "R-50.pkl"))
    with pytest.raises(InputError, match=r"R-50\.pkl holds a backbone alone.* --weights"):
        load_detector(config, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"res3.0.conv1.weight": None}, r"bottom_up\.res3\.0\.conv1\.weight is missing"),
        ({"res3.0.conv1.norm.running_var": None}, r"conv1\.norm\.running_var is missing"),
        ({"res3.9.conv1.weight": (1,)}, r"res3\.9\.conv1\.weight is not part of the network"),
        ({"res3.0.conv1.weight": (2, 3)}, r"bottom_up\.res3\.0\.conv1\.weight is missing"),
        ({"roi_heads.box_head.fc1.bias": (1024,)}, r"fpn_lateral2\.weight is missing"),
    ],
)
def test_a_backbone_is_loaded_strictly(
    drawn: Path, tmp_path: Path, change: dict[str, tuple[int, ...] | None], message: str
) -> None:
    arrays = bare(learner(tmp_path, drawn, "FPN"), "FPN")
    for name, shape in change.items():
        arrays.pop(name, None)
        if shape:
            arrays[name] = np.zeros(shape, np.float32)
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"model": arrays}))
    with pytest.raises(InputError, match=rf"R-50\.pkl does not fit the network: .*{message}"):
        learner(tmp_path, drawn, "FPN", str(tmp_path / "R-50.pkl"))
