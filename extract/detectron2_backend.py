"""The detectron2 stage: any Faster R-CNN config of detectron2, with the contract of every detector.

The one file that imports detectron2, which is not on PyPI. P proposals, C object classes,
A attributes, F feature size.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode, configurable, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY, GeneralizedRCNN, build_model
from detectron2.modeling.roi_heads import Res5ROIHeads, StandardROIHeads
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from semvlp.errors import ConfigError
from semvlp.extract.checkpoints import load_strict, read_weights, state_sha256
from semvlp.extract.detector import Proposals
from semvlp.extract.downloads import fetch
from semvlp.extract.families import without_constants
from semvlp.extract.passes import Found, Pixels, Place, detect_in_passes

log = logging.getLogger(__name__)


class AttributePredictor(nn.Module):
    """Region feature and object class -> attribute logits, "none" last.

    The head of Bottom-Up and Top-Down (Anderson et al. 2018, section 3.1) under the names of
    facebookresearch/grid-feats-vqa (grid_feats/roi_heads.py, AttributePredictor).
    """

    def __init__(
        self, *, features: int, num_objects: int, num_attributes: int, embedding: int, hidden: int
    ) -> None:
        super().__init__()
        self.obj_embed = nn.Embedding(num_objects + 1, embedding)
        self.fc = nn.Sequential(nn.Linear(features + embedding, hidden), nn.ReLU())
        self.attr_score = nn.Linear(hidden, num_attributes + 1)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """[P, F] and object classes [P] -> [P, A + 1]."""
        known = torch.cat([features, self.obj_embed(labels)], dim=-1)
        return self.attr_score(self.fc(known))  # type: ignore[no-any-return]


@ROI_HEADS_REGISTRY.register()
class AttributeRes5ROIHeads(Res5ROIHeads):  # type: ignore[misc]
    """C4 region heads with an attribute head, for finding only; it takes no part in training."""

    @configurable  # type: ignore[untyped-decorator]
    def __init__(self, *, attribute_predictor: nn.Module, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attribute_predictor = attribute_predictor

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments of `__init__`, as detectron2's `@configurable` wants them."""
        head = cfg.MODEL.ROI_ATTRIBUTE_HEAD
        predictor = AttributePredictor(
            features=cfg.MODEL.RESNETS.RES2_OUT_CHANNELS * 8,
            num_objects=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            num_attributes=head.NUM_CLASSES,
            embedding=head.EMBEDDING,
            hidden=head.HIDDEN,
        )
        return {**super().from_config(cfg, input_shape), "attribute_predictor": predictor}


def default_config() -> CfgNode:
    """detectron2's default config with the node of the attribute head; A is NUM_CLASSES."""
    cfg = get_cfg()
    cfg.MODEL.ROI_ATTRIBUTE_HEAD = CfgNode({"NUM_CLASSES": 400, "EMBEDDING": 256, "HIDDEN": 512})
    return cfg


def open_config(
    name: str, weights: str | None, place: Place, *, num_proposals: int | None = None
) -> "Detectron2Detector":
    """The network of a detectron2 config.

    Args:
        name: a YAML file, or a name in detectron2's model zoo.
        weights: path, URL or `hf:` address; None takes those of the model zoo or of the YAML
            file, whose `MODEL.WEIGHTS: ""` means random ones from a fixed seed.
        num_proposals: proposals of an image; what the config says unless given.

    Raises:
        ConfigError: no such config, or a network that does not work on regions.
        InputError: weights that cannot be had or do not fit.
    """
    cfg = _read_config(name)
    if num_proposals is not None:
        cfg.MODEL.RPN.POST_NMS_TOPK_TEST = num_proposals
    cfg.MODEL.DEVICE = place.device
    weights = _address(cfg.MODEL.WEIGHTS if weights is None else weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(cfg)
    _check(model, name)
    if weights:
        _load(model, fetch(weights))
    else:
        log.warning("%s names no weights: the network is random", name)
    return Detectron2Detector(model, cfg, place)


class Detectron2Detector:
    """A detectron2 network ready to run; see `semvlp.extract.detector.Detector`."""

    def __init__(self, model: GeneralizedRCNN, cfg: CfgNode, place: Place) -> None:
        self._model, self._input, self._place = model.eval(), cfg.INPUT, place
        self.object_labels = _object_labels(cfg)
        has_attributes = hasattr(model.roi_heads, "attribute_predictor")
        count = cfg.MODEL.ROI_ATTRIBUTE_HEAD.NUM_CLASSES if has_attributes else 0
        self.attribute_labels = tuple(f"attribute {index}" for index in range(count))
        self.feature_size: int = model.roi_heads.box_predictor.cls_score.in_features
        self.profile: dict[str, Any] = {
            "backend": "detectron2",
            "config_sha256": _config_sha256(cfg),
            "weights_sha256": state_sha256(model.state_dict()),
            "precision": place.precision,
        }

    def __call__(self, images: Sequence[Pixels]) -> list[Proposals]:
        """Detect in RGB images [H, W, 3]; only images of equal resized shape share a pass.

        Feature pyramids pad an image to a multiple of their largest stride, each by its own shape.
        """
        return detect_in_passes(
            images,
            self._find,
            shorter=self._input.MIN_SIZE_TEST,
            longer=self._input.MAX_SIZE_TEST,
            images_per_pass=self._place.images_per_pass,
        )

    @torch.inference_mode()
    def _find(self, pixels: Pixels) -> list[Found]:
        """`GeneralizedRCNN.inference` up to the point where boxes are selected."""
        if self._input.FORMAT == "BGR":
            pixels = pixels[..., ::-1].copy()
        tensors = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        images = self._model.preprocess_image([{"image": tensor} for tensor in tensors])
        with self._place.convolutions():
            maps = self._model.backbone(images.tensor)
        maps = {name: each.float() for name, each in maps.items()}
        proposals, _ = self._model.proposal_generator(images, maps, None)
        with self._place.convolutions():
            features = self._region_features(maps, [each.proposal_boxes for each in proposals])
        return self._found(proposals, features.float())

    def _region_features(self, maps: dict[str, Tensor], boxes: list[Any]) -> Tensor:
        """[P, F]: the mean of res5 in C4 networks, the box head's output in the others."""
        heads = self._model.roi_heads
        if isinstance(heads, Res5ROIHeads):
            pooled = heads._shared_roi_transform([maps[name] for name in heads.in_features], boxes)
            return pooled.mean(dim=(2, 3))  # type: ignore[no-any-return]
        pooled = heads.box_pooler([maps[name] for name in heads.box_in_features], boxes)
        return heads.box_head(pooled)  # type: ignore[no-any-return]

    def _found(self, proposals: list[Any], features: Tensor) -> list[Found]:
        """Scores and boxes of every class for the regions of all images, cut into images."""
        predictor = self._model.roi_heads.box_predictor
        predictions = predictor(features)
        counts = [len(each) for each in proposals]
        parts = zip(
            proposals,
            predictor.predict_boxes(predictions, proposals),
            predictor.predict_probs(predictions, proposals),
            torch.split(self._attribute_scores(features, predictions[0]), counts),
            torch.split(features, counts),
            strict=True,
        )
        return [
            Found(
                proposals=each.proposal_boxes.tensor,
                boxes=clip_boxes_to_image(boxes.view(len(each), -1, 4), each.image_size),
                object_scores=scores,
                attribute_scores=attributes,
                features=part,
            )
            for each, boxes, scores, attributes, part in parts
        ]

    def _attribute_scores(self, features: Tensor, object_logits: Tensor) -> Tensor:
        """[P, A] given the likeliest object class; "none" is left out after the softmax."""
        if not self.attribute_labels:
            return features.new_zeros(len(features), 0)
        logits = self._model.roi_heads.attribute_predictor(features, object_logits.argmax(-1))
        return logits.softmax(-1)[:, :-1]  # type: ignore[no-any-return]


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
    """Names of the test data set where detectron2 knows them, numbers elsewhere."""
    count = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    for dataset in cfg.DATASETS.TEST:
        names = MetadataCatalog.get(dataset).get("thing_classes", ())
        if len(names) == count:
            return tuple(names)
    return tuple(f"object {index}" for index in range(count))


def _config_sha256(cfg: CfgNode) -> str:
    """Hash of what shapes the numbers; where the weights lie and where it runs do not."""
    shaping = json.loads(json.dumps({"MODEL": cfg.MODEL, "INPUT": cfg.INPUT}))
    del shaping["MODEL"]["WEIGHTS"], shaping["MODEL"]["DEVICE"]
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def _address(weights: str) -> str:
    """detectron2's own addresses as URLs."""
    return weights.replace("detectron2://", "https://dl.fbaipublicfiles.com/detectron2/", 1)
