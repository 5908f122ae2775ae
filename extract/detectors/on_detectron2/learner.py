"""Networks of detectron2 in training: its own losses behind the calls of the training loop.

B images of one shape, N objects, A attributes, H x W a resized image.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

from semvlp.errors import ConfigError
from semvlp.extract.detectors.batched import Execution
from semvlp.extract.detectors.on_detectron2.backend import (
    Labels,
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
from semvlp.extract.detectors.on_torchvision.faster_rcnn import FasterRCNN, Target
from semvlp.extract.detectors.published import constants_of
from semvlp.extract.networks import NetworkConfig
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


def learner_of_network(start: FasterRCNN, labels: Labels, name: str) -> "Detectron2Learner":
    """Return a network of ours, called `name`, that detectron2 trains on from where `start` is."""
    objects, attributes = labels
    cfg = config_of(start.config, num_objects=len(objects), num_attributes=len(attributes))
    cfg.merge_from_other_cfg(CfgNode(training_settings_of(start.config)))
    model = build_network(cfg, Execution(str(start.mean.device)), name)
    load_strict(model, from_ours(start.state_dict(), in_detectron2(start.config)), name)
    return Detectron2Learner(model, cfg, labels, start.config)


def learner_of_config(
    name: str,
    labels: Labels,
    execution: Execution,
    *,
    settings: Sequence[str] = (),
    start: str | None = None,
    seed: int = 0,
) -> "Detectron2Learner":
    """Return the network of a detectron2 config that is to learn `labels`.

    Args:
        name: a YAML file, or a name in detectron2's model zoo.
        settings: `KEY=value` over the config.
        start: path, URL or `hf:` address of the weights to start from; None takes those that the
            config names.
        seed: fixes the initial weights of what `start` does not hold.

    Raises:
        ConfigError: no such config or key, or a network that cannot be trained.
        InputError: weights that cannot be had or do not fit.
    """
    cfg = read_config(name)
    set_keys(cfg, settings)
    if cfg.MODEL.BOX_RULE != "exclusive" or cfg.MODEL.MASK_ON:
        raise ConfigError(
            f"{name}: a network to be trained must have MODEL.BOX_RULE exclusive and "
            f"MODEL.MASK_ON False, found {cfg.MODEL.BOX_RULE} and {cfg.MODEL.MASK_ON}"
        )
    address = address_of(start or cfg.MODEL.WEIGHTS)
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.ROI_ATTRIBUTE_HEAD.NUM_CLASSES = map(len, labels)
    model = build_network(cfg, execution, name, seed=seed)
    if address:
        path = fetch(address)
        load_start(model, stored_state(model, path), str(path))
    else:
        log.warning("%s names no weights: the network starts from random ones", name)
    if labels[1] and not learns_attributes(model):
        log.warning("%s has no attribute head: attributes are not learned", name)
    return Detectron2Learner(model, cfg, labels, None)


class Detectron2Learner:
    """A network of detectron2 behind the calls that the training of detectors makes."""

    def __init__(
        self,
        network: GeneralizedRCNN,
        cfg: CfgNode,
        labels: Labels,
        config: NetworkConfig | None,
    ) -> None:
        self.network, self._cfg, self._labels, self._config = network.train(), cfg, labels, config
        self.resize = resize_rule_of(cfg)
        self.identity = {"backend": "detectron2", "config_sha256": config_sha256(cfg)}

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return detectron2's losses and the attribute head's, named as in the other backend."""
        if self._cfg.INPUT.FORMAT == "BGR":
            images = images.flip(1)
        size = (images.shape[-2], images.shape[-1])
        entries = [
            {"image": image, "instances": _instances(target, size)}
            for image, target in zip(images, targets, strict=True)
        ]
        # Its modules log into the storage of the loop they think they are in.
        with EventStorage():
            losses: dict[str, Tensor] = self.network(entries)
        return {_NAMES.get(name, name): value for name, value in losses.items()}

    def save(self, out: Path) -> None:
        """Write the detector into `out`; one with a network of ours opens in both backends."""
        state: dict[str, Tensor] = self.network.state_dict()
        objects, attributes = self._labels
        config = self._config
        if config is not None:
            state = to_ours(state, in_detectron2(config), constants_of(config), "the network")
        description = Description(
            network=config,
            detectron2=None if config else self._cfg.dump(),
            object_labels=objects,
            attribute_labels=attributes if learns_attributes(self.network) else (),
        )
        save_detector(out, state, description)


def _instances(target: Target, size: tuple[int, int]) -> Instances:
    """Return what detectron2 learns from in an image of `size` (H, W)."""
    return Instances(
        size,
        gt_boxes=Boxes(target.boxes),
        gt_classes=target.labels,
        gt_attributes=target.attributes,
    )
