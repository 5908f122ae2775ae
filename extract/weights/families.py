"""Checkpoint families of other systems: told apart, their tensors in our form and back.

Ours has background as the last class, "none" as the last attribute, one objectness logit an anchor
and no box regression for background. The names are literal tables (`family_names`).

C object classes, A attributes, F feature size, N anchors of a cell.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from semvlp.errors import InputError
from semvlp.extract.networks import FPN_SUFFIX, NetworkConfig
from semvlp.extract.weights import family_names
from semvlp.extract.weights.family_names import Rules, rename

State = dict[str, Tensor]
# FrozenBatchNorm2d's, in torchvision and in detectron2.
_EPS = 1e-5
# The logit of an attribute "none" that a family does not have: its probability is 0.
_NEVER = -1e4
_OBJECTNESS = ("rpn.head.cls_logits.weight", "rpn.head.cls_logits.bias")
_CLASSES = (
    "predictor.objects.weight",
    "predictor.objects.bias",
    "predictor.class_embedding.weight",
)
_BOXES = ("predictor.boxes.weight", "predictor.boxes.bias")
_ATTRIBUTES = ("predictor.attributes.weight", "predictor.attributes.bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One way in which a family's tensors differ from ours beside their names."""

    to_ours: Callable[[State], None]
    """Function that changes a state under our names in place."""
    from_ours: Callable[[State], None]
    """Its inverse."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Family:
    """One system's checkpoints."""

    name: str
    networks: tuple[str, ...]
    """Names in `NETWORKS` of what its weights are for."""
    names: Rules
    """(their name, our name); {} stands for the same text on both sides."""
    constants: Mapping[str, str]
    """Their names of what is part of our config, by `constants_of`."""
    changes: tuple[Change, ...] = ()


def _each(names: tuple[str, ...], change: Callable[[Tensor], Tensor]) -> Callable[[State], None]:
    """Return a function that changes those of the tensors `names` that there are."""

    def apply(state: State) -> None:
        for name in names:
            if name in state:
                state[name] = change(state[name])

    return apply


def _to_the_end(rows: Tensor) -> Tensor:
    return rows.roll(-1, 0)


def _to_the_front(rows: Tensor) -> Tensor:
    return rows.roll(1, 0)


def _object_over_background(rows: Tensor) -> Tensor:
    """Return logits [N, ...] whose sigmoid is the softmax of (background, object) [2 N, ...]."""
    background, thing = rows.chunk(2)
    return thing - background


def _beside_zero(rows: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(rows), rows])


def _without_background(rows: Tensor) -> Tensor:
    return rows[4:]


def _with_background(rows: Tensor) -> Tensor:
    return torch.cat([rows.new_zeros(4, *rows.shape[1:]), rows])


def _add_none(state: State) -> None:
    weight, bias = (state.get(name) for name in _ATTRIBUTES)
    if weight is not None and bias is not None:
        state[_ATTRIBUTES[0]] = torch.cat([weight, torch.zeros_like(weight[:1])])
        state[_ATTRIBUTES[1]] = torch.cat([bias, bias.new_tensor([_NEVER])])


def _fold_norms(state: State, *, eps: float, variance: float) -> None:
    """Make batch norms a factor and an offset, in float64: mean 0, the variance that gives 1."""
    for name in [name for name in state if name.endswith(".running_var")]:
        stem = name.removesuffix("running_var")
        weight, bias = state[f"{stem}weight"].double(), state[f"{stem}bias"].double()
        mean, factor = state[f"{stem}running_mean"].double(), (state[name].double() + eps).rsqrt()
        state[f"{stem}weight"] = (weight * factor).float()
        state[f"{stem}bias"] = (bias - mean * weight * factor).float()
        state[f"{stem}running_mean"] = torch.zeros_like(state[f"{stem}running_mean"])
        state[name] = torch.full_like(state[name], variance)


BACKGROUND_FIRST = (
    Change(to_ours=_each(_CLASSES, _to_the_end), from_ours=_each(_CLASSES, _to_the_front)),
    Change(to_ours=_each(_BOXES, _without_background), from_ours=_each(_BOXES, _with_background)),
)
NONE_FIRST = Change(
    to_ours=_each(_ATTRIBUTES, _to_the_end), from_ours=_each(_ATTRIBUTES, _to_the_front)
)
NO_NONE = Change(to_ours=_add_none, from_ours=_each(_ATTRIBUTES, lambda rows: rows[:-1]))
OBJECTNESS_PAIRS = Change(
    to_ours=_each(_OBJECTNESS, _object_over_background), from_ours=_each(_OBJECTNESS, _beside_zero)
)
# maskrcnn_benchmark's FrozenBatchNorm2d adds nothing to the variance (layers/batch_norm.py).
NORM_WITHOUT_EPS = Change(
    to_ours=lambda state: _fold_norms(state, eps=0.0, variance=1 - _EPS),
    from_ours=lambda state: _fold_norms(state, eps=_EPS, variance=1.0),
)

DETECTRON2 = Family(
    name="detectron2's C4 networks",
    networks=("resnet50_c4", "resnet101_c4"),
    names=family_names.DETECTRON2,
    constants=family_names.DETECTRON2_CONSTANTS,
)
DETECTRON2_FPN = Family(
    name="detectron2's networks with feature pyramids",
    networks=("resnet50_fpn", "resnet101_fpn", "resnext101_fpn"),
    names=family_names.DETECTRON2_FPN,
    constants=family_names.DETECTRON2_FPN_CONSTANTS,
)
BUTD = Family(
    name="airsplay's and Hugging Face's bottom-up attention",
    networks=("resnet101_c4_butd",),
    names=family_names.BUTD,
    constants=family_names.DETECTRON2_CONSTANTS,
)
CAFFE = Family(
    name="MILVLG's bottom-up attention in caffe mode",
    networks=("resnet101_c4_caffe",),
    names=family_names.CAFFE,
    constants=family_names.DETECTRON2_CONSTANTS,
    changes=(OBJECTNESS_PAIRS, *BACKGROUND_FIRST, NONE_FIRST),
)
MILVLG = Family(
    name="MILVLG's bottom-up attention in d2 mode",
    networks=("resnet50_c4_milvlg", "resnet101_c4_milvlg"),
    names=family_names.DETECTRON2,
    constants=family_names.DETECTRON2_CONSTANTS,
    changes=(NO_NONE,),
)
VINVL = Family(
    name="VinVL",
    networks=("resnext152_c4_vinvl",),
    names=family_names.VINVL,
    constants=family_names.VINVL_CONSTANTS,
    changes=(*BACKGROUND_FIRST, NONE_FIRST, NORM_WITHOUT_EPS),
)
FAMILIES = (DETECTRON2, DETECTRON2_FPN, BUTD, CAFFE, MILVLG, VINVL)

_HEAD = "proposal_generator.rpn_head"
_PREDICTOR = "roi_heads.box_predictor"
_WRAPPER = "module."
_VINVL_TWIN = ("attribute.feature_extractor.", "roi_heads.box.feature_extractor.")


def family_of(state: Mapping[str, Tensor], source: str) -> Family | None:
    """Return the family of tensors under the names of their file; None where they are ours.

    Raises:
        InputError: they are of no known family.
    """
    if "trunk.conv1.weight" in state or "trunk.stem.0.0.weight" in state:
        return None
    if "backbone.body.stem.conv1.weight" in state:
        return VINVL
    if "backbone.bottom_up.stem.conv1.weight" in state:
        return DETECTRON2_FPN
    objectness, deltas = (
        _rows(state, f"{_HEAD}.{x}") for x in ("objectness_logits", "anchor_deltas")
    )
    if objectness and objectness * 2 == deltas:
        return CAFFE
    if _rows(state, "roi_heads.attribute_predictor.attr_score"):
        return MILVLG
    classes = _rows(state, f"{_PREDICTOR}.cls_score")
    if not classes or _rows(state, f"{_PREDICTOR}.bbox_pred") != 4 * (classes - 1):
        raise InputError(
            f"{source}: weights of no known family; known are "
            f"{', '.join(family.name for family in FAMILIES)}, and our own"
        )
    # Only Caffe's networks and what was converted from them have a hidden layer of 512 there.
    return BUTD if _rows(state, f"{_HEAD}.conv") == 512 else DETECTRON2


def in_detectron2(config: NetworkConfig) -> Family:
    """Return the family whose names detectron2's own modules have for a network of ours."""
    return DETECTRON2_FPN if config.backbone.endswith(FPN_SUFFIX) else DETECTRON2


def unwrapped(state: State) -> State:
    """Return tensors without the `module.` that data-parallel wrappers put before every name."""
    if not all(name.startswith(_WRAPPER) for name in state):
        return state
    return {name.removeprefix(_WRAPPER): tensor for name, tensor in state.items()}


def to_ours(
    state: Mapping[str, Tensor], family: Family, constants: Mapping[str, Tensor], source: str
) -> State:
    """Return the learned tensors of a checkpoint of `family` under our names and in our form.

    Args:
        state: tensors by the name their file has for them.
        family: see `family_of`.
        constants: what our config says of the network, see `constants_of`.
        source: the file, for messages.

    Raises:
        InputError: a tensor no table names, a stored constant that is not the config's, or a
            region stage of the attribute head that is not the box head's.
    """
    theirs = _learned(state, source)
    by_their_name = {theirs: constants[ours] for theirs, ours in family.constants.items()}
    theirs = without_constants(theirs, by_their_name, source)
    ours = {rename(name, family.names, source): tensor for name, tensor in theirs.items()}
    for change in family.changes:
        change.to_ours(ours)
    return ours


def from_ours(state: Mapping[str, Tensor], family: Family) -> State:
    """Undo `to_ours`, without constants and duplicates."""
    ours = dict(state)
    for change in reversed(family.changes):
        change.from_ours(ours)
    back = tuple((right, left) for left, right in family.names)
    return {rename(name, back): tensor for name, tensor in ours.items()}


def without_constants(
    state: Mapping[str, Tensor], constants: Mapping[str, Tensor], source: str
) -> State:
    """Return `state` without what the config says too, once that equals the network's `constants`.

    detectron2 itself drops these unread, so that weights with other anchors load and find nothing.

    Raises:
        InputError: a stored constant that is not the network's.
    """
    for name, ours in constants.items():
        if name in state:
            _check_constant(name, state[name], ours, source)
    return {name: tensor for name, tensor in state.items() if name not in constants}


def _learned(state: Mapping[str, Tensor], source: str) -> State:
    """Return the tensors without what counters and tied modules add."""
    learned = {
        name: tensor for name, tensor in state.items() if not name.endswith(".num_batches_tracked")
    }
    twin, original = _VINVL_TWIN
    for name in [name for name in learned if name.startswith(twin)]:
        if not torch.equal(learned.pop(name), learned[name.replace(twin, original, 1)]):
            raise InputError(
                f"{source}: {name} must be the tensor of the box head, which the attribute head "
                "shares in the published network"
            )
    return learned


def _rows(state: Mapping[str, Tensor], layer: str) -> int:
    """Return the number of outputs of a layer; 0 where there is none."""
    weight = state.get(f"{layer}.weight")
    return 0 if weight is None else len(weight)


def _check_constant(name: str, stored: Tensor, ours: Tensor, source: str) -> None:
    stored, ours = stored.float().flatten(), ours.float().cpu().flatten()
    if stored.shape != ours.shape or (stored - ours).abs().max() > 1e-3:
        raise InputError(
            f"{source}: {name} must be {ours.tolist()}, found {stored.tolist()}; the weights are "
            "those of a network with other anchors or pixel values"
        )
