"""The detectron2 stage: Faster R-CNN configs of detectron2, with the contract of every detector.

Only files with its name import detectron2, which is not on PyPI. P proposals, C object
classes, A attributes, F feature size.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import GeneralizedRCNN, build_model
from detectron2.modeling.roi_heads import Res5ROIHeads, StandardROIHeads
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from semvlp.errors import ConfigError
from semvlp.extract.detectors.batched import (
    REGIONS_AT_ONCE,
    BatchedDetector,
    Execution,
    GivenRegions,
    RawDetections,
    with_given,
)
from semvlp.extract.detectors.on_detectron2.cfg import (
    address_of,
    check_format,
    config_of,
    config_sha256,
    labels_of,
    read_config,
    resize_rule_of,
    set_keys,
    stored_config,
)
from semvlp.extract.detectors.on_detectron2.heads import AttributeStandardROIHeads, BottomUpRPN
from semvlp.extract.detectors.on_detectron2.load import load_whole
from semvlp.extract.detectors.on_torchvision.backbones import every, fuse_conv_bn, unstride
from semvlp.extract.detectors.on_torchvision.backend import untrained
from semvlp.extract.detectors.on_torchvision.rpn import clip, decode
from semvlp.extract.detectors.published import (
    attribute_labels,
    count_labels,
    object_labels,
    read_published,
)
from semvlp.extract.images.resize import Pixels
from semvlp.extract.networks import NetworkConfig
from semvlp.extract.weights.checkpoint import load_strict, read_detector, read_weights, state_sha256
from semvlp.extract.weights.download import fetch
from semvlp.extract.weights.families import (
    State,
    from_ours,
    in_detectron2,
    unwrapped,
    without_constants,
)
from semvlp.settings import override

log = logging.getLogger(__name__)

Labels = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of object classes and of attributes."""


def open_config(
    name: str, weights: str | None, execution: Execution, settings: Sequence[str] = ()
) -> "Detectron2Detector":
    """Open the network of a detectron2 config.

    Args:
        name: a YAML file, or a name in detectron2's model zoo.
        weights: path, URL or `hf:` address; None takes those of the model zoo or of the YAML
            file, whose `MODEL.WEIGHTS: ""` means random ones from a fixed seed.
        execution: where and how exactly it runs.
        settings: `KEY=value` over the config.

    Raises:
        ConfigError: no such config or key, or a network that does not work on regions.
        InputError: weights that cannot be had or do not fit.
    """
    cfg = read_config(name)
    set_keys(cfg, settings)
    weights = address_of(cfg.MODEL.WEIGHTS if weights is None else weights)
    model = build_network(cfg, execution, name)
    if weights:
        path = fetch(weights)
        load_whole(model, stored_state(model, path), str(path))
    else:
        log.warning("%s names no weights: the network is random", name)
    return Detectron2Detector(model, cfg, execution)


def open_trained(
    path: Path, execution: Execution, settings: Sequence[str] = ()
) -> "Detectron2Detector":
    """Open the detector of our own whose JSON file is `path`, whichever backend it learned in."""
    description, state = read_detector(path)
    labels = description.object_labels, description.attribute_labels
    weights = str(path.with_suffix(".safetensors"))
    if description.detectron2 is None:
        assert description.network is not None
        config = override(description.network, settings)
        return _open(state, config, execution, weights, labels)
    cfg = stored_config(description.detectron2, str(path))
    set_keys(cfg, settings)
    model = build_network(cfg, execution, str(path))
    load_strict(model, state, weights)
    return Detectron2Detector(model, cfg, execution, labels)


def open_published(
    name: str, config: NetworkConfig, weights: Path, execution: Execution
) -> "Detectron2Detector":
    """Open the network `name` of `NETWORKS` with published weights, or some of our own.

    `config` is the network's, some settings of which may have been changed.
    """
    return _open(read_published(weights, name), config, execution, str(weights))


def open_untrained(config: NetworkConfig, execution: Execution) -> "Detectron2Detector":
    """Open a network with the random weights it has in the torchvision backend."""
    return _open(untrained(config).state_dict(), config, execution, "random weights")


def _open(
    state: State,
    config: NetworkConfig,
    execution: Execution,
    source: str,
    labels: Labels | None = None,
) -> "Detectron2Detector":
    """Open the network of a config with tensors under our names."""
    num_objects, num_attributes = count_labels(state, source)
    cfg = config_of(config, num_objects=num_objects, num_attributes=num_attributes)
    model = build_network(cfg, execution, source)
    load_strict(model, from_ours(state, in_detectron2(config)), source)
    labels = labels or (object_labels(num_objects), attribute_labels(num_attributes))
    return Detectron2Detector(model, cfg, execution, labels)


class Detectron2Detector(BatchedDetector):
    """A detectron2 network, taken over, that no longer learns; see `Detector`.

    Feature pyramids pad an image to a multiple of their largest stride, each by its own shape.
    """

    def __init__(
        self,
        model: GeneralizedRCNN,
        cfg: CfgNode,
        execution: Execution,
        labels: Labels | None = None,
    ) -> None:
        super().__init__(resize_rule_of(cfg), execution.images_per_pass)
        self._cfg, self._execution = cfg, execution
        count = cfg.MODEL.ROI_ATTRIBUTE_HEAD.NUM_CLASSES if learns_attributes(model) else 0
        self.object_labels, self.attribute_labels = labels or (
            labels_of(cfg),
            attribute_labels(count),
        )
        self.feature_size: int = model.roi_heads.box_predictor.cls_score.in_features
        self.profile: dict[str, Any] = {
            "backend": "detectron2",
            "config_sha256": config_sha256(cfg),
            "weights_sha256": state_sha256(model.state_dict()),
            "precision": execution.precision,
        }
        self._model, self._region_step = model.eval(), _fuse_for_inference(model)

    @torch.inference_mode()
    def _forward(
        self, pixels: Pixels, scales: list[float], given: Sequence[GivenRegions | None]
    ) -> list[RawDetections]:
        """Do as `GeneralizedRCNN.inference` up to the point where boxes are selected."""
        if self._cfg.INPUT.FORMAT == "BGR":
            pixels = pixels[..., ::-1].copy()
        tensors = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        images = self._model.preprocess_image([{"image": tensor} for tensor in tensors])
        with self._execution.convolutions():
            maps = self._model.backbone(images.tensor)
        maps = {name: each.float() for name, each in maps.items()}
        if isinstance(self._model.proposal_generator, BottomUpRPN):
            self._model.proposal_generator.scales = scales

        def propose() -> list[Tensor]:
            own, _ = self._model.proposal_generator(images, maps, None)
            return [each.proposal_boxes.tensor for each in own]

        regions = with_given(given, propose, like=images.tensor)
        proposals = [
            Instances(size, proposal_boxes=Boxes(boxes))
            for size, boxes in zip(images.image_sizes, regions, strict=True)
        ]
        with self._execution.convolutions():
            parts = [
                self._region_features(
                    {name: each[index : index + 1] for name, each in maps.items()}, boxes
                )
                for index, image in enumerate(proposals)
                for boxes in torch.split(image.proposal_boxes.tensor, REGIONS_AT_ONCE)
            ]
        return self._raw_detections(proposals, torch.cat(parts).float(), scales)

    def _region_features(self, maps: dict[str, Tensor], boxes: Tensor) -> Tensor:
        """Return [P, F] of an image: the mean of res5 in C4 networks, else the box head's."""
        heads, regions = self._model.roi_heads, [Boxes(boxes)]
        if isinstance(heads, Res5ROIHeads):
            pooled = heads.pooler([maps[name] for name in heads.in_features], regions)
            return heads.res5(every(self._region_step, pooled)).mean(dim=(2, 3))  # type: ignore[no-any-return]
        pooled = heads.box_pooler([maps[name] for name in heads.box_in_features], regions)
        # A head that ends in convolutions leaves maps, which the predictor takes flattened.
        return heads.box_head(pooled).flatten(1)  # type: ignore[no-any-return]

    def _raw_detections(
        self, proposals: list[Any], features: Tensor, scales: list[float]
    ) -> list[RawDetections]:
        """Return scores and boxes of every class for the regions of all images, image by image."""
        predictor = self._model.roi_heads.box_predictor
        predictions = predictor(features)
        counts = [len(each) for each in proposals]
        parts = zip(
            proposals,
            self._boxes(predictions, proposals, scales),
            predictor.predict_probs(predictions, proposals),
            torch.split(self._attribute_scores(features, predictions[0]), counts),
            torch.split(features, counts),
            strict=True,
        )
        return [
            RawDetections(
                proposals=each.proposal_boxes.tensor,
                boxes=boxes,
                object_scores=scores,
                attribute_scores=attributes,
                features=part,
            )
            for each, boxes, scores, attributes, part in parts
        ]

    def _boxes(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Any], scales: list[float]
    ) -> list[Tensor]:
        """Return [P, C, 4] regressed and clipped, for each image."""
        predictor, convention = self._model.roi_heads.box_predictor, self._cfg.MODEL.BOX_RULE
        if convention == "exclusive":
            boxes = predictor.predict_boxes(predictions, proposals)
            return [
                clip(part.view(len(each), -1, 4), each.image_size, convention=convention)
                for part, each in zip(boxes, proposals, strict=True)
            ]
        results = []
        deltas = torch.split(predictions[1], [len(each) for each in proposals])
        for part, each, scale in zip(deltas, proposals, scales, strict=True):
            pixel = scale if convention == "caffe" else 1.0
            weights = tuple(self._cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS)
            regions = each.proposal_boxes.tensor
            decoded = decode(part, regions, weights=weights, convention=convention, pixel=pixel)
            results.append(clip(decoded, each.image_size, convention=convention, pixel=pixel))
        return results

    def _attribute_scores(self, features: Tensor, object_logits: Tensor) -> Tensor:
        """Return [P, A] given the likeliest object class, without "none" after the softmax."""
        if not self.attribute_labels:
            return features.new_zeros(len(features), 0)
        if self._cfg.MODEL.ROI_ATTRIBUTE_HEAD.GIVEN == "object class":
            object_logits = object_logits[:, :-1]
        logits = self._model.roi_heads.attribute_predictor(features, object_logits.argmax(-1))
        return logits.softmax(-1)[:, :-1]  # type: ignore[no-any-return]


def build_network(
    cfg: CfgNode, execution: Execution, name: str, *, seed: int = 0
) -> GeneralizedRCNN:
    """Build the network of a config with random weights from `seed`.

    Raises:
        ConfigError: it is none whose parts this file knows how to call; `name` is its name there.
    """
    check_format(cfg, name)
    cfg.MODEL.DEVICE = execution.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = build_model(cfg)
        except (KeyError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"--detector {name}: detectron2 cannot build its network ({error})"
            ) from error
    heads = getattr(model, "roi_heads", None)
    is_fpn = type(heads) in (StandardROIHeads, AttributeStandardROIHeads)
    is_known = is_fpn or isinstance(heads, Res5ROIHeads)
    if not isinstance(model, GeneralizedRCNN) or not is_known:
        raise ConfigError(
            f"--detector {name}: the network must be a GeneralizedRCNN with Res5ROIHeads or "
            f"StandardROIHeads, found {type(model).__name__} with {type(heads).__name__}"
        )
    if model.proposal_generator is None:
        raise ConfigError(
            f"--detector {name}: the network must propose regions itself, but its config reads "
            "proposals from files (MODEL.LOAD_PROPOSALS True)"
        )
    return model


def stored_state(model: nn.Module, path: Path) -> State:
    """Return the learned tensors of a file under detectron2's names.

    Raises:
        InputError: constants that older versions stored are not those of the config.
    """
    constants = {
        name: buffer for name, buffer in model.named_buffers() if name not in model.state_dict()
    }
    return without_constants(unwrapped(read_weights(path)), constants, str(path))


def _fuse_for_inference(model: GeneralizedRCNN) -> int:
    """Make the layers faster and return the step at which res5 then wants the pooled cells."""
    for module in model.modules():
        norm = getattr(module, "norm", None)
        if isinstance(module, Conv2d) and isinstance(norm, FrozenBatchNorm2d | nn.BatchNorm2d):
            fuse_conv_bn(module, norm)
            module.norm = None
    model.to(memory_format=torch.channels_last)
    if not isinstance(model.roi_heads, Res5ROIHeads):
        return 1
    first = model.roi_heads.res5[0]
    return unstride(first.conv1, first.shortcut)


def learns_attributes(model: GeneralizedRCNN) -> bool:
    """Tell whether the region heads have an attribute head."""
    return getattr(model.roi_heads, "attribute_predictor", None) is not None
