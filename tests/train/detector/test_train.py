"""Training a detector: what it learns from, that it learns, and that it goes on exactly."""

import json
import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semvlp.errors import ConfigError, InputError, SemVLPError
from semvlp.extract.detectors.known import KNOWN
from semvlp.extract.detectors.on_detectron2.cfg_of import training_settings_of
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN, attribute_loss
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.images.resize import ResizeRule
from semvlp.extract.networks import NETWORKS, SMALL
from semvlp.extract.weights.checkpoint import read_description, read_weights
from semvlp.settings import load
from semvlp.train.detector.batches import batch_indices, flips, load_groups
from semvlp.train.detector.coco import read_annotations
from semvlp.train.detector.config import DetectorTrainConfig
from semvlp.train.detector.learner import runner_of
from semvlp.train.detector.train import train_detector
from semvlp.train.run.files import METRICS, read_lines

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = DetectorTrainConfig(
    steps=6, batch_size=2, lr=2e-3, warmup_steps=2, log_every=2, save_every=3, device="cpu"
)


# Batches


def test_every_epoch_shows_every_image_once_in_another_order() -> None:
    def drawn_in(epoch: int) -> list[int]:
        steps = range(epoch * 4, epoch * 4 + 4)
        return [i for s in steps for i in batch_indices(s, batch_size=3, num_images=12, seed=5)]

    assert sorted(drawn_in(0)) == sorted(drawn_in(1)) == list(range(12))
    assert drawn_in(0) != drawn_in(1)
    other = [i for s in range(4) for i in batch_indices(s, batch_size=3, num_images=12, seed=6)]
    assert other != drawn_in(0)


def test_a_mirrored_image_has_mirrored_boxes(drawn: Path) -> None:
    data = read_annotations(drawn / "boxes.json", drawn)
    ((plain, (target,)),) = load_groups(data.images[:1], [False], ResizeRule.of(SMALL), 2)
    ((mirrored, (other,)),) = load_groups(data.images[:1], [True], ResizeRule.of(SMALL), 2)
    assert torch.equal(mirrored.flip(-1), plain)
    assert torch.equal(64 - other.boxes[:, [2, 0]], target.boxes[:, [0, 2]])
    assert torch.equal(other.boxes[:, [1, 3]], target.boxes[:, [1, 3]])
    assert {True, False} == set(flips(0, batch_size=50, seed=0))


def test_boxes_are_resized_with_their_image(drawn: Path) -> None:
    data = read_annotations(drawn / "boxes.json", drawn)
    doubled = replace(SMALL, shorter_side=96, longer_side=200)
    ((pixels, (target,)),) = load_groups(data.images[:1], [False], ResizeRule.of(doubled), 2)
    assert pixels.shape == (1, 3, 96, 128)
    assert target.boxes[0].tolist() == [2 * value for value in data.images[0].objects[0].box]


# Training


def test_the_loss_falls_and_the_result_detects(drawn: Path, tmp_path: Path) -> None:
    config = replace(SHORT, steps=25, batch_size=4, log_every=1, valid=drawn / "boxes.json")
    report = train_detector(drawn / "boxes.json", drawn, tmp_path, config)
    lines = read_lines(tmp_path / METRICS)
    parts = {name for name in lines[0] if name.startswith("loss_")}
    assert [line["step"] for line in lines] == list(range(1, 26))
    assert parts == {
        *("loss_rpn_objectness", "loss_rpn_box"),
        *("loss_object", "loss_box", "loss_attribute"),
    }
    for line in lines:
        assert math.isclose(line["loss"], sum(line[part] for part in parts), rel_tol=1e-5)
    means = [np.mean([line["loss"] for line in part]) for part in (lines[:5], lines[-5:])]
    assert means[1] < 0.7 * means[0]
    assert set(report.scores) >= {"AP", "AP50", "AP75"}
    assert str(tmp_path) in report.sentence()
    json.dumps(report.values())
    detector = load_detector(str(tmp_path), device="cpu")
    assert detector.object_labels == ("square", "circle")


def test_a_run_starts_from_given_weights_but_for_the_predictor(drawn: Path, tmp_path: Path) -> None:
    first = replace(SHORT, steps=1)
    train_detector(drawn / "boxes.json", drawn, tmp_path / "first", first)
    given = tmp_path / "first" / "detector.safetensors"
    still = replace(first, lr=1e-20, weight_decay=0.0, seed=3, init=str(given))
    train_detector(drawn / "boxes.json", drawn, tmp_path / "second", still)
    before, after = read_weights(given), read_weights(tmp_path / "second" / "detector.safetensors")
    for name, tensor in after.items():
        if "embedding" in name or name.endswith("predictor.objects.weight"):
            assert not torch.equal(tensor, before[name])
        elif not name.startswith("predictor."):
            torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-15)


@pytest.mark.parametrize("part", ["train", "valid"])
@pytest.mark.parametrize(
    ("change", "left_out"), [({"iscrowd": 1}, "8 a"), ({"bbox": [0] * 4}, "8 w")]
)
def test_annotations_without_a_box_are_refused_before_anything_is_learned(
    drawn: Path, tmp_path: Path, part: str, change: dict[str, Any], left_out: str
) -> None:
    tree = json.loads((drawn / "boxes.json").read_text())
    tree["annotations"] = [each | change for each in tree["annotations"][:8]]
    (tmp_path / "bare.json").write_text(json.dumps(tree))
    files = {"train": drawn / "boxes.json", "valid": drawn / "boxes.json"}
    files[part] = tmp_path / "bare.json"
    config = replace(SHORT, valid=files["valid"])
    message = rf"bare\.json: must hold at least one box, found none in 8 images .*{left_out}"
    with pytest.raises(InputError, match=message):
        train_detector(files["train"], drawn, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_boxes_that_are_left_out_are_told(
    drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = json.loads((drawn / "boxes.json").read_text())
    tree["annotations"][0]["iscrowd"] = 1
    tree["annotations"][1]["bbox"] = [3, 3, 0, 9]
    (tmp_path / "boxes.json").write_text(json.dumps(tree))
    with caplog.at_level("INFO", logger="semvlp"):
        train_detector(tmp_path / "boxes.json", drawn, tmp_path / "run", replace(SHORT, steps=1))
    assert "nothing is learned from 1 boxes around crowds" in caplog.text
    assert "1 boxes without area in their image are left out" in caplog.text


def test_weights_of_another_network_do_not_start_a_run(drawn: Path, tmp_path: Path) -> None:
    torch.save({"trunk.stem.0.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    config = replace(SHORT, init=str(tmp_path / "other.pth"))
    with pytest.raises(InputError, match=r"other\.pth does not fit the network"):
        train_detector(drawn / "boxes.json", drawn, tmp_path / "run", config)


def test_a_resnet_is_not_trained_from_random_weights() -> None:
    with pytest.raises(ConfigError, match="set `init`"):
        load(DetectorTrainConfig, None, ["network=resnet50_c4"])
    assert load(DetectorTrainConfig, None, ["network=resnet50_c4", "init=w.pth"]).init == "w.pth"


@pytest.mark.parametrize(
    ("name", "architecture", "start"),
    [
        ("small", "small", None),
        ("demo", "small", None),
        ("coco-r50-c4", "resnet50_c4", KNOWN["coco-r50-c4"].weights),
        ("butd", "resnet101_c4_butd", KNOWN["butd"].weights),
        ("COCO-Detection/faster_rcnn_R_50_C4_3x.yaml", None, None),
    ],
)
def test_a_known_detector_is_its_network_and_starts_from_its_weights(
    name: str, architecture: str | None, start: str | None
) -> None:
    config = DetectorTrainConfig(network=name)
    assert (config.architecture, config.start) == (architecture, start)
    assert replace(config, init="other.pth").start == "other.pth"


@pytest.mark.parametrize("name", ["vinvl", "butd-caffe", "resnet101_c4_caffe", "nothing"])
def test_a_network_whose_rules_of_learning_are_not_here_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"must be one of small, .*, got '{name}'"):
        DetectorTrainConfig(network=name, init="weights.pth")


def test_the_backend_that_has_the_network_trains_it() -> None:
    small, resnet = DetectorTrainConfig(), DetectorTrainConfig(network="coco-r50-c4")
    config = DetectorTrainConfig(network="COCO-Detection/faster_rcnn_R_50_C4_3x.yaml")
    assert [runner_of(each, "auto") for each in (small, resnet, config)] == [
        "torchvision",
        "torchvision",
        "detectron2",
    ]
    assert runner_of(resnet, "detectron2") == "detectron2"
    with pytest.raises(ConfigError, match="are not trained here"):
        runner_of(small, "transformers")
    with pytest.raises(ConfigError, match="small network is no network of detectron2"):
        runner_of(small, "detectron2")
    with pytest.raises(ConfigError, match="is a detectron2 config; --backend auto"):
        runner_of(config, "torchvision")


@pytest.mark.skipif(find_spec("detectron2") is not None, reason="detectron2 is installed")
def test_training_without_detectron2_says_how_to_build_it(drawn: Path, tmp_path: Path) -> None:
    config = replace(SHORT, network="resnet50_c4", init="weights.pth")
    with pytest.raises(ConfigError, match=r"needs detectron2.*git\+https"):
        train_detector(drawn / "boxes.json", drawn, tmp_path, config, backend="detectron2")


def test_settings_of_the_network_are_part_of_what_is_learned(drawn: Path, tmp_path: Path) -> None:
    config = replace(SHORT, steps=1, settings=("num_proposals=9",))
    train_detector(drawn / "boxes.json", drawn, tmp_path, config)
    network = read_description(tmp_path / "detector.json").network
    assert network == replace(SMALL, num_proposals=9)
    with pytest.raises(ConfigError, match=r"settings must be \('num_proposals=9',\) .* is \(\)"):
        train_detector(drawn / "boxes.json", drawn, tmp_path, replace(config, settings=()))


def test_detectron2_is_told_to_learn_as_torchvision_does() -> None:
    learner = FasterRCNN(NETWORKS["resnet50_c4"], num_objects=2, num_attributes=1)
    told = training_settings_of(learner.config)["MODEL"]
    assert told["RPN"]["PRE_NMS_TOPK_TRAIN"] == learner.rpn._pre_nms_top_n["training"]
    assert told["RPN"]["POST_NMS_TOPK_TRAIN"] == learner.rpn._post_nms_top_n["training"]
    sampler = learner.sampler.fg_bg_sampler
    assert told["ROI_HEADS"]["BATCH_SIZE_PER_IMAGE"] == sampler.batch_size_per_image
    assert all(parameter.requires_grad for parameter in learner.parameters())
    assert told["BACKBONE"]["FREEZE_AT"] == 0


def test_the_attribute_loss_is_the_mean_over_what_is_annotated() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0], [5.0, 1.0, 1.0]])
    targets = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    first = -(0.5 * 2.0 + 0.5 * 1.0) + math.log(math.exp(2) + 1 + math.exp(1))
    expected = (first + math.log(3)) / 2
    assert float(attribute_loss(logits, targets)) == pytest.approx(expected, rel=1e-6)
    assert float(attribute_loss(logits, torch.zeros(3, 3))) == 0


def test_a_loss_that_is_not_finite_ends_the_run(drawn: Path, tmp_path: Path) -> None:
    config = replace(SHORT, steps=20, lr=1e12, warmup_steps=0)
    with pytest.raises(SemVLPError, match="try a smaller `lr`"):
        train_detector(drawn / "boxes.json", drawn, tmp_path, config)


def test_settings_load_from_the_command_line() -> None:
    config = load(DetectorTrainConfig, None, ["steps=5", "valid=a/b.json", "flip=true"])
    assert config == DetectorTrainConfig(steps=5, valid=Path("a/b.json"), flip=True)
    with pytest.raises(ConfigError, match="steps"):
        load(DetectorTrainConfig, None, ["steps=0"])
