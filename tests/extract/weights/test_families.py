"""Checkpoints of other systems: told apart by shape, converted both ways, never loaded in part."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from semvlp.errors import InputError
from semvlp.extract.detectors.known import KNOWN
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN
from semvlp.extract.detectors.published import constants_of, count_labels, read_published
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.networks import NETWORKS
from semvlp.extract.weights.checkpoint import load_strict, state_sha256
from semvlp.extract.weights.families import (
    BUTD,
    CAFFE,
    DETECTRON2,
    DETECTRON2_FPN,
    FAMILIES,
    MILVLG,
    VINVL,
    Family,
    family_of,
    from_ours,
    to_ours,
)

# A few tensors of a network are enough to see what happens to each kind of them.
CLASSES, KINDS, CELLS = 5, 3, 4


def small_state() -> dict[str, Tensor]:
    """Tensors under our names, no two alike, with batch norms that are no identity."""
    shapes = {
        "trunk.conv1.weight": (2, 3, 7, 7),
        "trunk.layer3.1.conv2.weight": (2, 2, 3, 3),
        "trunk.layer4.0.downsample.0.weight": (4, 2, 1, 1),
        **{
            f"trunk.{norm}.{part}": (2,)
            for norm in ("bn1", "layer1.0.bn2", "layer4.0.downsample.1")
            for part in ("weight", "bias", "running_mean", "running_var")
        },
        "rpn.head.conv.0.0.weight": (512, 2, 3, 3),
        "rpn.head.cls_logits.weight": (CELLS, 512, 1, 1),
        "rpn.head.cls_logits.bias": (CELLS,),
        "rpn.head.bbox_pred.weight": (4 * CELLS, 512, 1, 1),
        "predictor.objects.weight": (CLASSES + 1, 8),
        "predictor.objects.bias": (CLASSES + 1,),
        "predictor.boxes.weight": (4 * CLASSES, 8),
        "predictor.boxes.bias": (4 * CLASSES,),
        "predictor.class_embedding.weight": (CLASSES + 1, 4),
        "predictor.attribute_hidden.weight": (6, 12),
        "predictor.attributes.weight": (KINDS + 1, 6),
        "predictor.attributes.bias": (KINDS + 1,),
    }
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(shape, generator=generator) + 0.5 if shape else torch.zeros(shape)
        for name, shape in shapes.items()
    }


_ATTRIBUTE_HEAD = ("predictor.attribute", "predictor.class_embedding")


def theirs_of(family: Family) -> dict[str, Tensor]:
    """A checkpoint of a family, with values of its own where ours has none."""
    ours = small_state()
    if family is DETECTRON2:
        # Its hidden layer is as wide as its features, and the model zoo has no attributes.
        ours["rpn.head.conv.0.0.weight"] = torch.zeros(1024, 2, 3, 3)
        ours = {name: each for name, each in ours.items() if not name.startswith(_ATTRIBUTE_HEAD)}
    theirs = from_ours(ours, family)
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(each.shape, generator=generator) for name, each in theirs.items()}


def converted(theirs: dict[str, Tensor], family: Family) -> dict[str, Tensor]:
    return to_ours(theirs, family, constants_of(NETWORKS[family.networks[0]]), "file")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_there_and_back_and_there(family: Family) -> None:
    """The way back loses only what makes no difference, so the second way there is the first."""
    ours = converted(theirs_of(family), family)
    again = converted(from_ours(ours, family), family)
    assert again.keys() == ours.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=1e-7)


@pytest.mark.parametrize("family", [BUTD, DETECTRON2], ids=["butd", "detectron2"])
def test_families_in_our_order_keep_every_value(family: Family) -> None:
    ours = small_state()
    again = converted(from_ours(ours, family), family)
    assert all(again[name] is tensor for name, tensor in ours.items())


PREDICTOR = {CAFFE: "roi_heads.box_predictor", VINVL: "roi_heads.box.predictor"}
ATTRIBUTES = {
    CAFFE: "roi_heads.box_predictor.attr_linear2",
    VINVL: "attribute.predictor.attr_score",
}


@pytest.mark.parametrize("family", [CAFFE, VINVL], ids=["caffe", "vinvl"])
def test_what_stands_first_there_stands_last_here(family: Family) -> None:
    theirs = theirs_of(family)
    ours = converted(theirs, family)
    for part in ("weight", "bias"):
        classes = theirs[f"{PREDICTOR[family]}.cls_score.{part}"]
        assert torch.equal(ours[f"predictor.objects.{part}"][-1], classes[0])
        assert torch.equal(ours[f"predictor.objects.{part}"][:-1], classes[1:])
        boxes = theirs[f"{PREDICTOR[family]}.bbox_pred.{part}"]
        assert len(boxes) == 4 * (CLASSES + 1)
        assert torch.equal(ours[f"predictor.boxes.{part}"], boxes[4:])
        kinds = theirs[f"{ATTRIBUTES[family]}.{part}"]
        assert torch.equal(ours[f"predictor.attributes.{part}"][-1], kinds[0])
        assert torch.equal(ours[f"predictor.attributes.{part}"][:-1], kinds[1:])


def test_a_pair_of_logits_becomes_one_of_the_same_probability() -> None:
    # Sums of 512 in float32 would differ by their rounding.
    theirs = {name: tensor.double() for name, tensor in theirs_of(CAFFE).items()}
    ours = converted(theirs, CAFFE)
    head = "proposal_generator.rpn_head.objectness_logits"
    hidden = torch.rand(1, 512, 2, 2, dtype=torch.float64)
    pairs = F.conv2d(hidden, theirs[f"{head}.weight"], theirs[f"{head}.bias"])
    # bua/caffe/modeling/rpn_outputs.py: (2 N) channels are 2 times N, background first.
    wanted = pairs.view(1, 2, CELLS, 2, 2).softmax(1)[:, 1]
    logits = F.conv2d(hidden, ours["rpn.head.cls_logits.weight"], ours["rpn.head.cls_logits.bias"])
    torch.testing.assert_close(logits.sigmoid(), wanted, rtol=1e-9, atol=1e-12)


def test_batch_norms_without_eps_give_the_same_numbers() -> None:
    theirs = theirs_of(VINVL)
    theirs["backbone.body.stem.bn1.running_var"][0] = 1e-7  # a dead channel, far below eps
    ours = converted(theirs, VINVL)
    x = torch.rand(2, 2, 3, 3)

    def norm(state: dict[str, Tensor], name: str, eps: float) -> Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{name}.{part}"] for part in parts), eps=eps)

    theirs_gives = norm(theirs, "backbone.body.stem.bn1", 0.0)
    torch.testing.assert_close(norm(ours, "trunk.bn1", 1e-5), theirs_gives, rtol=1e-5, atol=1e-3)


def test_attributes_without_none_keep_their_probabilities() -> None:
    theirs = theirs_of(MILVLG)
    ours = converted(theirs, MILVLG)
    hidden = torch.rand(4, 6)
    name = "roi_heads.attribute_predictor.attr_score"
    wanted = (hidden @ theirs[f"{name}.weight"].T + theirs[f"{name}.bias"]).softmax(-1)
    logits = hidden @ ours["predictor.attributes.weight"].T + ours["predictor.attributes.bias"]
    torch.testing.assert_close(logits.softmax(-1)[:, :-1], wanted)
    assert (logits.softmax(-1)[:, -1] == 0).all()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_what_wrappers_add_to_a_file_is_left_out(tmp_path: Path, family: Family) -> None:
    plain = theirs_of(family)
    counter = {"backbone.stem.conv1.norm.num_batches_tracked": torch.tensor(7)}
    wrapped = {f"module.{name}": tensor for name, tensor in (plain | counter).items()}
    torch.save({"model": wrapped}, tmp_path / "wrapped.pth")
    found = read_published(tmp_path / "wrapped.pth", family.networks[0])
    wanted = converted(plain, family)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_weights_of_our_own_may_be_wrapped_too(tmp_path: Path) -> None:
    ours = small_state()
    torch.save({f"module.{name}": each for name, each in ours.items()}, tmp_path / "wrapped.pth")
    assert read_published(tmp_path / "wrapped.pth", "resnet50_c4").keys() == ours.keys()


def test_a_prefix_of_some_names_alone_is_part_of_them(tmp_path: Path) -> None:
    mixed = theirs_of(BUTD)
    mixed["module.backbone.stem.conv1.weight"] = mixed.pop("backbone.stem.conv1.weight")
    torch.save(mixed, tmp_path / "mixed.pth")
    with pytest.raises(InputError, match=r"mixed\.pth: module\.backbone\.stem"):
        read_published(tmp_path / "mixed.pth", "resnet101_c4_butd")


def test_a_tied_region_stage_must_be_tied() -> None:
    theirs = theirs_of(VINVL)
    stage = "feature_extractor.head.layer4.0.downsample.0.weight"
    theirs[f"attribute.{stage}"] = theirs[f"roi_heads.box.{stage}"].clone()
    assert converted(theirs, VINVL).keys() == small_state().keys()
    theirs[f"attribute.{stage}"] += 1
    with pytest.raises(InputError, match=r"attribute\.feature_extractor.* the box head"):
        converted(theirs, VINVL)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        (BUTD, "proposal_generator.anchor_generator.cell_anchors.0"),
        (CAFFE, "proposal_generator.anchor_generator.cell_anchors.0"),
        (DETECTRON2_FPN, "proposal_generator.anchor_generator.cell_anchors.3"),
        (VINVL, "rpn.anchor_generator.cell_anchors.0"),
    ],
    ids=["butd", "caffe", "fpn", "vinvl"],
)
def test_stored_anchors_must_be_the_networks(family: Family, name: str) -> None:
    theirs = theirs_of(family)
    cell = constants_of(NETWORKS[family.networks[0]])[f"cell.{name[-1]}"]
    assert converted(theirs | {name: cell}, family).keys() == small_state().keys()
    with pytest.raises(InputError, match=r"file: .*cell_anchors.* other anchors"):
        converted(theirs | {name: cell / 16}, family)


def test_stored_pixel_values_must_be_the_networks() -> None:
    wrong = theirs_of(DETECTRON2) | {"pixel_mean": torch.tensor([123.675, 116.28, 103.53])}
    with pytest.raises(InputError, match="pixel_mean must be"):
        converted(wrong, DETECTRON2)


def test_a_tensor_no_table_names_is_refused() -> None:
    theirs = theirs_of(DETECTRON2) | {"roi_heads.mask_head.deconv.weight": torch.zeros(1)}
    with pytest.raises(InputError, match=r"file: roi_heads\.mask_head\.deconv\.weight"):
        converted(theirs, DETECTRON2)


def test_weights_of_no_known_family_are_refused() -> None:
    with pytest.raises(InputError, match="no known family"):
        family_of({"model.layers.0.weight": torch.zeros(1)}, "file")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_weights_for_another_network_say_for_which(tmp_path: Path, family: Family) -> None:
    torch.save({"model": theirs_of(family)}, tmp_path / "w.pth")
    kinds = 0 if family is DETECTRON2 else KINDS
    ours = read_published(tmp_path / "w.pth", family.networks[0])
    assert count_labels(ours, "w.pth") == (CLASSES, kinds)
    other = next(each for each in FAMILIES if each is not family)
    with pytest.raises(InputError, match=f"weights of {family.name}.*{family.networks[0]}"):
        read_published(tmp_path / "w.pth", other.networks[0])


def test_every_published_detector_reads_a_family() -> None:
    networks = [network for family in FAMILIES for network in family.networks]
    assert sorted(networks) == sorted(
        spec.network for spec in KNOWN.values() if spec.published and spec.network in NETWORKS
    )


@pytest.fixture(scope="module")
def butd_pickle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole network as airsplay's file holds it: a pickle of NumPy arrays."""
    path = tmp_path_factory.mktemp("butd") / "faster_rcnn.pkl"
    torch.manual_seed(0)
    network = FasterRCNN(NETWORKS["resnet101_c4_butd"], num_objects=9, num_attributes=4)
    theirs = from_ours(network.state_dict(), BUTD)
    arrays = {name: tensor.numpy() for name, tensor in theirs.items()}
    path.write_bytes(pickle.dumps({"model": arrays}))
    return path


def test_a_whole_published_file_opens_by_name(butd_pickle: Path) -> None:
    detector = load_detector(
        "butd",
        weights=str(butd_pickle),
        device="cpu",
        settings=["shorter_side=64", "longer_side=96", "num_proposals=8"],
    )
    assert len(detector.object_labels) == 9
    assert len(detector.attribute_labels) == 4
    assert detector.profile["network"]["shorter_side"] == 64
    torch.manual_seed(0)
    network = FasterRCNN(NETWORKS["resnet101_c4_butd"], num_objects=9, num_attributes=4)
    assert detector.profile["weights_sha256"] == state_sha256(network.state_dict())


def test_a_deeper_pyramid_is_not_loaded_into_a_shallower() -> None:
    with torch.device("meta"):
        deep, shallow = (
            FasterRCNN(NETWORKS[name], num_objects=9, num_attributes=0)
            for name in ("resnet101_fpn", "resnet50_fpn")
        )
    theirs = from_ours(deep.state_dict(), DETECTRON2_FPN)
    del theirs["backbone.fpn_lateral4.bias"]
    ours = to_ours(theirs, DETECTRON2_FPN, constants_of(deep.config), "w.pkl")
    with pytest.raises(InputError, match=r"w\.pkl .*inner_blocks\.2\.0\.bias is missing"):
        load_strict(deep, ours, "w.pkl")
    with pytest.raises(InputError, match=r"layer3\.6\.conv1\.weight is not part of the network"):
        load_strict(shallow, ours, "w.pkl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("roi_heads.res5.2.conv3.norm.bias"), "is missing"),
        (
            lambda state: state.update({"backbone.res4.23.conv1.weight": torch.zeros(1)}),
            "is not part of the network",
        ),
        (
            lambda state: state.update({"backbone.stem.conv1.weight": torch.zeros(64, 4, 7, 7)}),
            "must be 64x3x7x7, found 64x4x7x7",
        ),
    ],
    ids=["missing", "unexpected", "mis-shaped"],
)
def test_nothing_is_loaded_in_part(
    change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    config = replace(NETWORKS["resnet101_c4_butd"], num_proposals=8)
    network = FasterRCNN(config, num_objects=9, num_attributes=4)
    theirs = from_ours(network.state_dict(), BUTD)
    change(theirs)
    ours = to_ours(theirs, BUTD, constants_of(config), "w.pkl")
    with pytest.raises(InputError, match=message):
        load_strict(network, ours, "w.pkl")
