"""Every tensor of the published files: its name and shape there, and where it belongs in ours.

Written from the systems' code, block by block, and not from the tables it is to check:
facebookresearch/detectron2, airsplay/py-bottom-up-attention, MILVLG/bottom-up-attention.pytorch
and microsoft/scene_graph_benchmark (maskrcnn_benchmark).
"""

from collections.abc import Iterator
from typing import NamedTuple

Shape = tuple[int, ...]


class Key(NamedTuple):
    """A tensor of a file."""

    name: str
    shape: Shape
    ours: str
    """The name of the parameter or buffer of ours that it is for."""


RESNET50, RESNET101, RESNET152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
NORM = ("weight", "bias", "running_mean", "running_var")


def layer(name: str, shape: Shape, ours: str) -> Iterator[Key]:
    """A convolution or a linear layer with its bias."""
    yield Key(f"{name}.weight", shape, f"{ours}.weight")
    yield Key(f"{name}.bias", shape[:1], f"{ours}.bias")


def norm(name: str, channels: int, ours: str) -> Iterator[Key]:
    for part in NORM:
        yield Key(f"{name}.{part}", (channels,), f"{ours}.{part}")


def stage(prefix: str, number: int, blocks: int, *, groups: int, torch_names: bool) -> list[Key]:
    """Stage 1 to 4 (res2 to res5) of bottlenecks; 32 groups are 8 wide in the first stage."""
    found: list[Key] = []
    out = 128 << number
    middle = out if groups == 32 else out // 4
    for block in range(blocks):
        into = out if block else (64 if number == 1 else out // 2)
        theirs, ours = f"{prefix}.{block}", f"trunk.layer{number}.{block}"
        convolutions = [
            ("conv1", (middle, into, 1, 1)),
            ("conv2", (middle, middle // groups, 3, 3)),
            ("conv3", (out, middle, 1, 1)),
        ]
        for name, shape in convolutions:
            beside = f"bn{name[-1]}" if torch_names else f"{name}.norm"
            found.append(Key(f"{theirs}.{name}.weight", shape, f"{ours}.{name}.weight"))
            found += norm(f"{theirs}.{beside}", shape[0], f"{ours}.bn{name[-1]}")
        if block == 0:
            name, beside = (
                ("downsample.0", "downsample.1") if torch_names else ("shortcut", "shortcut.norm")
            )
            weight = f"{ours}.downsample.0.weight"
            found.append(Key(f"{theirs}.{name}.weight", (out, into, 1, 1), weight))
            found += norm(f"{theirs}.{beside}", out, f"{ours}.downsample.1")
    return found


def detectron2_stem(prefix: str) -> Iterator[Key]:
    yield Key(f"{prefix}.stem.conv1.weight", (64, 3, 7, 7), "trunk.conv1.weight")
    yield from norm(f"{prefix}.stem.conv1.norm", 64, "trunk.bn1")


def detectron2_rpn(into: int, width: int, logits: int, deltas: int) -> Iterator[Key]:
    head = "proposal_generator.rpn_head"
    yield from layer(f"{head}.conv", (width, into, 3, 3), "rpn.head.conv.0.0")
    yield from layer(f"{head}.objectness_logits", (logits, width, 1, 1), "rpn.head.cls_logits")
    yield from layer(f"{head}.anchor_deltas", (deltas, width, 1, 1), "rpn.head.bbox_pred")


def detectron2_predictor(classes: int, boxes: int, features: int) -> Iterator[Key]:
    head = "roi_heads.box_predictor"
    yield from layer(f"{head}.cls_score", (classes, features), "predictor.objects")
    yield from layer(f"{head}.bbox_pred", (boxes, features), "predictor.boxes")


def attribute_head(embedding: str, hidden: str, score: str, sizes: Shape) -> Iterator[Key]:
    classes, attributes = sizes
    yield Key(f"{embedding}.weight", (classes, 256), "predictor.class_embedding.weight")
    yield from layer(hidden, (512, 2048 + 256), "predictor.attribute_hidden")
    yield from layer(score, (attributes, 512), "predictor.attributes")


def detectron2_c4_trunk(blocks: Shape) -> list[Key]:
    found = list(detectron2_stem("backbone"))
    for number, name in enumerate(("res2", "res3", "res4"), 1):
        prefix = f"backbone.{name}"
        found += stage(prefix, number, blocks[number - 1], groups=1, torch_names=False)
    return found + stage("roi_heads.res5", 4, blocks[3], groups=1, torch_names=False)


def detectron2_c4(blocks: Shape) -> list[Key]:
    """COCO-Detection/faster_rcnn_R_{50,101}_C4_3x: 15 anchors, 80 classes."""
    return [
        *detectron2_c4_trunk(blocks),
        *detectron2_rpn(1024, 1024, 15, 60),
        *detectron2_predictor(81, 320, 2048),
    ]


def detectron2_fpn(blocks: Shape, *, groups: int) -> list[Key]:
    """COCO-Detection/faster_rcnn_{R_50,R_101,X_101_32x8d}_FPN_3x: 3 anchors, 80 classes."""
    found = list(detectron2_stem("backbone.bottom_up"))
    for number, name in enumerate(("res2", "res3", "res4", "res5"), 1):
        prefix = f"backbone.bottom_up.{name}"
        found += stage(prefix, number, blocks[number - 1], groups=groups, torch_names=False)
    for index, (level, channels) in enumerate(((2, 256), (3, 512), (4, 1024), (5, 2048))):
        lateral, output = f"backbone.fpn_lateral{level}", f"backbone.fpn_output{level}"
        found += layer(lateral, (256, channels, 1, 1), f"trunk.fpn.inner_blocks.{index}.0")
        found += layer(output, (256, 256, 3, 3), f"trunk.fpn.layer_blocks.{index}.0")
    found += layer("roi_heads.box_head.fc1", (1024, 256 * 7 * 7), "trunk.head.fc6")
    found += layer("roi_heads.box_head.fc2", (1024, 1024), "trunk.head.fc7")
    return [*found, *detectron2_rpn(256, 256, 3, 12), *detectron2_predictor(81, 320, 1024)]


def butd() -> list[Key]:
    """airsplay's .pkl and Hugging Face's .bin: 12 anchors, 1600 classes, 400 attributes."""
    head = "roi_heads.box_predictor"
    return [
        *detectron2_c4_trunk(RESNET101),
        *detectron2_rpn(1024, 512, 12, 48),
        *detectron2_predictor(1601, 6400, 2048),
        *attribute_head(
            f"{head}.cls_embedding", f"{head}.fc_attr", f"{head}.attr_score", (1601, 401)
        ),
    ]


def milvlg_caffe() -> list[Key]:
    """bua-caffe-frcn-r101: two logits an anchor, background has boxes."""
    head = "roi_heads.box_predictor"
    return [
        *detectron2_c4_trunk(RESNET101),
        *detectron2_rpn(1024, 512, 24, 48),
        *detectron2_predictor(1601, 6404, 2048),
        *attribute_head(
            f"{head}.cls_embed", f"{head}.attr_linear1", f"{head}.attr_linear2", (1601, 401)
        ),
    ]


def milvlg_d2(blocks: Shape) -> list[Key]:
    """bua-d2-frcn-r{50,101}: no attribute "none"."""
    head = "roi_heads.attribute_predictor"
    return [
        *detectron2_c4_trunk(blocks),
        *detectron2_rpn(1024, 1024, 15, 60),
        *detectron2_predictor(1601, 6400, 2048),
        *attribute_head(f"{head}.obj_embed", f"{head}.fc.0", f"{head}.attr_score", (1601, 400)),
    ]


def vinvl() -> list[Key]:
    """vinvl_vg_x152c4.pth without the attribute head's second copy of the region stage."""
    found = [Key("backbone.body.stem.conv1.weight", (64, 3, 7, 7), "trunk.conv1.weight")]
    found += norm("backbone.body.stem.bn1", 64, "trunk.bn1")
    for number in (1, 2, 3):
        prefix = f"backbone.body.layer{number}"
        found += stage(prefix, number, RESNET152[number - 1], groups=32, torch_names=True)
    last = "roi_heads.box.feature_extractor.head.layer4"
    found += stage(last, 4, RESNET152[3], groups=32, torch_names=True)
    found += layer("rpn.head.conv", (1024, 1024, 3, 3), "rpn.head.conv.0.0")
    found += layer("rpn.head.cls_logits", (15, 1024, 1, 1), "rpn.head.cls_logits")
    found += layer("rpn.head.bbox_pred", (60, 1024, 1, 1), "rpn.head.bbox_pred")
    found += layer("roi_heads.box.predictor.cls_score", (1595, 2048), "predictor.objects")
    found += layer("roi_heads.box.predictor.bbox_pred", (6380, 2048), "predictor.boxes")
    head = "attribute.predictor"
    found += attribute_head(
        f"{head}.cls_embedding", f"{head}.fc_attr", f"{head}.attr_score", (1595, 525)
    )
    return found
