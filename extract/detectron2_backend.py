"""The detectron2 stage: any Faster R-CNN config of detectron2, with the contract of every detector.

This file and `detectron2_parts` import detectron2, which is not on PyPI. P proposals, C object
classes, A attributes, F feature size.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.modeling import GeneralizedRCNN, build_model
from detectron2.modeling.roi_heads import Res5ROIHeads, StandardROIHeads
from detectron2.structures import Boxes
from numpy.typing import NDArray
from torch import Tensor, nn

from semvlp.errors import ConfigError
from semvlp.extract.box_rules import clip, decode
from semvlp.extract.checkpoints import load_strict, read_weights, state_sha256
from semvlp.extract.detector import Proposals
from semvlp.extract.detectron2_config import ADDED, settings_of
from semvlp.extract.detectron2_parts import BottomUpRPN
from semvlp.extract.downloads import fetch
from semvlp.extract.families import DETECTRON2, State, from_ours, without_constants
from semvlp.extract.networks import NetworkConfig
from semvlp.extract.passes import REGIONS_AT_ONCE, Found, Place, detect_in_passes
from semvlp.extract.published import attribute_labels, count_labels, object_labels, read_published
from semvlp.extract.resize import Pixels, ResizeRule
from semvlp.extract.torchvision_backend import untrained

log = logging.getLogger(__name__)


def default_config() -> CfgNode:
    """detectron2's default config with the keys of `detectron2_config.ADDED`."""
    cfg = get_cfg()
    _add(cfg, ADDED)
    return cfg


def open_config(
    name: str, weights: str | None, place: Place, settings: Sequence[str] = ()
) -> "Detectron2Detector":
    """The network of a detectron2 config.

    Args:
        name: a YAML file, or a name in detectron2's model zoo.
        weights: path, URL or `hf:` address; None takes those of the model zoo or of the YAML
            file, whose `MODEL.WEIGHTS: ""` means random ones from a fixed seed.
        place: where and how exactly it runs.
        settings: `KEY=value` over the config.

    Raises:
        ConfigError: no such config or key, or a network that does not work on regions.
        InputError: weights that cannot be had or do not fit.
    """
    cfg = _read_config(name)
    _set(cfg, settings)
    weights = _address(cfg.MODEL.WEIGHTS if weights is None else weights)
    model = _build(cfg, place)
    _check(model, name)
    if weights:
        _load(model, fetch(weights))
    else:
        log.warning("%s names no weights: the network is random", name)
    return Detectron2Detector(model, cfg, place)


def open_published(
    name: str, config: NetworkConfig, weights: Path, place: Place
) -> "Detectron2Detector":
    """The network `name` of `NETWORKS` with published weights, or some of our own.

    `config` is the network's, some settings of which may have been changed.
    """
    return _open(read_published(weights, name), config, place, str(weights))


def open_untrained(config: NetworkConfig, place: Place) -> "Detectron2Detector":
    """A network with the random weights it has in the torchvision backend."""
    return _open(untrained(config).state_dict(), config, place, "random weights")


def _open(state: State, config: NetworkConfig, place: Place, source: str) -> "Detectron2Detector":
    """The network of a config with tensors under our names."""
    num_objects, num_attributes = count_labels(state, source)
    cfg = default_config()
    tree = settings_of(config, num_objects=num_objects, num_attributes=num_attributes)
    cfg.merge_from_other_cfg(CfgNode(tree))
    model = _build(cfg, place)
    load_strict(model, from_ours(state, DETECTRON2), source)
    return Detectron2Detector(model, cfg, place)


class Detectron2Detector:
    """A detectron2 network ready to run; see `semvlp.extract.detector.Detector`."""

    def __init__(self, model: GeneralizedRCNN, cfg: CfgNode, place: Place) -> None:
        self._model, self._cfg, self._place = model.eval(), cfg, place
        self.object_labels = _object_labels(cfg)
        has_attributes = getattr(model.roi_heads, "attribute_predictor", None) is not None
        count = cfg.MODEL.ROI_ATTRIBUTE_HEAD.NUM_CLASSES if has_attributes else 0
        self.attribute_labels = attribute_labels(count)
        self.feature_size: int = model.roi_heads.box_predictor.cls_score.in_features
        self.profile: dict[str, Any] = {
            "backend": "detectron2",
            "config_sha256": _config_sha256(cfg),
            "weights_sha256": state_sha256(model.state_dict()),
            "precision": place.precision,
        }

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Proposals]:
        """Detect in RGB images [H, W, 3]; only images of equal resized shape share a pass.

        Feature pyramids pad an image to a multiple of their largest stride, each by its own shape.
        """
        sizes = self._cfg.INPUT
        return detect_in_passes(
            images,
            self._find,
            ResizeRule(sizes.MIN_SIZE_TEST, sizes.MAX_SIZE_TEST, sizes.RESIZE),
            images_per_pass=self._place.images_per_pass,
        )

    @torch.inference_mode()
    def _find(self, pixels: Pixels, scales: list[float]) -> list[Found]:
        """`GeneralizedRCNN.inference` up to the point where boxes are selected."""
        if self._cfg.INPUT.FORMAT == "BGR":
            pixels = pixels[..., ::-1].copy()
        tensors = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        images = self._model.preprocess_image([{"image": tensor} for tensor in tensors])
        with self._place.convolutions():
            maps = self._model.backbone(images.tensor)
        maps = {name: each.float() for name, each in maps.items()}
        if isinstance(self._model.proposal_generator, BottomUpRPN):
            self._model.proposal_generator.scales = scales
        proposals, _ = self._model.proposal_generator(images, maps, None)
        with self._place.convolutions():
            parts = [
                self._region_features(
                    {name: each[index : index + 1] for name, each in maps.items()}, boxes
                )
                for index, image in enumerate(proposals)
                for boxes in torch.split(image.proposal_boxes.tensor, REGIONS_AT_ONCE)
            ]
        return self._found(proposals, torch.cat(parts).float(), scales)

    def _region_features(self, maps: dict[str, Tensor], boxes: Tensor) -> Tensor:
        """[P, F] of one image: the mean of res5 in C4 networks, the box head's output elsewhere."""
        heads, regions = self._model.roi_heads, [Boxes(boxes)]
        if isinstance(heads, Res5ROIHeads):
            pooled = heads._shared_roi_transform(
                [maps[name] for name in heads.in_features], regions
            )
            return pooled.mean(dim=(2, 3))  # type: ignore[no-any-return]
        pooled = heads.box_pooler([maps[name] for name in heads.box_in_features], regions)
        return heads.box_head(pooled)  # type: ignore[no-any-return]

    def _found(self, proposals: list[Any], features: Tensor, scales: list[float]) -> list[Found]:
        """Scores and boxes of every class for the regions of all images, cut into images."""
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
            Found(
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
        """[P, C, 4] regressed and clipped, for each image."""
        predictor, rule = self._model.roi_heads.box_predictor, self._cfg.MODEL.BOX_RULE
        if rule == "exclusive":
            boxes = predictor.predict_boxes(predictions, proposals)
            return [
                clip(part.view(len(each), -1, 4), each.image_size, rule=rule)
                for part, each in zip(boxes, proposals, strict=True)
            ]
        results = []
        deltas = torch.split(predictions[1], [len(each) for each in proposals])
        for part, each, scale in zip(deltas, proposals, scales, strict=True):
            pixel = scale if rule == "caffe" else 1.0
            weights = tuple(self._cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS)
            regions = each.proposal_boxes.tensor
            decoded = decode(part, regions, weights=weights, rule=rule, pixel=pixel)
            results.append(clip(decoded, each.image_size, rule=rule, pixel=pixel))
        return results

    def _attribute_scores(self, features: Tensor, object_logits: Tensor) -> Tensor:
        """[P, A] given the likeliest object class; "none" is left out after the softmax."""
        if not self.attribute_labels:
            return features.new_zeros(len(features), 0)
        if self._cfg.MODEL.ROI_ATTRIBUTE_HEAD.GIVEN == "object class":
            object_logits = object_logits[:, :-1]
        logits = self._model.roi_heads.attribute_predictor(features, object_logits.argmax(-1))
        return logits.softmax(-1)[:, :-1]  # type: ignore[no-any-return]


def _build(cfg: CfgNode, place: Place) -> GeneralizedRCNN:
    """The network with random weights from a fixed seed."""
    cfg.MODEL.DEVICE = place.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(cfg)


def _add(cfg: CfgNode, tree: dict[str, Any]) -> None:
    """Keys that detectron2's config does not have yet."""
    for name, value in tree.items():
        if isinstance(value, dict) and name in cfg:
            _add(cfg[name], value)
        else:
            cfg[name] = CfgNode(value) if isinstance(value, dict) else value


def _set(cfg: CfgNode, settings: Sequence[str]) -> None:
    for each in settings:
        name, separator, value = each.partition("=")
        try:
            cfg.merge_from_list([name, value] if separator else [name])
        except (KeyError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"--set {each}: must be KEY=value with a key of detectron2's config, "
                f"such as INPUT.MIN_SIZE_TEST=400 ({error})"
            ) from error


def _read_config(name: str) -> CfgNode:
    """The config of a file, or of a name in the model zoo with the zoo's own weights."""
    cfg = default_config()
    if Path(name).is_file():
        cfg.merge_from_file(name)
        return cfg
    try:
        cfg.merge_from_file(model_zoo.get_config_file(name))
        cfg.MODEL.WEIGHTS = model_zoo.get_checkpoint_url(name)
    except RuntimeError as error:
        raise ConfigError(
            f"--detector {name}: no such file, and no name in detectron2's model zoo ({error})"
        ) from error
    return cfg


def _check(model: nn.Module, name: str) -> None:
    """The networks whose parts this file knows how to call."""
    heads = getattr(model, "roi_heads", None)
    known = isinstance(heads, Res5ROIHeads) or type(heads) is StandardROIHeads
    if not isinstance(model, GeneralizedRCNN) or not known:
        raise ConfigError(
            f"--detector {name}: the network must be a GeneralizedRCNN with Res5ROIHeads or "
            f"StandardROIHeads, found {type(model).__name__} with {type(heads).__name__}"
        )


def _load(model: nn.Module, path: Path) -> None:
    """Load weights strictly; constants that older versions stored must be those of the config."""
    constants = {
        name: buffer for name, buffer in model.named_buffers() if name not in model.state_dict()
    }
    state = without_constants(read_weights(path), constants, str(path))
    load_strict(model, state, str(path))


def _object_labels(cfg: CfgNode) -> tuple[str, ...]:
    """Names of the test data set where detectron2 knows them."""
    count = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    for dataset in cfg.DATASETS.TEST:
        names = MetadataCatalog.get(dataset).get("thing_classes", ())
        if len(names) == count:
            return tuple(names)
    return object_labels(count)


def _config_sha256(cfg: CfgNode) -> str:
    """Hash of what shapes the numbers; where the weights lie and where it runs do not."""
    shaping = json.loads(json.dumps({"MODEL": cfg.MODEL, "INPUT": cfg.INPUT}))
    del shaping["MODEL"]["WEIGHTS"], shaping["MODEL"]["DEVICE"]
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def _address(weights: str) -> str:
    """detectron2's own addresses as URLs."""
    return weights.replace("detectron2://", "https://dl.fbaipublicfiles.com/detectron2/", 1)
