"""Weights of a detectron2 network told apart: of all of it, or of a backbone to start from.

A backbone is what ImageNet teaches: a ResNet, the last stage of which stands in the region heads
of C4 networks. Its files come from Caffe2 (`res2_0_branch2a_w`), from torchvision by detectron2's
own script (`res2.0.conv1.weight`), or bear the network's names.
"""

import logging

from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.modeling import GeneralizedRCNN

from semvlp.errors import InputError
from semvlp.extract.weights.checkpoint import load_body, load_strict
from semvlp.extract.weights.families import State

log = logging.getLogger(__name__)

PREDICTORS = ("roi_heads.box_predictor.", "roi_heads.attribute_predictor.")

# What classified the 1000 classes, and a bias that Caffe's first convolution has and no ResNet of
# detectron2 takes.
_LEFT_OUT = ("fc1000.", "linear.", "stem.fc.", "stem.conv1.bias")
_STATISTICS = (".running_mean", ".running_var")
_COUNTER = ".num_batches_tracked"


def load_start(model: GeneralizedRCNN, given: State, source: str) -> None:
    """Load `given` strictly; the predictors, and beside a backbone everything, keep what they have.

    Raises:
        InputError: a tensor is missing, unexpected or of another shape.
    """
    backbone = _prefixes(model)
    if any(name in given for name in model.state_dict() if not name.startswith(backbone)):
        load_body(model, given, PREDICTORS, source)
        return
    _load_backbone(model, given, backbone, source)
    log.info(
        "%s holds a backbone (%s): region proposals and heads start from random weights",
        source,
        ", ".join(f"{prefix}*" for prefix in backbone),
    )


def load_whole(model: GeneralizedRCNN, given: State, source: str) -> None:
    """Load `given` strictly into a network that is to detect.

    Raises:
        InputError: a tensor is missing, unexpected or of another shape; a backbone alone says so.
    """
    try:
        load_strict(model, given, source)
    except InputError as error:
        if _is_backbone(model, given):
            raise InputError(
                f"{source} holds a backbone alone, to start learning from, and finds nothing; name "
                "the weights of a whole detector with --weights, or train one with "
                "`semvlp detector train`"
            ) from error
        raise


def _is_backbone(model: GeneralizedRCNN, given: State) -> bool:
    try:
        _load_backbone(model, given, _prefixes(model), "")
    except InputError:
        return False
    return True


def _prefixes(model: GeneralizedRCNN) -> tuple[str, ...]:
    """Return how the names of the backbone's tensors start."""
    bottom_up = "bottom_up." if hasattr(model.backbone, "bottom_up") else ""
    last = ("roi_heads.res5.",) if hasattr(model.roi_heads, "res5") else ()
    return (f"backbone.{bottom_up}", *last)


def _load_backbone(
    model: GeneralizedRCNN, given: State, backbone: tuple[str, ...], source: str
) -> None:
    renamed = _renamed(model, given, source)
    # Caffe2 folded the statistics of the norms into their weights; a fresh norm has neutral ones.
    folded = not any(name.endswith(_STATISTICS) for name in renamed)
    neutral = (_COUNTER, *_STATISTICS) if folded else (_COUNTER,)
    kept = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith(backbone) or name.endswith(neutral)
    }
    load_strict(model, kept | renamed, source)


def _renamed(model: GeneralizedRCNN, given: State, source: str) -> State:
    """Return `given` under the model's names, by detectron2's rules, without what is not needed."""
    from_caffe2 = not any("." in name for name in given)
    try:
        renamed: State = align_and_update_state_dicts(
            model.state_dict(), given, c2_conversion=from_caffe2
        )
    except (AssertionError, ValueError) as error:
        raise InputError(f"{source}: its names cannot be matched with the network's") from error
    return {
        name: tensor
        for name, tensor in renamed.items()
        if not name.startswith(_LEFT_OUT) and not name.endswith(_COUNTER)
    }
