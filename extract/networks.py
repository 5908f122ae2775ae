"""Networks: one frozen description of all that shapes the numbers of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from semvlp.settings import FORMERLY, formerly, to_tree

BoxConvention = Literal["exclusive", "caffe", "maskrcnn_benchmark"]
"""How wide a box is: x2 - x1, or x2 - x1 + 1 as in Caffe and, decoded otherwise, its heirs."""

BackboneName = Literal[
    "small",
    "resnet50",
    "resnet101",
    "resnext152",
    "resnet50_fpn",
    "resnet101_fpn",
    "resnext101_fpn",
]
FPN_SUFFIX = "_fpn"
"""How the name of a backbone with a feature pyramid network ends."""
# A profile is a hash of these names too: under new ones, what version 0.1 wrote would be of another
# profile, and its extractions could not go on. So files and profiles keep the names of that time.
_ON_DISK = {"backbone": "trunk", "box_convention": "boxes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The ways in which ResNet networks differ; each default is detectron2's."""

    stem_pool: Literal["padded", "ceil"] = "padded"
    """Max-pooling after the first convolution: padded by 1, or unpadded with the last window cut
    at the border, as Caffe does."""
    stride_in: Literal["1x1", "3x3"] = "1x1"
    """The convolution of a stage's first block that strides."""
    res5: Literal["strided", "dilated"] = "strided"
    """The stage on each region: stride 2, or stride 1 with dilation 2."""
    rpn_width: int = 1024
    """Channels of the region proposal network."""
    anchors: Literal["detectron2", "caffe"] = "detectron2"
    """Exact around 0, sizes outside; or rounded around 7.5, ratios outside."""
    min_size: int = 0
    """Smaller side a proposal must exceed, in pixels of the original image."""
    pooling: Literal["roi_pool", "roi_align", "roi_align_v2"] = "roi_align_v2"
    """`roi_align_v2` is the one that is aligned to half a pixel."""
    box_convention: BoxConvention = formerly("boxes", "exclusive")
    """Width of a box, and with it decoding, clipping and overlap."""
    box_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0)
    """Factors of the regression targets of regions."""
    attribute_given: Literal["any class", "object class"] = "any class"
    """Class the attribute head sees: the likeliest, with or without background among them."""
    resize: Literal["pillow", "cv2"] = "pillow"
    """Bilinear with Pillow on bytes, or with the arithmetic of OpenCV on floats."""


PLAIN = Variant()
MOST = {
    "shorter_side": 2**14,
    "longer_side": 2**14,
    "num_candidates": 2**17,
    "num_proposals": 2**14,
    "pool_size": 32,
    "pool_sampling": 32,
    "feature_size": 2**14,
    "attribute_embedding": 2**14,
    "attribute_hidden": 2**14,
}
"""Of each number that decides how much memory an image or the network takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """A Faster R-CNN with an attribute head; sizes are in pixels of the resized image."""

    backbone: BackboneName = field(metadata={FORMERLY: "trunk"})
    """Convolutional layers: `small` at stride 4, the ResNets' first three stages at stride 16, or
    under a feature pyramid all four at strides 4 to 64; the ResNeXts have 32 groups of width 8."""
    shorter_side: int = 0
    """Images are resized to this shorter side; 0 leaves them as they are."""
    longer_side: int = 0
    """Upper bound of the longer side, which wins over `shorter_side`."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """Order of the colour channels the backbone sees."""
    pixel_mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    """Subtracted from pixels of 0..255, in `channel_order`."""
    pixel_std: tuple[float, ...] = (64.0, 64.0, 64.0)
    """Divides them afterwards."""
    anchor_sizes: tuple[int, ...]
    """Square roots of the anchors' areas; in a feature pyramid one for each map, finest first."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width of the anchors."""
    num_candidates: int
    """Proposals of each feature map before its non-maximum suppression."""
    num_proposals: int
    """Proposals after it."""
    rpn_nms: float = 0.7
    """Its IoU threshold."""
    pool_size: int
    """Side of the grid a region's features are pooled to."""
    pool_sampling: int
    """Samples a grid cell and axis; 0 as many as the region has pixels there."""
    feature_size: int
    """Length of a region's feature vector."""
    attribute_embedding: int
    """Length of the object class embedding the attribute head sees."""
    attribute_hidden: int
    """Width of its hidden layer."""
    variant: Variant | None = None
    """Differences of a ResNet network from detectron2's own; None: there are none."""

    def __post_init__(self) -> None:
        if min(self.shorter_side, self.longer_side) < 0 or not self.anchor_sizes:
            raise ValueError("sides must not be negative, and there must be an anchor size")
        if bool(self.shorter_side) != bool(self.longer_side):
            raise ValueError("shorter_side and longer_side must both be given, or both be 0")
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {most}, got {getattr(self, name)}")
        own = self.variant or PLAIN
        if own.rpn_width > MOST["feature_size"]:
            raise ValueError(f"rpn_width must be at most {MOST['feature_size']}")
        is_plain = (own.box_convention, own.stem_pool, own.res5) == (
            "exclusive",
            "padded",
            "strided",
        )
        if self.backbone.endswith(FPN_SUFFIX) and not is_plain:
            raise ValueError(
                "a feature pyramid must have exclusive boxes, a padded stem_pool and a strided res5"
            )

    def stored(self) -> dict[str, Any]:
        """Return the plain mapping that files and profiles hold; `from_stored` reads it."""
        return _renamed(to_tree(self), _ON_DISK)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A detection model of torchvision's own; sizes are in pixels of the resized image."""

    model: str
    """torchvision's function that builds it."""
    shorter_side: int = 800
    """Images are resized to this shorter side."""
    longer_side: int = 1333
    """Upper bound of the longer side, which wins over `shorter_side`."""
    num_candidates: int = 1000
    """Proposals of each feature map before its non-maximum suppression."""
    num_proposals: int = 1000
    """Proposals after it."""
    rpn_nms: float = 0.7
    """Its IoU threshold."""

    def __post_init__(self) -> None:
        for name in ("shorter_side", "longer_side", "num_candidates", "num_proposals"):
            if not 1 <= getattr(self, name) <= MOST[name]:
                raise ValueError(f"{name} must be 1 to {MOST[name]}, got {getattr(self, name)}")

    def stored(self) -> dict[str, Any]:
        """Return the plain mapping that profiles hold."""
        return to_tree(self)


_MOBILENET = "fasterrcnn_mobilenet_v3_large"
_RESNETS = [f"{kind}_resnet50_fpn{v}" for kind in ("fasterrcnn", "maskrcnn") for v in ("", "_v2")]
MODELS = {name: ModelConfig(model=name) for name in (*_RESNETS, f"{_MOBILENET}_fpn")}
_AT_320 = {"shorter_side": 320, "longer_side": 640, "num_candidates": 150, "num_proposals": 150}
MODELS[f"{_MOBILENET}_320_fpn"] = ModelConfig(model=f"{_MOBILENET}_320_fpn", **_AT_320)


def from_stored(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping as `NetworkConfig.stored` makes it under the names that fields have now."""
    return _renamed(tree, {on_disk: name for name, on_disk in _ON_DISK.items()})


def _renamed(tree: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return `tree` with its keys, and those of its tables, renamed where `names` has them."""
    return {
        names.get(key, key): _renamed(value, names) if isinstance(value, Mapping) else value
        for key, value in tree.items()
    }


SMALL = NetworkConfig(
    backbone="small",
    anchor_sizes=(10, 20, 40, 80, 160),
    num_candidates=600,
    num_proposals=100,
    pool_size=7,
    pool_sampling=1,
    feature_size=256,
    attribute_embedding=32,
    attribute_hidden=128,
)


def _resnet_c4(backbone: Literal["resnet50", "resnet101", "resnext152"]) -> NetworkConfig:
    """Return a C4 network of detectron2's model zoo (configs/Base-RCNN-C4.yaml) at test time.

    300 proposals and the attribute head's sizes are those of Bottom-Up and Top-Down (Anderson et
    al. 2018, section 3.1).
    """
    return NetworkConfig(
        backbone=backbone,
        shorter_side=800,
        longer_side=1333,
        channel_order="bgr",
        pixel_mean=(103.53, 116.28, 123.675),
        pixel_std=(1.0, 1.0, 1.0),
        anchor_sizes=(32, 64, 128, 256, 512),
        num_candidates=6000,
        num_proposals=300,
        pool_size=14,
        pool_sampling=0,
        feature_size=2048,
        attribute_embedding=256,
        attribute_hidden=512,
    )


def _resnet_fpn(
    backbone: Literal["resnet50_fpn", "resnet101_fpn", "resnext101_fpn"],
) -> NetworkConfig:
    """Return a pyramid network of detectron2's zoo (configs/Base-RCNN-FPN.yaml) at test time."""
    return replace(
        _resnet_c4("resnet50"),
        backbone=backbone,
        num_candidates=1000,
        pool_size=7,
        feature_size=1024,
        variant=Variant(rpn_width=256),
    )


# Ren et al.'s pixel means, which all Caffe networks subtract.
_CAFFE_MEAN = (102.9801, 115.9465, 122.7717)
_BUTD = replace(
    _resnet_c4("resnet101"),
    shorter_side=600,
    longer_side=1000,
    pixel_mean=_CAFFE_MEAN,
    anchor_sizes=(64, 128, 256, 512),
    variant=Variant(stem_pool="ceil", res5="dilated", rpn_width=512, pooling="roi_pool"),
)
_CAFFE = Variant(
    stem_pool="ceil",
    res5="dilated",
    rpn_width=512,
    anchors="caffe",
    min_size=16,
    pooling="roi_pool",
    box_convention="caffe",
    box_weights=(1.0, 1.0, 1.0, 1.0),
    resize="cv2",
)
_VINVL = Variant(
    stride_in="3x3",
    anchors="caffe",
    pooling="roi_align",
    box_convention="maskrcnn_benchmark",
    attribute_given="object class",
)


def _milvlg_c4(backbone: Literal["resnet50", "resnet101"]) -> NetworkConfig:
    """Return a network of MILVLG/bottom-up-attention.pytorch, `d2` mode (bua/d2, configs/d2)."""
    return replace(
        _resnet_c4(backbone),
        shorter_side=600,
        longer_side=1000,
        num_proposals=1000,
        pool_sampling=2,
    )


NETWORKS: dict[str, NetworkConfig] = {
    "small": SMALL,
    "resnet50_c4": _resnet_c4("resnet50"),
    "resnet101_c4": _resnet_c4("resnet101"),
    "resnet50_fpn": _resnet_fpn("resnet50_fpn"),
    "resnet101_fpn": _resnet_fpn("resnet101_fpn"),
    # COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml
    "resnext101_fpn": replace(
        _resnet_fpn("resnext101_fpn"),
        pixel_std=(57.375, 57.12, 58.395),
        variant=Variant(stride_in="3x3", rpn_width=256),
    ),
    # airsplay/py-bottom-up-attention, and Hugging Face's modeling_frcnn after it
    "resnet101_c4_butd": _BUTD,
    # peteanderson80/bottom-up-attention as MILVLG's `caffe` mode rebuilds it (bua/caffe)
    "resnet101_c4_caffe": replace(_BUTD, variant=_CAFFE),
    # microsoft/scene_graph_benchmark sgg_configs/vgattr/vinvl_x152c4.yaml
    "resnext152_c4_vinvl": replace(
        _resnet_c4("resnext152"), shorter_side=600, longer_side=1000, variant=_VINVL
    ),
    "resnet50_c4_milvlg": _milvlg_c4("resnet50"),
    "resnet101_c4_milvlg": _milvlg_c4("resnet101"),
}
