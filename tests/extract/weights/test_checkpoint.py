"""Weights on disk: written whole, read strictly, translated by literal tables."""

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from semvlp.errors import InputError
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN
from semvlp.extract.networks import NETWORKS, SMALL
from semvlp.extract.weights.checkpoint import (
    Description,
    load_strict,
    read_detector,
    read_weights,
    save_detector,
    state_sha256,
)
from semvlp.settings import override

DESCRIPTION = Description(
    network=replace(SMALL, anchor_sizes=(12, 24)),
    object_labels=("cup", "cat"),
    attribute_labels=("red",),
)


@pytest.fixture
def network() -> FasterRCNN:
    torch.manual_seed(0)
    return FasterRCNN(DESCRIPTION.network, num_objects=2, num_attributes=1)


def test_a_detector_comes_back_as_it_was_saved(tmp_path: Path, network: FasterRCNN) -> None:
    save_detector(tmp_path, network.state_dict(), DESCRIPTION)
    description, state = read_detector(tmp_path / "detector.json")
    assert description == DESCRIPTION
    load_strict(network, state, "file")
    assert state_sha256(state) == state_sha256(network.state_dict())
    entry = json.loads((tmp_path / "detector.json").read_text())
    weights = (tmp_path / "detector.safetensors").read_bytes()
    assert entry["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "detector.json",
        "detector.safetensors",
    ]


def test_a_network_is_described_by_the_names_of_version_0_1(tmp_path: Path) -> None:
    """Profiles are hashes of them, and detectors that people have trained hold them."""
    network = NETWORKS["resnet101_c4_caffe"]
    save_detector(tmp_path, {}, replace(DESCRIPTION, network=network))
    entry = json.loads((tmp_path / "detector.json").read_text())["network"]
    assert (entry["trunk"], entry["variant"]["boxes"]) == ("resnet101", "caffe")
    assert entry == json.loads(json.dumps(network.stored()))
    assert read_detector(tmp_path / "detector.json")[0].network == network


def test_a_setting_is_read_by_its_old_name(caplog: pytest.LogCaptureFixture) -> None:
    config = override(NETWORKS["resnet101_c4"], ["trunk=resnet50"])
    assert config.backbone == "resnet50"
    assert "the setting trunk is now called backbone" in caplog.text
    config = override(NETWORKS["resnet101_c4_caffe"], ["variant.boxes=exclusive"])
    assert config.variant == replace(
        NETWORKS["resnet101_c4_caffe"].variant, box_convention="exclusive"
    )
    assert "variant.boxes is now called variant.box_convention" in caplog.text


def test_weights_of_another_detector_are_refused(tmp_path: Path, network: FasterRCNN) -> None:
    save_detector(tmp_path, network.state_dict(), DESCRIPTION)
    changed = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    save_file(changed, tmp_path / "detector.safetensors")
    with pytest.raises(InputError, match=r"detector\.safetensors: its sha256"):
        read_detector(tmp_path / "detector.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "must be a semvlp-detector of version 1, found 'other' 1"),
        ({"format_version": 2}, "found 'semvlp-detector' 2"),
        ({"object_labels": "cup"}, "object_labels must be a list"),
        ({"network": {"trunk": "big"}}, "network.backbone must be one of"),
        ({"detectron2": "MODEL: {}"}, "either a `network` or a `detectron2` config"),
    ],
)
def test_a_foreign_description_is_refused(
    tmp_path: Path, network: FasterRCNN, change: dict[str, object], message: str
) -> None:
    save_detector(tmp_path, network.state_dict(), DESCRIPTION)
    path = tmp_path / "detector.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message) as caught:
        read_detector(path)
    assert str(path) in str(caught.value)


def broken(state: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    if how == "missing":
        del state["predictor.objects.bias"]
    elif how == "unexpected":
        state["predictor.masks.weight"] = torch.zeros(1)
    else:
        state["predictor.objects.bias"] = torch.zeros(5)
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "predictor.objects.bias is missing"),
        ("unexpected", "predictor.masks.weight is not part of the network"),
        ("mis-shaped", "predictor.objects.bias must be 3, found 5"),
    ],
)
def test_weights_that_do_not_fit_name_tensor_and_file(
    network: FasterRCNN, how: str, message: str
) -> None:
    before = state_sha256(network.state_dict())
    with pytest.raises(InputError, match=message) as caught:
        load_strict(network, broken(dict(network.state_dict()), how), "my.pth")
    assert "my.pth" in str(caught.value)
    assert state_sha256(network.state_dict()) == before


def test_every_container_gives_the_same_tensors(tmp_path: Path) -> None:
    state = {"a.weight": torch.rand(2, 3), "a.bias": torch.rand(2)}
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"model": state, "iteration": 7}, tmp_path / "w.pth")
    torch.save(state, tmp_path / "w.bin")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "d2"}))
    for name in ("w.safetensors", "w.pth", "w.bin", "w.pkl"):
        assert state_sha256(read_weights(tmp_path / name)) == state_sha256(state)


class Evil:
    """What a pickle could do on loading."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code was run')",))


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_code_in_a_weights_file_is_refused_and_not_run(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"evil{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps({"model": Evil()}))
    else:
        torch.save({"model": Evil()}, path)
    with pytest.raises(InputError, match="evil"):
        read_weights(path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pkl"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no weights " * 10)
    with pytest.raises(InputError, match=name):
        read_weights(tmp_path / name)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such weights file"):
        read_weights(tmp_path / "none.pth")
    (tmp_path / "w.caffemodel").write_bytes(b"")
    with pytest.raises(InputError, match=r"w\.caffemodel: weights must be"):
        read_weights(tmp_path / "w.caffemodel")
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="epoch must be a tensor, found int"):
        read_weights(tmp_path / "w.pth")
