"""torchvision's own models are what `model.eval()` is: boxes, scores and features to the bit."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision.models import WeightsEnum, get_model, get_model_weights
from torchvision.ops import FrozenBatchNorm2d

from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors.known import DEFAULT, KNOWN
from semvlp.extract.detectors.on_torchvision.models import ModelDetector, build_model
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.images.given import Given
from semvlp.extract.networks import MODELS

PREFIX = "torchvision:"
SIZES = ("shorter_side=64", "longer_side=96", "num_candidates=20", "num_proposals=12")
LIGHT = "fasterrcnn_mobilenet_v3_large_320_fpn"


def random_weights(name: str) -> dict[str, torch.Tensor]:
    """A state as the published file holds it, with norms of their own and spread boxes."""
    torch.manual_seed(0)
    model: Any = build_model(MODELS[name], 91)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(20)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(20)
    return dict(model.state_dict())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("weights")

    def path(name: str) -> Path:
        file = folder / f"{name}.pth"
        if not file.exists():
            torch.save(random_weights(name), file)
        return file

    return path


def opened(name: str, weights: Path) -> ModelDetector:
    detector = load_detector(PREFIX + name, weights=str(weights), device="cpu", settings=SIZES)
    assert isinstance(detector, ModelDetector)
    return detector


def image(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "name",
    [
        *(LIGHT, "fasterrcnn_resnet50_fpn_v2"),
        pytest.param("fasterrcnn_resnet50_fpn", marks=pytest.mark.slow),
        pytest.param("maskrcnn_resnet50_fpn_v2", marks=pytest.mark.slow),
    ],
)
def test_boxes_scores_and_features_are_torchvisions(
    name: str, weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs with published weights, opened as everybody does, but that the file is here."""
    state = torch.load(weights(name), weights_only=True)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *args, **options: state)
    model: Any = get_model(
        name,
        weights=get_model_weights(name).DEFAULT,
        min_size=64,
        max_size=96,
        rpn_pre_nms_top_n_test=20,
        rpn_post_nms_top_n_test=12,
        # So that their selection leaves everything.
        rpn_score_thresh=0.0,
        box_score_thresh=-1.0,
        box_nms_thresh=1.1,
        box_detections_per_img=10**6,
    ).eval()
    features: list[torch.Tensor] = []
    model.roi_heads.box_head.register_forward_hook(lambda *args: features.append(args[2]))
    pixels = image(50, 83)
    with torch.inference_mode():
        (theirs,) = model([torch.from_numpy(pixels).permute(2, 0, 1) / 255])
    (ours,) = opened(name, weights(name))([pixels])
    assert len(ours.proposals) > 1
    np.testing.assert_array_equal(ours.features, features[0].numpy())
    wide = ((ours.boxes[..., 2:] - ours.boxes[..., :2]) > 0.02).all(-1)
    rows = Counter(
        (label + 1, score.tobytes(), box.tobytes())
        for boxes, scores in zip(ours.boxes, ours.object_scores, strict=True)
        for label, (box, score) in enumerate(zip(boxes, scores, strict=False))
    )
    wanted = Counter(
        (int(label), score.tobytes(), box.tobytes())
        for label, score, box in zip(
            *(theirs[key].numpy() for key in ("labels", "scores", "boxes")), strict=True
        )
    )
    # Theirs are without boxes of no area.
    assert wanted <= rows
    assert wanted.total() >= wide.sum() > 0


def test_the_contract_of_proposals(weights: Callable[[str], Path]) -> None:
    detector = opened(LIGHT, weights(LIGHT))
    (found,) = detector([image(50, 83)])
    count = len(found.proposals)
    assert 0 < count <= 12
    assert found.boxes.shape == (count, 90, 4)
    assert found.object_scores.shape == (count, 91)
    assert found.features.shape == (count, detector.feature_size)
    np.testing.assert_allclose(found.object_scores.sum(1), 1, rtol=1e-5)
    for boxes in (found.proposals, found.boxes.reshape(-1, 4)):
        assert (boxes >= 0).all()
        assert (boxes <= [83, 50, 83, 50]).all()
    assert detector.object_labels[:2] == ("person", "bicycle")
    assert detector.profile["network"] == {
        "model": LIGHT,
        "shorter_side": 64,
        "longer_side": 96,
        "num_candidates": 20,
        "num_proposals": 12,
        "rpn_nms": 0.7,
    }


def test_images_of_a_pass_agree_with_single_ones(weights: Callable[[str], Path]) -> None:
    detector = opened(LIGHT, weights(LIGHT))
    several = [image(50, 83), image(40, 40), image(50, 83)[::-1].copy()]
    alone = detector(several)
    detector.images_per_pass = 2
    for one, other in zip(alone, detector(several), strict=True):
        np.testing.assert_allclose(one.features, other.features, rtol=1e-4, atol=1e-4)


def test_given_boxes_are_described(weights: Callable[[str], Path]) -> None:
    detector = opened(LIGHT, weights(LIGHT))
    pixels = image(64, 96)  # of the size it is resized to
    prepared = detector.prepare(pixels)
    (own,) = detector.detect([prepared])
    given = Given(own.proposals, np.full(len(own.proposals), -1), False, "here")
    (again,) = detector.detect([prepared._replace(given=given)])
    np.testing.assert_array_equal(own.features, again.features)
    np.testing.assert_array_equal(own.object_scores, again.object_scores)


def test_weights_with_other_classes_have_numbers_for_names(tmp_path: Path) -> None:
    model = build_model(MODELS[LIGHT], 4)
    torch.save(model.state_dict(), tmp_path / "own.pth")
    detector = opened(LIGHT, tmp_path / "own.pth")
    assert detector.object_labels == ("object 0", "object 1", "object 2")


def test_what_is_said_of_the_files_is_torchvisions_own() -> None:
    for name, spec in KNOWN.items():
        if not name.startswith(PREFIX):
            continue
        assert spec.network == name.removeprefix(PREFIX)
        meta: Any = get_model_weights(spec.network).DEFAULT
        (source,) = spec.sources
        assert source.address == meta.url
        assert source.megabytes == meta.meta["_file_size"]
        assert f"box AP {meta.meta['_metrics']['COCO-val2017']['box_map']}" in spec.what
        assert f"-{source.sha256}." in source.address
    assert {name for name in KNOWN if name.startswith(PREFIX)} == {PREFIX + x for x in MODELS}
    assert DEFAULT == "torchvision:fasterrcnn_resnet50_fpn_v2"


def test_names_that_published_files_have_from_before_are_known(
    weights: Callable[[str], Path], tmp_path: Path
) -> None:
    state = torch.load(weights(LIGHT), weights_only=True)
    before = {
        name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        .replace("blocks.0.0.", "blocks.0.")
        .replace("blocks.1.0.", "blocks.1."): tensor
        for name, tensor in state.items()
    }
    assert len(before.keys() - state.keys()) == 10
    counter = "backbone.body.0.1.num_batches_tracked"
    assert "backbone.body.0.1.running_var" in state
    torch.save(before | {counter: torch.tensor(7)}, tmp_path / "before.pth")
    old, new = opened(LIGHT, tmp_path / "before.pth"), opened(LIGHT, weights(LIGHT))
    assert old.profile == new.profile


def test_weights_of_another_model_are_refused(weights: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="does not fit the network"):
        opened("fasterrcnn_resnet50_fpn", weights(LIGHT))
    with pytest.raises(ConfigError, match="run by torchvision alone"):
        load_detector(PREFIX + LIGHT, backend="detectron2")
    with pytest.raises(ConfigError, match=r"num_proposals must be 1 to"):
        load_detector(PREFIX + LIGHT, weights="x.pth", settings=["num_proposals=0"])
    with pytest.raises(ConfigError, match="did you mean"):
        load_detector("torchvision:fasterrcnn_resnet50_fpn_v3")
