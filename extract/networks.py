"""What shapes a detector's numbers: one frozen description for each network."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """A Faster R-CNN with an attribute head; sizes are in pixels of the resized image."""

    trunk: Literal["small", "resnet50", "resnet101"]
    """Convolutional layers: `small` at stride 4, the ResNets' first three stages at stride 16."""
    shorter_side: int = 0
    """Images are resized to this shorter side; 0 leaves them as they are."""
    longer_side: int = 0
    """Upper bound of the longer side, which wins over `shorter_side`."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """Order of the colour channels the trunk sees."""
    pixel_mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    """Subtracted from pixels of 0..255, in `channel_order`."""
    pixel_std: tuple[float, ...] = (64.0, 64.0, 64.0)
    """Divides them afterwards."""
    anchor_sizes: tuple[int, ...]
    """Square roots of the anchors' areas."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width of the anchors."""
    num_candidates: int
    """Proposals before its non-maximum suppression."""
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

    def __post_init__(self) -> None:
        if min(self.shorter_side, self.longer_side) < 0 or not self.anchor_sizes:
            raise ValueError("sides must not be negative, and there must be an anchor size")
        if bool(self.shorter_side) != bool(self.longer_side):
            raise ValueError("shorter_side and longer_side must both be given, or both be 0")


SMALL = NetworkConfig(
    trunk="small",
    anchor_sizes=(10, 20, 40, 80, 160),
    num_candidates=600,
    num_proposals=100,
    pool_size=7,
    pool_sampling=1,
    feature_size=256,
    attribute_embedding=32,
    attribute_hidden=128,
)


def _resnet_c4(trunk: Literal["resnet50", "resnet101"]) -> NetworkConfig:
    """The C4 networks of detectron2's model zoo (configs/Base-RCNN-C4.yaml) at test time.

    300 proposals and the attribute head's sizes are those of Bottom-Up and Top-Down (Anderson et
    al. 2018, section 3.1).
    """
    return NetworkConfig(
        trunk=trunk,
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


NETWORKS: dict[str, NetworkConfig] = {
    "small": SMALL,
    "resnet50_c4": _resnet_c4("resnet50"),
    "resnet101_c4": _resnet_c4("resnet101"),
}
