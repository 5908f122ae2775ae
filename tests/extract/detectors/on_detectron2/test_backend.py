"""The detectron2 stage on networks with random weights, against the torchvision backend too."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors import zoo
from semvlp.extract.detectors.batched import Execution
from semvlp.extract.detectors.detector import Proposals
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.images.given import UNKNOWN_CLASS, Given
from semvlp.extract.networks import NETWORKS
from semvlp.extract.select import select
from semvlp.names import Backend

pytest.importorskip("detectron2", reason="detectron2 is not installed; it is built from source")

pytestmark = [
    pytest.mark.detectron2,
    # detectron2 and its dependencies use what newer Python and torch versions deprecate.
    pytest.mark.filterwarnings("ignore"),
]

BACKENDS: tuple[Backend, ...] = ("torchvision", "detectron2")
# Small images and few proposals keep the tests fast; the rules are those of every size.
CONFIG = """
_BASE_: {base}
MODEL:
  WEIGHTS: "{weights}"
  MASK_ON: false
  RESNETS: {{DEPTH: 50}}
  RPN: {{POST_NMS_TOPK_TEST: 12}}
  ROI_HEADS: {{NAME: {heads}, NUM_CLASSES: 5}}
  ROI_ATTRIBUTE_HEAD: {{NUM_CLASSES: 7}}
INPUT: {{MIN_SIZE_TEST: 96, MAX_SIZE_TEST: 160}}
DATASETS: {{TEST: []}}
"""


def write_config(
    folder: Path, *, base: str = "C4", heads: str = "AttributeRes5ROIHeads", weights: str = ""
) -> str:
    from detectron2 import model_zoo

    path = folder / "network.yaml"
    zoo = Path(model_zoo.get_config_file("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml")).parents[1]
    path.write_text(
        CONFIG.format(base=zoo / f"Base-RCNN-{base}.yaml", heads=heads, weights=weights)
    )
    return str(path)


def images(*shapes: tuple[int, int]) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in shapes]


def arrays(proposals: Proposals) -> dict[str, NDArray[np.float32]]:
    names = ("proposals", "boxes", "object_scores", "attribute_scores", "features")
    return {name: getattr(proposals, name) for name in names}


@pytest.mark.parametrize(
    ("base", "heads", "features", "attributes"),
    [
        ("C4", "AttributeRes5ROIHeads", 2048, 7),
        ("C4", "Res5ROIHeads", 2048, 0),
        ("FPN", "StandardROIHeads", 1024, 0),
    ],
)
def test_the_contract_of_proposals(
    tmp_path: Path, base: str, heads: str, features: int, attributes: int
) -> None:
    config = write_config(tmp_path, base=base, heads=heads)
    detector = load_detector(config, device="cpu")
    several = images((90, 140), (120, 100), (90, 140))
    together = detector(several)
    assert detector.feature_size == features
    assert len(detector.attribute_labels) == attributes
    for image, found in zip(several, together, strict=True):
        height, width = image.shape[:2]
        count = len(found.proposals)
        assert 0 < count <= 12
        assert (found.width, found.height) == (width, height)
        assert found.boxes.shape == (count, 5, 4)
        assert found.object_scores.shape == (count, 6)
        assert found.attribute_scores.shape == (count, attributes)
        assert found.features.shape == (count, features)
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [width, height, width, height]).all()
        np.testing.assert_allclose(found.object_scores.sum(1), 1, rtol=1e-5)
        # Each image as if it were alone, and the same every time.
        for name, array in arrays(detector([image])[0]).items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, arrays(found)[name])


def test_regions_are_selected_from_it(tmp_path: Path) -> None:
    from semvlp.extract.detectors.on_detectron2.backend import Detectron2Detector, open_config

    found = open_config(write_config(tmp_path), None, Execution())
    assert isinstance(found, Detectron2Detector)
    (proposals,) = found(images((90, 140)))
    # Random frozen batch norms let features grow beyond what trained ones reach.
    scaled = replace(proposals, features=proposals.features / proposals.features.max())
    regions = select(
        scaled, image_id="a", preset="top_100", min_regions=1, max_regions=100, profile="p"
    )
    assert 0 < len(regions) <= 12
    assert regions.features.shape == (len(regions), 2048)


def test_random_weights_are_the_same_every_time_and_the_profile_follows_the_config(
    tmp_path: Path,
) -> None:
    from semvlp.extract.detectors.on_detectron2.backend import open_config

    config = write_config(tmp_path)
    first, second = (open_config(config, None, Execution()) for _ in range(2))
    assert first.profile == second.profile
    fewer = open_config(config, None, Execution(), ["MODEL.RPN.POST_NMS_TOPK_TEST=5"])
    assert fewer.profile["config_sha256"] != first.profile["config_sha256"]
    assert fewer.profile["weights_sha256"] == first.profile["weights_sha256"]


def test_weights_are_loaded_strictly(tmp_path: Path) -> None:
    torch.save({"backbone.stem.conv1.weight": torch.zeros(2)}, tmp_path / "weights.pth")
    config = write_config(tmp_path, weights=str(tmp_path / "weights.pth"))
    with pytest.raises(InputError, match=r"weights\.pth does not fit the network: .* is missing"):
        load_detector(config, device="cpu")


def test_stored_constants_must_be_those_of_the_config(tmp_path: Path) -> None:
    from semvlp.extract.detectors.on_detectron2.backend import build_network, open_config
    from semvlp.extract.detectors.on_detectron2.cfg import read_config

    name, weights = write_config(tmp_path), str(tmp_path / "weights.pth")
    detector = open_config(name, None, Execution())
    model = build_network(read_config(name), Execution(), name)
    cells = "proposal_generator.anchor_generator.cell_anchors.0"
    stored = {each: dict(model.named_buffers())[each] for each in ("pixel_mean", cells)}
    torch.save({"model": model.state_dict() | stored}, weights)
    loaded = open_config(name, weights, Execution())
    assert loaded.profile["weights_sha256"] == detector.profile["weights_sha256"]
    stored[cells] = stored[cells] / 2
    torch.save({"model": model.state_dict() | stored}, weights)
    with pytest.raises(InputError, match=r"weights\.pth: .*cell_anchors.* other anchors"):
        open_config(name, weights, Execution())


def test_networks_that_select_on_their_own_are_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path, base="FPN", heads="CascadeROIHeads")
    text = (
        Path(config)
        .read_text()
        .replace("INPUT:", "  ROI_BOX_HEAD: {CLS_AGNOSTIC_BBOX_REG: true}\nINPUT:")
    )
    Path(config).write_text(text)
    with pytest.raises(ConfigError, match="found GeneralizedRCNN with CascadeROIHeads"):
        load_detector(config, device="cpu")


def test_a_head_that_ends_in_convolutions_gives_flat_features(tmp_path: Path) -> None:
    config = write_config(tmp_path, base="FPN", heads="StandardROIHeads")
    head = ["NUM_CONV=1", "NUM_FC=0", "CONV_DIM=8", "POOLER_RESOLUTION=3"]
    settings = [f"MODEL.ROI_BOX_HEAD.{each}" for each in head]
    detector = load_detector(config, device="cpu", settings=settings)
    (found,) = detector(images((90, 140)))
    assert detector.feature_size == 8 * 3 * 3
    assert found.features.shape == (len(found.proposals), detector.feature_size)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("INPUT.FORMAT=YUV-BT.601", "INPUT.FORMAT must be BGR or RGB, found 'YUV-BT.601'"),
        ("MODEL.ROI_HEADS.NAME=MyHeads", "detectron2 cannot build its network .*MyHeads"),
        ("MODEL.RESNETS.DEPTH=51", "detectron2 cannot build its network .*51"),
    ],
)
def test_what_no_network_can_be_is_refused(tmp_path: Path, setting: str, message: str) -> None:
    config = write_config(tmp_path)
    with pytest.raises(ConfigError, match=rf"{config}: {message}"):
        load_detector(config, device="cpu", settings=[setting])


def test_published_classes_have_the_names_they_have_in_torchvision(tmp_path: Path) -> None:
    network = FasterRCNN(NETWORKS["resnet50_c4"], num_objects=80, num_attributes=0)
    weights = str(tmp_path / "weights.pth")
    torch.save(network.state_dict(), weights)
    ours, theirs = (
        load_detector("coco-r50-c4", weights=weights, backend=backend, device="cpu")
        for backend in BACKENDS
    )
    assert ours.object_labels[:2] == theirs.object_labels[:2] == ("person", "bicycle")


@pytest.mark.parametrize("setting", ["INPUT.MIN_SIZE=5", "INPUT.MIN_SIZE_TEST", "nothing"])
def test_a_setting_that_is_none_of_detectron2s_is_refused(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"--set {setting}: must be KEY=value"):
        load_detector(write_config(tmp_path), device="cpu", settings=[setting])


def test_a_network_that_reads_its_proposals_from_files_is_refused(tmp_path: Path) -> None:
    """As detectron2's own fast_rcnn_R_50_FPN_1x.yaml is."""
    settings = ["MODEL.LOAD_PROPOSALS=True", "MODEL.PROPOSAL_GENERATOR.NAME=PrecomputedProposals"]
    with pytest.raises(ConfigError, match="must propose regions itself"):
        load_detector(write_config(tmp_path), device="cpu", settings=settings)


def test_more_regions_than_fit_at_once_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semvlp.extract.detectors.on_detectron2 import backend as detectron2_backend

    detector = load_detector(write_config(tmp_path), device="cpu")
    (whole,) = detector(images((90, 140)))
    monkeypatch.setattr(detectron2_backend, "REGIONS_AT_ONCE", 5)
    (parts,) = detector(images((90, 140)))
    for name, array in arrays(whole).items():
        np.testing.assert_allclose(arrays(parts)[name], array, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("base", "heads"), [("C4", "AttributeRes5ROIHeads"), ("FPN", "AttributeStandardROIHeads")]
)
def test_its_own_proposals_given_back_are_equal_to_the_bit(
    tmp_path: Path, base: str, heads: str
) -> None:
    detector = load_detector(write_config(tmp_path, base=base, heads=heads), device="cpu")
    # Of the size it is resized to, so that nothing is rounded.
    prepared = detector.prepare(images((96, 128))[0])
    (own,) = detector.detect([prepared])
    classes = np.full(len(own.proposals), UNKNOWN_CLASS)
    given = Given(own.proposals, classes, False, "here")
    (again,) = detector.detect([prepared._replace(given=given)])
    for name, array in arrays(own).items():
        np.testing.assert_array_equal(arrays(again)[name], array, err_msg=name)
    (both,) = detector.detect([prepared._replace(given=given._replace(and_detected=True))])
    np.testing.assert_array_equal(both.proposals, np.tile(own.proposals, (2, 1)))


def test_a_name_that_is_neither_file_nor_zoo_is_refused() -> None:
    with pytest.raises(ConfigError, match="no name in detectron2's model zoo"):
        load_detector("COCO-Detection/none.yaml", device="cpu")


def test_a_zoo_name_takes_the_zoos_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from semvlp.extract.detectors.on_detectron2 import backend as detectron2_backend

    asked = []

    def refuse(address: str) -> Path:
        asked.append(address)
        raise InputError("offline")

    monkeypatch.setattr(detectron2_backend, "fetch", refuse)
    monkeypatch.setattr(zoo, "fetch", refuse)
    with pytest.raises(InputError, match="offline"):
        load_detector("COCO-Detection/faster_rcnn_R_50_C4_3x.yaml", device="cpu")
    with pytest.raises(InputError, match="semvlp detector train"):
        load_detector("coco-r50-c4", backend="detectron2", device="cpu")
    assert asked[0] == asked[1]
    assert asked[0].endswith("137849393/model_final_f97cb7.pkl")
