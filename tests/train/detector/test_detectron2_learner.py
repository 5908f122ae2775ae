"""Training in detectron2: it learns what the torchvision backend learns, and goes on exactly."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from semvlp.errors import ConfigError
from semvlp.extract.detectors.detector import Runner
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.networks import NETWORKS
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.extract.weights.checkpoint import read_description
from semvlp.extract.weights.families import DETECTRON2, from_ours
from semvlp.shards.open import open_store
from semvlp.train.detector import loop
from semvlp.train.detector.batches import load_groups
from semvlp.train.detector.coco import read_annotations
from semvlp.train.detector.config import DetectorTrainConfig
from semvlp.train.detector.learner import open_learner
from semvlp.train.detector.train import train_detector
from semvlp.train.run.files import METRICS, read_lines
from tests.train.detector.curve import curve

pytest.importorskip("detectron2", reason="detectron2 is not installed; it is built from source")

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.usefixtures("one_thread"),
    # detectron2 and its dependencies use what newer Python and torch versions deprecate.
    pytest.mark.filterwarnings("ignore"),
]

# Small images, maps and numbers of regions keep the tests fast; the rules are those of every size.
SETTINGS = ("shorter_side=64", "longer_side=96", "num_proposals=12", "pool_size=5")
SHORT = DetectorTrainConfig(
    network="resnet50_c4",
    settings=SETTINGS,
    init="set by each test",
    steps=4,
    lr=1e-4,
    warmup_steps=1,
    log_every=1,
    save_every=2,
    device="cpu",
)
LOSSES = {
    *("loss_rpn_objectness", "loss_rpn_box"),
    *("loss_object", "loss_box", "loss_attribute"),
}
CONFIG = """
_BASE_: {base}
MODEL:
  WEIGHTS: "{weights}"
  MASK_ON: {masks}
  BOX_RULE: {rule}
  RESNETS: {{DEPTH: 50}}
  RPN: {{POST_NMS_TOPK_TRAIN: 20, POST_NMS_TOPK_TEST: 12, BATCH_SIZE_PER_IMAGE: 32}}
  ROI_HEADS: {{NAME: {heads}, BATCH_SIZE_PER_IMAGE: 16}}
  ROI_BOX_HEAD: {{POOLER_RESOLUTION: 5}}
INPUT: {{MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 96}}
DATASETS: {{TEST: []}}
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A trained network's layout under detectron2's names, for 80 classes as its zoo has them."""
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.manual_seed(0)
    network = FasterRCNN(NETWORKS["resnet50_c4"], num_objects=80, num_attributes=0)
    torch.save({"model": from_ours(network.state_dict(), DETECTRON2)}, path)
    return str(path)


def write_config(
    folder: Path,
    weights: str,
    *,
    base: str = "C4",
    heads: str = "AttributeRes5ROIHeads",
    rule: str = "exclusive",
    masks: bool = False,
) -> str:
    from detectron2 import model_zoo

    zoo = Path(model_zoo.get_config_file("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml")).parents[1]
    path = folder / "network.yaml"
    path.write_text(
        CONFIG.format(
            base=zoo / f"Base-RCNN-{base}.yaml",
            heads=heads,
            weights=weights,
            rule=rule,
            masks=masks,
        )
    )
    return str(path)


def losses_of_everything(
    runner: Runner, config: DetectorTrainConfig, drawn: Path, images: Sequence[int]
) -> dict[str, float]:
    """The losses where nothing is drawn by chance: every anchor and region is learned from."""
    data = read_annotations(drawn / "boxes.json", drawn)
    learner = open_learner(config, data, runner)
    network: Any = learner.network
    samplers = (
        (network.rpn.fg_bg_sampler, network.sampler.fg_bg_sampler)
        if runner == "torchvision"
        else (network.proposal_generator, network.roi_heads)
    )
    for sampler in samplers:
        sampler.batch_size_per_image = 10**6
    chosen = [data.images[index] for index in images]
    ((pixels, targets),) = load_groups(chosen, [False] * len(chosen), learner.resize, 2)
    return {name: float(loss.detach()) for name, loss in learner.losses(pixels, targets).items()}


def check_same_losses(config: DetectorTrainConfig, drawn: Path) -> None:
    """Both backends have the same losses from the same weights."""
    ours, theirs = (
        losses_of_everything(runner, config, drawn, [0, 3])
        for runner in ("torchvision", "detectron2")
    )
    assert set(ours) == set(theirs) == LOSSES
    for name in ("loss_object", "loss_box", "loss_attribute"):
        assert theirs[name] == pytest.approx(ours[name], rel=1e-4)
    # Both divide these two by one number; in detectron2 it is the one of the config.
    assert theirs["loss_rpn_box"] / theirs["loss_rpn_objectness"] == pytest.approx(
        ours["loss_rpn_box"] / ours["loss_rpn_objectness"], rel=1e-4
    )


def test_both_backends_have_the_same_losses_from_the_same_weights(
    drawn: Path, weights: str
) -> None:
    check_same_losses(replace(SHORT, init=weights), drawn)


def test_the_result_opens_in_both_backends_and_extracts(
    drawn: Path, tmp_path: Path, weights: str
) -> None:
    config = replace(SHORT, init=weights, valid=drawn / "boxes.json")
    run = tmp_path / "run"
    report = train_detector(drawn / "boxes.json", drawn, run, config, backend="detectron2")
    assert [line["step"] for line in read_lines(run / METRICS)] == [1, 2, 3, 4]
    for line in read_lines(run / METRICS):
        assert {name for name in line if name.startswith("loss_")} == LOSSES
        assert math.isclose(line["loss"], sum(line[name] for name in LOSSES), rel_tol=1e-5)
    assert set(report.scores) >= {"AP", "AP50", "AP75"}
    assert read_description(run / "detector.json").network is not None
    for backend in ("torchvision", "detectron2"):
        settings = ExtractSettings(
            detector=str(run),
            backend=backend,  # type: ignore[arg-type]
            device="cpu",
            min_regions=4,
            max_regions=8,
        )
        extracted = extract(drawn, tmp_path / backend, settings)
        assert (extracted.written, extracted.refused) == (8, 0)
        with open_store(tmp_path / backend) as store:
            manifest = store.manifest
            assert tuple(manifest.object_labels) == ("square", "circle")
            assert tuple(manifest.attribute_labels) == ("red", "blue")
            assert manifest.feature_size == 2048
    image = [np.full((48, 64, 3), 200, np.uint8)]
    ours, theirs = (
        load_detector(str(run), backend=backend, device="cpu")(image)[0]  # type: ignore[arg-type]
        for backend in ("torchvision", "detectron2")
    )
    np.testing.assert_allclose(ours.object_scores, theirs.object_scores, atol=1e-4)
    np.testing.assert_allclose(ours.attribute_scores, theirs.attribute_scores, atol=1e-4)


def test_every_part_of_the_network_learns(drawn: Path, tmp_path: Path, weights: str) -> None:
    config = replace(SHORT, init=weights, steps=1, weight_decay=0.0)
    data = read_annotations(drawn / "boxes.json", drawn)
    before = open_learner(config, data, "detectron2").network.state_dict()
    train_detector(drawn / "boxes.json", drawn, tmp_path, config, backend="detectron2")
    after = load_file(tmp_path / "last" / "training" / "weights.safetensors")
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert all(".norm." in name for name in still), still


def test_a_resumed_run_ends_as_an_uninterrupted_one(
    drawn: Path, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    config = replace(SHORT, init=weights)

    def train(out: Path) -> None:
        train_detector(drawn / "boxes.json", drawn, out, config, backend="detectron2")

    train(whole)
    step = loop.train_step

    def stop(*arguments: Any) -> dict[str, float]:
        if arguments[-1] == 4:
            raise KeyboardInterrupt
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(halted)
    assert [line["step"] for line in read_lines(halted / METRICS)] == [1, 2, 3]
    train(halted)
    for name in ("detector.safetensors", "detector.json"):
        assert (halted / name).read_bytes() == (whole / name).read_bytes()
    assert curve(halted) == curve(whole)
    with pytest.raises(ConfigError, match=r"backend must be 'detectron2' .* is 'torchvision'"):
        train_detector(drawn / "boxes.json", drawn, whole, config)


@pytest.mark.parametrize(
    ("base", "heads", "attributes"),
    [("C4", "AttributeRes5ROIHeads", ("red", "blue")), ("FPN", "StandardROIHeads", ())],
)
def test_a_detectron2_config_learns_and_extracts(
    drawn: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    base: str,
    heads: str,
    attributes: tuple[str, ...],
) -> None:
    config = replace(
        SHORT,
        network=write_config(tmp_path, "", base=base, heads=heads),
        settings=("MODEL.RPN.NMS_THRESH=0.6", "MODEL.RESNETS.NORM=BN"),
        init=None,
        steps=2,
    )
    run = tmp_path / "run"
    train_detector(drawn / "boxes.json", drawn, run, config)
    learned = LOSSES if attributes else LOSSES - {"loss_attribute"}
    assert {name for name in read_lines(run / METRICS)[0] if name.startswith("loss_")} == learned
    assert ("attributes are not learned" in caplog.text) == (not attributes)
    # It stands alone: neither the YAML file nor its settings are needed any more.
    (tmp_path / "network.yaml").unlink()
    detector: Any = load_detector(str(run), device="cpu")
    assert detector.profile["backend"] == "detectron2"
    assert detector._cfg.MODEL.RPN.NMS_THRESH == 0.6
    assert (detector.object_labels, detector.attribute_labels) == (
        ("square", "circle"),
        attributes,
    )
    extracted = extract(
        drawn, tmp_path / "shards", ExtractSettings(min_regions=1), detector=detector
    )
    assert (extracted.written, extracted.refused) == (8, 0)
    with pytest.raises(ConfigError, match="run by detectron2 alone"):
        load_detector(str(run), backend="torchvision", device="cpu")


def test_a_config_starts_from_its_own_weights_but_for_the_predictors(
    drawn: Path, tmp_path: Path, weights: str
) -> None:
    config = replace(SHORT, network=write_config(tmp_path, weights), settings=(), init=None)
    data = read_annotations(drawn / "boxes.json", drawn)
    state = open_learner(config, data, "detectron2").network.state_dict()
    given = torch.load(weights, weights_only=True)["model"]
    body = {name for name in state if "predictor." not in name}
    assert len(body) > 100
    for name in body:
        assert torch.equal(state[name], given[name]), name
    assert len(state["roi_heads.box_predictor.cls_score.weight"]) == 3


@pytest.mark.parametrize("change", [{"masks": True}, {"rule": "caffe"}])
def test_what_cannot_be_learned_is_refused(
    drawn: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    network = write_config(tmp_path, "", heads="Res5ROIHeads", **change)
    config = replace(SHORT, network=network, settings=(), init=None)
    with pytest.raises(ConfigError, match=r"must have MODEL\.BOX_RULE exclusive and MODEL\.MASK"):
        train_detector(drawn / "boxes.json", drawn, tmp_path / "run", config)
