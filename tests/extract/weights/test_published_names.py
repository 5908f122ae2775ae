"""Files with every published name and shape: each tensor lands in the layer its name says.

The lists of names are `published_layouts`', the tables that are tested `family_names`'.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN
from semvlp.extract.detectors.published import constants_of
from semvlp.extract.networks import NETWORKS
from semvlp.extract.weights.checkpoint import load_strict
from semvlp.extract.weights.families import (
    BUTD,
    CAFFE,
    DETECTRON2,
    DETECTRON2_FPN,
    MILVLG,
    VINVL,
    Family,
    family_of,
    from_ours,
    to_ours,
)
from tests.extract.weights import published_layouts as layouts
from tests.extract.weights.published_layouts import RESNET50, RESNET101, Key


class File(NamedTuple):
    """A published file."""

    network: str
    family: Family
    layout: Callable[[], list[Key]]
    objects: int
    attributes: int


FILES = [
    File("resnet50_c4", DETECTRON2, lambda: layouts.detectron2_c4(RESNET50), 80, 0),
    File("resnet101_c4", DETECTRON2, lambda: layouts.detectron2_c4(RESNET101), 80, 0),
    File("resnet50_fpn", DETECTRON2_FPN, lambda: layouts.detectron2_fpn(RESNET50, groups=1), 80, 0),
    File(
        "resnet101_fpn", DETECTRON2_FPN, lambda: layouts.detectron2_fpn(RESNET101, groups=1), 80, 0
    ),
    File(
        "resnext101_fpn",
        DETECTRON2_FPN,
        lambda: layouts.detectron2_fpn(RESNET101, groups=32),
        80,
        0,
    ),
    File("resnet101_c4_butd", BUTD, layouts.butd, 1600, 400),
    File("resnet101_c4_caffe", CAFFE, layouts.milvlg_caffe, 1600, 400),
    File("resnet50_c4_milvlg", MILVLG, lambda: layouts.milvlg_d2(RESNET50), 1600, 400),
    File("resnet101_c4_milvlg", MILVLG, lambda: layouts.milvlg_d2(RESNET101), 1600, 400),
    File("resnext152_c4_vinvl", VINVL, layouts.vinvl, 1594, 524),
]
by_file = pytest.mark.parametrize("file", FILES, ids=[file.network for file in FILES])


def numbers(keys: list[Key]) -> dict[str, Tensor]:
    """No two alike, and variances positive."""
    generator = torch.Generator().manual_seed(0)
    return {key.name: torch.rand(key.shape, generator=generator) + 0.1 for key in keys}


def exact_anchors(sizes: list[int]) -> Tensor:
    """detectron2/modeling/anchor_generator.py, generate_cell_anchors."""
    found = []
    for size in sizes:
        for ratio in (0.5, 1.0, 2.0):
            width = (size**2 / ratio) ** 0.5
            height = ratio * width
            found.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(found)


def rounded_anchors(scales: list[int]) -> Tensor:
    """py-faster-rcnn lib/rpn/generate_anchors.py: ratios of the window (0, 0, 15, 15), scaled."""
    found = []
    for ratio in (0.5, 1.0, 2.0):
        width = float(np.round(np.sqrt(16 * 16 / ratio)))
        height = float(np.round(width * ratio))
        for scale in scales:
            w, h = width * scale, height * scale
            found.append(
                [7.5 - (w - 1) / 2, 7.5 - (h - 1) / 2, 7.5 + (w - 1) / 2, 7.5 + (h - 1) / 2]
            )
    return torch.tensor(found)


CELLS = "proposal_generator.anchor_generator.cell_anchors"
# What the files store beside what is learned.
STORED: dict[Family, dict[str, Tensor]] = {
    DETECTRON2: {
        "pixel_mean": torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1),
        "pixel_std": torch.ones(3, 1, 1),
        f"{CELLS}.0": exact_anchors([32, 64, 128, 256, 512]),
    },
    DETECTRON2_FPN: {
        "pixel_mean": torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1),
        **{f"{CELLS}.{level}": exact_anchors([32 << level]) for level in range(5)},
    },
    BUTD: {f"{CELLS}.0": exact_anchors([64, 128, 256, 512])},
    CAFFE: {f"{CELLS}.0": rounded_anchors([4, 8, 16, 32])},
    MILVLG: {f"{CELLS}.0": exact_anchors([32, 64, 128, 256, 512])},
    VINVL: {"rpn.anchor_generator.cell_anchors.0": rounded_anchors([2, 4, 8, 16, 32])},
}


def twins(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """VinVL's attribute head names the region stage of the box head a second time."""
    stage = "feature_extractor.head.layer4."
    return {
        name.replace("roi_heads.box", "attribute", 1): tensor
        for name, tensor in theirs.items()
        if name.startswith(f"roi_heads.box.{stage}")
    }


def first_last(rows: Tensor) -> Tensor:
    return torch.cat([rows[1:], rows[:1]])


CLASSES_FIRST_LAST = {
    "predictor.objects": first_last,
    "predictor.class_embedding": first_last,
    "predictor.boxes": lambda rows: rows[4:],
    "predictor.attributes.": first_last,
}
# What is more than a name, by the beginning of ours.
CHANGED: dict[Family, dict[str, Callable[[Tensor], Tensor]]] = {
    CAFFE: {**CLASSES_FIRST_LAST, "rpn.head.cls_logits": lambda rows: rows[12:] - rows[:12]},
    VINVL: CLASSES_FIRST_LAST,
}


def expected(file: File, key: Key, theirs: Tensor) -> Tensor:
    for start, change in CHANGED.get(file.family, {}).items():
        if key.ours.startswith(start):
            return change(theirs)
    return theirs


def is_folded(file: File, key: Key) -> bool:
    """VinVL's norms are rewritten as factor and offset."""
    return file.family is VINVL and bool(re.search(r"\.(bn\d|downsample\.1)\.", key.ours))


@by_file
def test_every_tensor_lands_where_its_name_says(file: File) -> None:
    keys = file.layout()
    theirs = numbers(keys)
    assert len(theirs) == len(keys)
    stored = theirs | STORED[file.family] | twins(theirs)
    assert family_of(stored, "file") is file.family
    config = NETWORKS[file.network]
    # Weights of its own, which take long to draw, it needs none.
    with torch.device("meta"):
        network = FasterRCNN(config, num_objects=file.objects, num_attributes=file.attributes)
    network.to_empty(device="cpu")
    load_strict(network, to_ours(stored, file.family, constants_of(config), "file"), "file")
    loaded = network.state_dict()
    assert sorted(key.ours for key in keys) == sorted(loaded)
    for key in keys:
        if not is_folded(file, key):
            wanted = expected(file, key, theirs[key.name])
            # An attribute "none" of ours that a family does not have stands last.
            assert torch.equal(loaded[key.ours][: len(wanted)], wanted), key
    back = from_ours(loaded, file.family)
    assert {name: tuple(tensor.shape) for name, tensor in back.items()} == {
        key.name: key.shape for key in keys
    }


def test_norms_without_eps_land_as_factor_and_offset() -> None:
    file = FILES[-1]
    keys = [key for key in file.layout() if is_folded(file, key)]
    theirs = numbers(keys)
    ours = to_ours(theirs, VINVL, constants_of(NETWORKS[file.network]), "file")
    norms = [key for key in keys if key.name.endswith(".weight")]
    assert len(norms) == 1 + 3 * (3 + 8 + 36 + 3) + 4
    for key in norms:
        there, here = key.name.removesuffix("weight"), key.ours.removesuffix("weight")
        factor = theirs[key.name] / theirs[f"{there}running_var"].sqrt()
        torch.testing.assert_close(
            ours[key.ours] / (ours[f"{here}running_var"] + 1e-5).sqrt(), factor
        )
        offset = theirs[f"{there}bias"] - theirs[f"{there}running_mean"] * factor
        torch.testing.assert_close(ours[f"{here}bias"], offset)
        assert not ours[f"{here}running_mean"].any()
