"""The torchvision detector: what comes out, and that it depends on nothing but the image."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from semvlp.extract.detectors.batched import Execution
from semvlp.extract.detectors.detector import Proposals
from semvlp.extract.detectors.on_torchvision import faster_rcnn
from semvlp.extract.detectors.on_torchvision.backend import TorchvisionDetector, open_untrained
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN, Predictor, Target
from semvlp.extract.detectors.on_torchvision.rpn import Anchors, cell_anchors
from semvlp.extract.images.resize import ResizeRule, resize
from semvlp.extract.networks import NETWORKS, SMALL, NetworkConfig

CPU = Execution()
OBJECTS, ATTRIBUTES = ("cup", "cat", "box"), ("red", "big")
# A pass of several images sums in another order than one of a single image.
BATCH_TOLERANCE = 1e-4
# bf16 keeps 8 bits: features agree in direction, not in digits.
BF16_COSINE = 0.99
TINY = {"shorter_side": 32, "longer_side": 48, "num_proposals": 4}
TINY_C4 = replace(NETWORKS["resnet50_c4"], **TINY)
TINY_FPN = replace(NETWORKS["resnet50_fpn"], **TINY)


def network(config: NetworkConfig = SMALL) -> FasterRCNN:
    """Random weights that spread boxes and scores as trained ones do."""
    torch.manual_seed(0)
    made = FasterRCNN(config, num_objects=len(OBJECTS), num_attributes=len(ATTRIBUTES))
    with torch.no_grad():
        made.predictor.objects.weight.mul_(20)
        made.predictor.boxes.weight.mul_(100)
        made.rpn.head.bbox_pred.weight.mul_(10)
    return made


def detector(
    config: NetworkConfig = SMALL, *, images_per_pass: int | None = None, execution: Execution = CPU
) -> TorchvisionDetector:
    made = network(config)
    return TorchvisionDetector(
        made, OBJECTS, ATTRIBUTES, execution, images_per_pass=images_per_pass
    )


def images(*shapes: tuple[int, int]) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in shapes]


def arrays(proposals: Proposals) -> list[NDArray[np.float32]]:
    return [
        proposals.proposals,
        proposals.boxes,
        proposals.object_scores,
        proposals.attribute_scores,
        proposals.features,
    ]


@pytest.mark.parametrize("config", [SMALL, TINY_C4, TINY_FPN], ids=["small", "c4", "fpn"])
def test_the_contract_of_proposals(config: NetworkConfig) -> None:
    (found,) = detector(config)(images((50, 83)))
    count = len(found.proposals)
    assert 0 < count <= config.num_proposals
    assert (found.width, found.height) == (83, 50)
    assert found.boxes.shape == (count, 3, 4)
    assert found.object_scores.shape == (count, 4)
    assert found.attribute_scores.shape == (count, 2)
    assert found.features.shape == (count, config.feature_size)
    for array in arrays(found):
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    for boxes in (found.proposals, found.boxes.reshape(-1, 4)):
        assert (boxes >= 0).all()
        assert (boxes <= [83, 50, 83, 50]).all()
        assert (boxes[:, 2:] >= boxes[:, :2]).all()
    np.testing.assert_allclose(found.object_scores.sum(1), 1, rtol=1e-5)
    # "none" took its part of the probability before it was left out.
    assert (found.attribute_scores.sum(1) < 1).all()
    assert (found.features >= 0).all()
    # fp16, in which features are stored, holds them.
    assert found.features.max() < 60_000


def test_neighbours_change_no_bit() -> None:
    run = detector()
    several = images((40, 60), (64, 48), (40, 60), (33, 57))
    together = run(several)
    for image, found in zip(several, together, strict=True):
        for one, other in zip(arrays(run([image])[0]), arrays(found), strict=True):
            np.testing.assert_array_equal(one, other)


def test_passes_of_several_images_agree_with_single_ones_and_keep_the_order() -> None:
    several = images((40, 60), (64, 48), (40, 60), (40, 60))
    alone, together = detector(images_per_pass=1)(several), detector(images_per_pass=2)(several)
    for one, other in zip(alone, together, strict=True):
        assert (one.width, one.height) == (other.width, other.height)
        for a, b in zip(arrays(one), arrays(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=BATCH_TOLERANCE, atol=BATCH_TOLERANCE * 100)


def test_more_regions_than_fit_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = detector()
    several = images((40, 60), (40, 60))
    whole = run(several)
    monkeypatch.setattr(faster_rcnn, "REGIONS_AT_ONCE", 7)
    for one, other in zip(whole, run(several), strict=True):
        assert len(one.proposals) > 7
        for a, b in zip(arrays(one), arrays(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=BATCH_TOLERANCE, atol=BATCH_TOLERANCE)


def test_an_image_that_was_resized_gets_boxes_in_its_own_pixels() -> None:
    plain = detector()
    doubled = detector(replace(SMALL, shorter_side=80, longer_side=200))
    (image,) = images((40, 60))
    small, large = plain([resize(image, ResizeRule(80, 200)).pixels])[0], doubled([image])[0]
    assert (small.width, large.width) == (120, 60)
    np.testing.assert_allclose(small.boxes / 2, large.boxes, atol=1e-4)
    np.testing.assert_array_equal(small.features, large.features)


def test_the_colour_order_is_that_of_the_config() -> None:
    rgb, bgr = SMALL, replace(SMALL, channel_order="bgr")
    (image,) = images((40, 60))
    straight, swapped = detector(rgb)([image])[0], detector(bgr)([image[..., ::-1].copy()])[0]
    np.testing.assert_array_equal(straight.features, swapped.features)


def test_bf16_keeps_boxes_and_probabilities_in_fp32() -> None:
    several = images((64, 64))
    (full,) = detector()(several)
    (half,) = detector(execution=Execution("cpu", "bf16"))(several)
    np.testing.assert_allclose(half.object_scores.sum(1), 1, rtol=1e-5)
    # Boxes that had been rounded to bf16 would lie on a coarse grid.
    assert (half.proposals != torch.from_numpy(half.proposals).bfloat16().float().numpy()).any()
    a, b = full.features.mean(0), half.features.mean(0)
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > BF16_COSINE


def test_the_profile_holds_everything_that_shapes_the_numbers() -> None:
    one = detector().profile
    assert one == detector(images_per_pass=4).profile
    assert one != detector(replace(SMALL, rpn_nms=0.6)).profile
    assert one != detector(execution=Execution("cpu", "bf16")).profile


def test_untrained_is_the_same_every_time() -> None:
    first, second = (open_untrained(SMALL, Execution()).profile for _ in range(2))
    assert first["weights_sha256"] == second["weights_sha256"]


def test_anchors_are_torchvisions_but_for_rounding_and_order() -> None:
    ours = Anchors(cell_anchors(replace(SMALL, anchor_sizes=(32, 64)), [16]), [16])
    theirs = AnchorGenerator(((32, 64),), ((0.5, 1.0, 2.0),))
    batch, feature_map = torch.zeros(1, 3, 48, 64), torch.zeros(1, 1, 3, 4)
    (got,) = ours(ImageList(batch, [(48, 64)]), [feature_map])
    (want,) = theirs(ImageList(batch, [(48, 64)]), [feature_map])
    # Theirs has ratios outside, sizes inside.
    want = want.view(12, 3, 2, 4).transpose(1, 2).reshape(-1, 4)
    assert got.shape == want.shape
    assert (got.round() - want).abs().max() <= 1


def test_anchors_of_caffe_are_the_published_ones() -> None:
    """The nine anchors in the comment of py-faster-rcnn's generate_anchors.py, scales 8, 16, 32."""
    config = replace(NETWORKS["resnet101_c4_caffe"], anchor_sizes=(128, 256, 512))
    (cells,) = cell_anchors(config, [16])
    assert (cells + 1).tolist() == [
        [-83, -39, 100, 56],
        [-175, -87, 192, 104],
        [-359, -183, 376, 200],
        [-55, -55, 72, 72],
        [-119, -119, 136, 136],
        [-247, -247, 264, 264],
        [-35, -79, 52, 96],
        [-79, -167, 96, 184],
        [-167, -343, 184, 360],
    ]


def test_the_stride_of_anchors_does_not_depend_on_the_image_size() -> None:
    anchors = Anchors([torch.tensor([[-5.0, -5.0, 5.0, 5.0]])], [4])
    (got,) = anchors(ImageList(torch.zeros(1, 3, 9, 9), [(9, 9)]), [torch.zeros(1, 1, 3, 3)])
    assert got[-1].tolist() == [3.0, 3.0, 13.0, 13.0]


def test_a_region_without_attribute_annotation_teaches_no_attribute() -> None:
    predictor = Predictor(SMALL, 3, 2)
    features, labels = torch.rand(2, 256), torch.tensor([0, 1])
    known, unknown = torch.tensor([0.5, 0.5, 0.0]), torch.zeros(3)
    both = predictor.losses(features, labels, torch.zeros(2, 4), torch.stack([known, unknown]))
    alone = predictor.losses(features[:1], labels[:1], torch.zeros(1, 4), known[None])
    torch.testing.assert_close(both["loss_attribute"], alone["loss_attribute"])
    logits = predictor.attribute_logits(features[:1], labels[:1]).log_softmax(-1)[0]
    torch.testing.assert_close(alone["loss_attribute"], -(logits[0] + logits[1]) / 2)


def test_background_regions_learn_their_class_and_nothing_else() -> None:
    predictor = Predictor(SMALL, 3, 2)
    background = torch.full((4,), 3)
    losses = predictor.losses(
        torch.rand(4, 256), background, torch.ones(4, 4), torch.ones(4, 3) / 3
    )
    assert losses["loss_object"] > 0
    assert losses["loss_box"] == 0
    assert losses["loss_attribute"] == 0


def test_losses_are_finite_on_an_image_without_objects() -> None:
    made = network().train()
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3))
    losses = made.losses(torch.zeros(1, 3, 40, 60, dtype=torch.uint8), [nothing])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_box"] == 0
