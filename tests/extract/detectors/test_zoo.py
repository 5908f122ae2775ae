"""Finding a detector by name, and what is said when it cannot be had."""

import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors.known import DEFAULT, KNOWN
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN
from semvlp.extract.detectors.zoo import check_detector, load_detector
from semvlp.extract.networks import MODELS, NETWORKS, SMALL
from semvlp.extract.weights.checkpoint import Description, save_detector

has_detectron2 = importlib.util.find_spec("detectron2") is not None


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A directory as `train_detector` writes it."""
    save_random(tmp_path)
    return tmp_path


def save_random(directory: Path) -> None:
    network = FasterRCNN(SMALL, num_objects=2, num_attributes=1)
    save_detector(
        directory,
        network.state_dict(),
        Description(network=SMALL, object_labels=("cup", "cat"), attribute_labels=("red",)),
    )


def test_every_known_detector_names_a_network_and_its_weights() -> None:
    assert {"demo", "untrained", DEFAULT} <= set(KNOWN)
    for spec in KNOWN.values():
        assert spec.network in NETWORKS or spec.network in MODELS
        assert spec.what
        assert ("http" in spec.weights) == spec.published


def test_a_trained_directory_opens(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="semvlp"):
        detector = load_detector(str(trained), device="cpu")
    assert detector.object_labels == ("cup", "cat")
    assert detector.attribute_labels == ("red",)
    assert detector.feature_size == 256
    assert "run by torchvision" in caplog.text
    (proposals,) = detector([np.zeros((40, 50, 3), np.uint8)])
    assert proposals.object_scores.shape[1] == 3
    json.dumps(detector.profile)


@pytest.mark.parametrize("name", ["shorter_side", "num_proposals", "pool_size", "feature_size"])
def test_sizes_that_would_fill_memory_are_refused(trained: Path, name: str) -> None:
    path = trained / "detector.json"
    entry = json.loads(path.read_text())
    entry["network"] |= {"longer_side": 100, "shorter_side": 100, name: 10**9}
    path.write_text(json.dumps(entry))
    with pytest.raises(InputError, match=rf"detector\.json: .*{name} must be at most \d+, got 10"):
        load_detector(str(trained), device="cpu")


def test_the_profile_follows_the_weights(trained: Path) -> None:
    other = trained / "other"
    other.mkdir()
    save_random(other)
    first = load_detector(str(trained), device="cpu").profile
    assert first == load_detector(str(trained), device="cpu").profile
    assert first != load_detector(str(other), device="cpu").profile


def test_the_demo_detector_works_offline() -> None:
    detector = load_detector("demo", device="cpu")
    assert {"circle", "triangle", "square", "box"} <= set(detector.object_labels)
    assert {"yellow", "black", "blue"} <= set(detector.attribute_labels)


def test_an_unknown_name_gets_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'untrained'"):
        load_detector("untraind")


def test_a_directory_without_a_detector_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"detector\.json: no such file"):
        load_detector(str(tmp_path))


def test_missing_weights_of_the_default_name_every_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_detector(None, weights=str(tmp_path / "none.pkl"))
    for remedy in (
        *(KNOWN[DEFAULT].weights, "--weights PATH"),
        *("semvlp detector train", "--detector demo", "none.pkl"),
    ):
        assert remedy in str(caught.value)


def test_a_failed_download_names_url_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise ConnectionRefusedError("no network here")

    monkeypatch.setattr("urllib.request.OpenerDirector.open", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match="no network here") as caught:
        load_detector(None)
    assert KNOWN[DEFAULT].weights in str(caught.value)
    assert "--detector demo" in str(caught.value)


def test_sources_are_tried_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []
    alive = tmp_path / "none.pkl"

    def fetch(address: str) -> Path:
        asked.append(address)
        if address == KNOWN["butd"].sources[-1].address:
            return alive
        error = ConfigError if address.startswith("http:") else InputError
        raise error(f"{address} is gone")

    monkeypatch.setattr("semvlp.extract.detectors.zoo.fetch", fetch)
    with pytest.raises(InputError, match=r"none\.pkl: no such weights file"):
        load_detector("butd", device="cpu")
    assert asked == [source.address for source in KNOWN["butd"].sources]
    assert len(asked) > 1
    assert f"{asked[0]} is gone" in caplog.text
    asked.clear()
    with pytest.raises(InputError) as caught:
        load_detector("vinvl", device="cpu")
    *fetched, by_hand = KNOWN["vinvl"].sources
    assert asked == [source.address for source in fetched]
    for source in fetched:
        assert f"{source.address} is gone" in str(caught.value)
    assert f"download {by_hand.address}" in str(caught.value)


def test_the_list_says_when_an_address_was_last_alive() -> None:
    vinvl = KNOWN["vinvl"].sources
    assert vinvl[0].sentence().endswith("(no report known)")
    assert "alive 2024-01-31 by pzzhang" in vinvl[2].sentence()
    assert KNOWN["demo"].sources[0].sentence() == "part of this package, works offline"
    torchvision = KNOWN[DEFAULT].sources[0].sentence()
    assert "167.104 MB; sha256 dd69338a..." in torchvision
    for spec in KNOWN.values():
        for source in spec.sources:
            assert source.values()["address"] == source.address
            # A report has a place to look it up.
            assert not source.reported or "#" in source.reported or "torchvision" in source.reported


@pytest.mark.parametrize("name", ["demo", "untrained"])
def test_detectors_with_their_own_weights_take_no_others(name: str) -> None:
    with pytest.raises(ConfigError, match="leave --weights out"):
        load_detector(name, weights="other.pth")


def test_a_backend_that_cannot_run_the_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="run by torchvision alone"):
        load_detector("demo", backend="detectron2")
    with pytest.raises(ConfigError, match="run by detectron2 alone"):
        load_detector("COCO-Detection/faster_rcnn_R_50_C4_3x.yaml", backend="torchvision")


@pytest.mark.skipif(has_detectron2, reason="detectron2 is installed")
def test_a_config_without_detectron2_says_how_to_build_it() -> None:
    with pytest.raises(ConfigError) as caught:
        load_detector("COCO-Detection/faster_rcnn_R_50_C4_3x.yaml")
    assert "git+https://github.com/facebookresearch/detectron2.git" in str(caught.value)
    assert "setuptools<81" in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="--device must be auto or cpu"):
        load_detector("untrained", device="cuda")


def test_weights_without_an_address_say_where_they_are() -> None:
    with pytest.raises(InputError, match=r"by hand from .*MILVLG.* --weights PATH"):
        load_detector("butd-caffe")


def test_settings_change_the_network_and_with_it_the_profile() -> None:
    plain = load_detector("demo", device="cpu")
    smaller = load_detector("demo", device="cpu", settings=["shorter_side=32", "longer_side=64"])
    assert smaller.profile["network"]["shorter_side"] == 32
    assert smaller.profile["weights_sha256"] == plain.profile["weights_sha256"]
    with pytest.raises(ConfigError, match="did you mean 'shorter_side'"):
        load_detector("demo", device="cpu", settings=["shorter_sid=32"])
    with pytest.raises(InputError, match="does not fit the network"):
        load_detector("demo", device="cpu", settings=["feature_size=128"])


def test_a_missing_file_of_labels_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cup\n")
    check_detector("demo", labels=[names])
    check_detector("hf:a/b", labels=[Path("dog, red car")])
    for name in (None, "demo", "butd"):
        with pytest.raises(InputError, match=r"--labels .*other\.txt.*: there is no such file"):
            check_detector(name, labels=[names, tmp_path / "other.txt"])
