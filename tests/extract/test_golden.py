"""What the published Caffe rows of ten photographs say of our networks, without their weights.

airsplay/py-bottom-up-attention demo/data/caffe_coco_features/train2014_obj36.tsv: real output of
the original bottom-up attention. Boxes are xyxy in pixels of the photograph.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from semvlp.extract.detectors.on_torchvision.rpn import clip
from semvlp.extract.images.find import find_images, load
from semvlp.extract.images.resize import Resized, ResizeRule, resize
from semvlp.extract.networks import NETWORKS, NetworkConfig, Variant
from semvlp.extract.presets import PRESETS
from semvlp.shards.formats.systems.bottom_up_tsv import open_lxmert_tsv

CAFFE = NETWORKS["resnet101_c4_caffe"]
# Published as float32 of a quotient.
PIXELS = 1e-3


class Published(NamedTuple):
    """A photograph and its row."""

    resized: Resized
    boxes: NDArray[np.float32]
    features: NDArray[np.float32]
    object_ids: NDArray[np.int64]
    object_conf: NDArray[np.float32]
    attribute_ids: NDArray[np.int64]
    attribute_conf: NDArray[np.float32]


def variant(config: NetworkConfig) -> Variant:
    assert config.variant is not None
    return config.variant


@pytest.fixture(scope="module")
def published(real_data: Path) -> list[Published]:
    folder = real_data / "butd_golden"
    rows = open_lxmert_tsv(folder / "train2014_obj36.tsv")
    found = []
    for file in find_images(folder / "images"):
        row, image = rows.read(file.image_id), load(file)
        assert image.shape[:2] == (row.height, row.width)
        found.append(
            Published(
                resized=resize(image, ResizeRule.of(CAFFE)),
                boxes=np.asarray(row.boxes, np.float32),
                features=np.asarray(row.features, np.float32),
                object_ids=np.asarray(row.object_ids),
                object_conf=np.asarray(row.object_conf, np.float32),
                attribute_ids=np.asarray(row.attribute_ids),
                attribute_conf=np.asarray(row.attribute_conf, np.float32),
            )
        )
    assert len(found) == 10
    return found


def border(config: NetworkConfig, resized: Resized) -> list[float]:
    """The corner that no box of a network exceeds, in pixels of the photograph."""
    everything = torch.tensor([-9.0, -9.0, 9e9, 9e9])
    size = (resized.pixels.shape[0], resized.pixels.shape[1])
    x, y = clip(everything, size, convention=variant(config).box_convention)[2:].tolist()
    return [x * resized.back[0], y * resized.back[1]]


def test_boxes_end_where_our_caffe_network_clips_them(published: list[Published]) -> None:
    """At the last pixel of the photograph resized by Caffe's rule, brought back by its factor."""
    touched = 0
    for each in published:
        limit = np.array(border(CAFFE, each.resized))
        corners = each.boxes[:, 2:]
        assert (corners <= limit + PIXELS).all()
        assert (each.boxes >= 0).all()
        touched += int((np.abs(corners - limit) < PIXELS).any(0).sum())
    assert touched >= 18, "almost every photograph has boxes at both borders"


def test_the_border_of_other_networks_is_not_caffes(published: list[Published]) -> None:
    """The check above can fail: without the last pixel, boxes would end elsewhere."""
    exclusive = NETWORKS["resnet101_c4_butd"]
    for each in published:
        corners = each.boxes[:, 2:].max(0)
        assert (np.array(border(exclusive, each.resized)) - corners > 0.5).all()


def test_no_proposal_is_smaller_than_caffes(published: list[Published]) -> None:
    smallest = variant(CAFFE).min_size
    for each in published:
        # The last pixel of the resized image is part of a box.
        sides = each.boxes[:, 2:] - each.boxes[:, :2] + np.float32(each.resized.back[0])
        assert sides.min() > smallest - PIXELS


def test_a_row_is_what_the_preset_and_the_network_give(published: list[Published]) -> None:
    for each in published:
        assert len(each.boxes) == PRESETS["butd_36"].max_regions
        assert each.features.shape == (36, CAFFE.feature_size)
        assert each.features.min() == 0
        assert 24 < each.features.max() < 36
        # The mean of a ReLU over a region is exactly zero where nothing in it is found.
        assert 0.2 < (each.features == 0).mean() < 0.4
        assert 0 <= each.object_ids.min() <= each.object_ids.max() < 1600
        assert 0 <= each.attribute_ids.min() <= each.attribute_ids.max() < 400
        for confidence in (each.object_conf, each.attribute_conf):
            assert 0 < confidence.min() <= confidence.max() < 1
