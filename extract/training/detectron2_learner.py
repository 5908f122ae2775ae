"""Training in detectron2: its own losses behind the calls of the training loop.

B images of one shape, N objects, A attributes, H x W a resized image.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

from semvlp.distributed import device_of
from semvlp.errors import ConfigError
from semvlp.extract.detectors.batched import Execution
from semvlp.extract.detectors.on_detectron2.backend import (
    build_network,
    learns_attributes,
    stored_state,
)
from semvlp.extract.detectors.on_detectron2.cfg import (
    address_of,
    config_of,
    config_sha256,
    read_config,
    resize_rule_of,
    set_keys,
)
from semvlp.extract.detectors.on_detectron2.cfg_of import training_settings_of
from semvlp.extract.detectors.on_detectron2.load import load_start
from semvlp.extract.detectors.on_torchvision.faster_rcnn import Target
from semvlp.extract.detectors.published import constants_of
from semvlp.extract.networks import NetworkConfig
from semvlp.extract.training.coco import Annotations
from semvlp.extract.training.config import DetectorTrainConfig
from semvlp.extract.training.initial_network import starting_network
from semvlp.extract.weights.checkpoint import Description, load_strict, save_detector
from semvlp.extract.weights.download import fetch
from semvlp.extract.weights.families import from_ours, in_detectron2, to_ours

log = logging.getLogger(__name__)

_NAMES = {
    "loss_rpn_cls": "loss_rpn_objectness",
    "loss_rpn_loc": "loss_rpn_box",
    "loss_cls": "loss_object",
    "loss_box_reg": "loss_box",
}
"""detectron2's losses under the names they have in the torchvision backend."""


def open_learner(config: DetectorTrainConfig, data: Annotations) -> "Detectron2Learner":
    """The network of `config` for the labels of `data`, with the weights it starts from."""
    if config.architecture is None:
        return _from_config(config, data)
    start = starting_network(config, data)
    cfg = config_of(
        start.config,
        num_objects=len(data.object_labels),
        num_attributes=len(data.attribute_labels),
    )
    cfg.merge_from_other_cfg(CfgNode(training_settings_of(start.config)))
    model = build_network(cfg, Execution(str(start.mean.device)), config.network)
    load_strict(model, from_ours(start.state_dict(), in_detectron2(start.config)), config.network)
    return Detectron2Learner(model, cfg, data, start.config)


def _from_config(config: DetectorTrainConfig, data: Annotations) -> "Detectron2Learner":
    """The network of a detectron2 config; it starts from the weights the config names."""
    cfg = read_config(config.network)
    set_keys(cfg, config.settings)
    if cfg.MODEL.BOX_RULE != "exclusive" or cfg.MODEL.MASK_ON:
        raise ConfigError(
            f"{config.network}: a network to be trained must have MODEL.BOX_RULE exclusive and "
            f"MODEL.MASK_ON False, found {cfg.MODEL.BOX_RULE} and {cfg.MODEL.MASK_ON}"
        )
    start = address_of(config.start or cfg.MODEL.WEIGHTS)
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(data.object_labels)
    cfg.MODEL.ROI_ATTRIBUTE_HEAD.NUM_CLASSES = len(data.attribute_labels)
    execution = Execution(str(device_of(config.device)))
    model = build_network(cfg, execution, config.network, seed=config.seed)
    if start:
        path = fetch(start)
        load_start(model, stored_state(model, path), str(path))
    else:
        log.warning("%s names no weights: the network starts from random ones", config.network)
    if data.attribute_labels and not learns_attributes(model):
        log.warning("%s has no attribute head: attributes are not learned", config.network)
    return Detectron2Learner(model, cfg, data, None)


class Detectron2Learner:
    """A network of detectron2 in training; see `semvlp.extract.training.learner.Learner`."""

    def __init__(
        self,
        network: GeneralizedRCNN,
        cfg: CfgNode,
        data: Annotations,
        config: NetworkConfig | None,
    ) -> None:
        self.network, self._cfg, self._data, self._config = network.train(), cfg, data, config
        self.rule = resize_rule_of(cfg)
        self.plan: dict[str, Any] = {"backend": "detectron2", "config_sha256": config_sha256(cfg)}

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """detectron2's losses and the attribute head's, by the names of the other backend."""
        if self._cfg.INPUT.FORMAT == "BGR":
            images = images.flip(1)
        size = (images.shape[-2], images.shape[-1])
        entries = [
            {"image": image, "instances": _instances(target, size)}
            for image, target in zip(images, targets, strict=True)
        ]
        # Its modules log into the storage of the loop they think they are in.
        with EventStorage():
            found: dict[str, Tensor] = self.network(entries)
        return {_NAMES.get(name, name): value for name, value in found.items()}

    def save(self, out: Path) -> None:
        """A detector; one with a network of ours opens in both backends."""
        state: dict[str, Tensor] = self.network.state_dict()
        attributes = self._data.attribute_labels if learns_attributes(self.network) else ()
        config = self._config
        if config is not None:
            state = to_ours(state, in_detectron2(config), constants_of(config), "the network")
        description = Description(
            network=config,
            detectron2=None if config else self._cfg.dump(),
            object_labels=self._data.object_labels,
            attribute_labels=attributes,
        )
        save_detector(out, state, description)


def _instances(target: Target, size: tuple[int, int]) -> Instances:
    """What detectron2 learns from in an image of `size` (H, W)."""
    return Instances(
        size,
        gt_boxes=Boxes(target.boxes),
        gt_classes=target.labels,
        gt_attributes=target.attributes,
    )
