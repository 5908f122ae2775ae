"""A network config in detectron2's words: the keys of its config tree and those added to it."""

from typing import Any

from semvlp.extract.detectors.on_torchvision.faster_rcnn import REGIONS_PER_IMAGE, SMOOTH_L1_BETA
from semvlp.extract.networks import FPN_SUFFIX, PLAIN, NetworkConfig

ADDED: dict[str, Any] = {
    "MODEL": {
        # A `BoxConvention`. The key is in configs on disk, and in the hash of every profile.
        "BOX_RULE": "exclusive",
        # "padded" or "ceil".
        "RESNETS": {"STEM_POOL": "padded"},
        # Attributes without "none", and "any class" or "object class"; see `Variant`.
        "ROI_ATTRIBUTE_HEAD": {
            "NUM_CLASSES": 400,
            "EMBEDDING": 256,
            "HIDDEN": 512,
            "GIVEN": "any class",
        },
    },
    # "pillow" or "cv2".
    "INPUT": {"RESIZE": "pillow"},
}
"""What detectron2 has no key for, with the values that mean its own networks."""

_DEPTHS = {"resnet50": 50, "resnet101": 101, "resnext101": 101, "resnext152": 152}
_POOLERS = {"roi_pool": "ROIPool", "roi_align": "ROIAlign", "roi_align_v2": "ROIAlignV2"}


def training_settings_of(config: NetworkConfig) -> dict[str, Any]:
    """Return what `settings_of` leaves out and the torchvision backend does in training."""
    return {
        "MODEL": {
            "BACKBONE": {"FREEZE_AT": 0},
            "RPN": {
                "PRE_NMS_TOPK_TRAIN": 2 * config.num_candidates,
                "POST_NMS_TOPK_TRAIN": 2 * config.num_proposals,
                "SMOOTH_L1_BETA": SMOOTH_L1_BETA,
            },
            "ROI_HEADS": {"BATCH_SIZE_PER_IMAGE": REGIONS_PER_IMAGE},
            "ROI_BOX_HEAD": {"SMOOTH_L1_BETA": SMOOTH_L1_BETA},
        }
    }


def settings_of(config: NetworkConfig, *, num_objects: int, num_attributes: int) -> dict[str, Any]:
    """Return the config tree of a network; what it leaves out is detectron2's default."""
    variant = config.variant or PLAIN
    resnet = config.backbone.removesuffix(FPN_SUFFIX)
    is_resnext = resnet.startswith("resnext")
    parts = _fpn(config) if config.backbone.endswith(FPN_SUFFIX) else _c4(config)
    return {
        "MODEL": {
            "META_ARCHITECTURE": "GeneralizedRCNN",
            "WEIGHTS": "",
            "PIXEL_MEAN": list(config.pixel_mean),
            "PIXEL_STD": list(config.pixel_std),
            "BOX_RULE": variant.box_convention,
            "BACKBONE": parts["BACKBONE"],
            "FPN": parts["FPN"],
            "RESNETS": {
                **parts["RESNETS"],
                "DEPTH": _DEPTHS[resnet],
                "NUM_GROUPS": 32 if is_resnext else 1,
                "WIDTH_PER_GROUP": 8 if is_resnext else 64,
                "STRIDE_IN_1X1": variant.stride_in == "1x1",
                "RES5_DILATION": 2 if variant.res5 == "dilated" else 1,
                "STEM_POOL": variant.stem_pool,
            },
            "ANCHOR_GENERATOR": {
                "NAME": "CaffeAnchorGenerator"
                if variant.anchors == "caffe"
                else "DefaultAnchorGenerator",
                **parts["ANCHOR_GENERATOR"],
                "ASPECT_RATIOS": [list(config.anchor_ratios)],
            },
            "PROPOSAL_GENERATOR": {"NAME": "BottomUpRPN", "MIN_SIZE": variant.min_size},
            "RPN": {
                **parts["RPN"],
                "CONV_DIMS": [variant.rpn_width],
                "PRE_NMS_TOPK_TEST": config.num_candidates,
                "POST_NMS_TOPK_TEST": config.num_proposals,
                "NMS_THRESH": config.rpn_nms,
            },
            "ROI_HEADS": {**parts["ROI_HEADS"], "NUM_CLASSES": num_objects},
            "ROI_BOX_HEAD": {
                **parts["ROI_BOX_HEAD"],
                "POOLER_TYPE": _POOLERS[variant.pooling],
                "POOLER_RESOLUTION": config.pool_size,
                "POOLER_SAMPLING_RATIO": config.pool_sampling,
                "BBOX_REG_WEIGHTS": variant.box_weights,
            },
            "ROI_ATTRIBUTE_HEAD": {
                "NUM_CLASSES": num_attributes,
                "EMBEDDING": config.attribute_embedding,
                "HIDDEN": config.attribute_hidden,
                "GIVEN": variant.attribute_given,
            },
        },
        "INPUT": {
            "FORMAT": config.channel_order.upper(),
            "MIN_SIZE_TEST": config.shorter_side,
            "MAX_SIZE_TEST": config.longer_side,
            "RESIZE": variant.resize,
        },
        "DATASETS": {"TEST": []},
    }


def _c4(config: NetworkConfig) -> dict[str, Any]:
    """Return what is a C4 network's alone."""
    return {
        "BACKBONE": {"NAME": "build_bottom_up_backbone"},
        "FPN": {},
        "RESNETS": {},
        "ANCHOR_GENERATOR": {"SIZES": [list(config.anchor_sizes)]},
        "RPN": {},
        "ROI_HEADS": {"NAME": "AttributeRes5ROIHeads"},
        "ROI_BOX_HEAD": {},
    }


def _fpn(config: NetworkConfig) -> dict[str, Any]:
    """Return what is a feature pyramid's alone (configs/Base-RCNN-FPN.yaml)."""
    stages, maps = ["res2", "res3", "res4", "res5"], ["p2", "p3", "p4", "p5", "p6"]
    return {
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
        "FPN": {"IN_FEATURES": stages},
        "RESNETS": {"OUT_FEATURES": stages},
        "ANCHOR_GENERATOR": {"SIZES": [[size] for size in config.anchor_sizes]},
        "RPN": {"IN_FEATURES": maps},
        "ROI_HEADS": {"NAME": "AttributeStandardROIHeads", "IN_FEATURES": maps[:4]},
        "ROI_BOX_HEAD": {
            "NAME": "FastRCNNConvFCHead",
            "NUM_FC": 2,
            "FC_DIM": config.feature_size,
        },
    }
