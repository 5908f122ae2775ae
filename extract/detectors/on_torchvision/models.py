"""torchvision's own Faster and Mask R-CNNs: its models as they are, equal to them to the bit.

Where `faster_rcnn.py` composes networks of torchvision's parts, these are the models it publishes
weights for. P regions of all images, C object classes, F feature size. Background is the first
class there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d, clip_boxes_to_image

from semvlp.errors import InputError
from semvlp.extract.detectors.batched import (
    BatchedDetector,
    Execution,
    GivenRegions,
    RawDetections,
    with_given,
)
from semvlp.extract.detectors.published import numbered
from semvlp.extract.images.resize import Pixels, Resized, ResizeRule
from semvlp.extract.networks import ModelConfig
from semvlp.extract.weights.checkpoint import read_weights, state_sha256

# Published weights were trained over frozen norms with this eps (torchvision's own functions set it
# where they load them); those that are not here over norms that are not frozen.
_FROZEN_EPS = {
    "fasterrcnn_resnet50_fpn": 0.0,
    "maskrcnn_resnet50_fpn": 0.0,
    "fasterrcnn_mobilenet_v3_large_fpn": 1e-5,
    "fasterrcnn_mobilenet_v3_large_320_fpn": 1e-5,
}


def open_model(config: ModelConfig, weights: Path, execution: Execution) -> "ModelDetector":
    """Open a model with the weights in a file, torchvision's or a state of the same model.

    Raises:
        InputError: the file cannot be read, or is no whole state of the model.
    """
    state = read_weights(weights)
    classes = state.get("roi_heads.box_predictor.cls_score.bias")
    model = build_model(config, 91 if classes is None else len(classes))
    try:
        # Not by our own comparison: the models know the names that their parts had before, which
        # some of the published files have.
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{weights} does not fit the network: {error!s:.500}") from error
    return ModelDetector(model, config, execution)


def build_model(config: ModelConfig, num_classes: int) -> nn.Module:
    """Return the model with random weights; background is one of its classes."""
    model: Any = get_model(
        config.model,
        weights=None,
        weights_backbone=None,
        num_classes=num_classes,
        min_size=config.shorter_side,
        max_size=config.longer_side,
        rpn_pre_nms_top_n_test=config.num_candidates,
        rpn_post_nms_top_n_test=config.num_proposals,
        rpn_nms_thresh=config.rpn_nms,
    )
    if config.model in _FROZEN_EPS:
        _freeze(model.backbone, _FROZEN_EPS[config.model])
    return model.eval()  # type: ignore[no-any-return]


class ModelDetector(BatchedDetector):
    """A model of torchvision's, taken over; see `Detector`."""

    attribute_labels: tuple[str, ...] = ()

    def __init__(self, model: Any, config: ModelConfig, execution: Execution) -> None:
        super().__init__(ResizeRule(0, 0), execution.images_per_pass)
        predictor = model.roi_heads.box_predictor.cls_score
        self.object_labels = _labels(config.model, predictor.out_features - 1)
        self.feature_size: int = predictor.in_features
        self.profile: dict[str, Any] = {
            "backend": "torchvision",
            "network": config.stored(),
            "weights_sha256": state_sha256(model.state_dict()),
            "precision": execution.precision,
        }
        self._transform, self._execution = model.transform, execution
        self._model = model.to(execution.device)

    def prepare(self, image: NDArray[np.uint8]) -> Resized:
        """Normalise and resize an RGB image [H, W, 3] as the model does."""
        height, width = image.shape[:2]
        pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        resized, _ = self._transform.resize(self._transform.normalize(pixels), None)
        tall, wide = resized.shape[1:]
        back = (width / wide, height / tall)
        return Resized(resized.permute(1, 2, 0).numpy(), back, (height, width))

    @torch.inference_mode()
    def _forward(
        self, pixels: Pixels, scales: list[float], given: Sequence[GivenRegions | None]
    ) -> list[RawDetections]:
        """Do as `GeneralizedRCNN.forward` up to the point where boxes are selected."""
        batch = torch.from_numpy(pixels).to(self._execution.device).permute(0, 3, 1, 2)
        sizes = [(batch.shape[2], batch.shape[3])] * len(batch)
        images = ImageList(self._transform.batch_images(list(batch)), sizes)
        with self._execution.convolutions():
            maps = self._model.backbone(images.tensors)
        maps = {name: each.float() for name, each in maps.items()}
        proposals = with_given(given, lambda: self._model.rpn(images, maps)[0], like=batch)
        heads = self._model.roi_heads
        with self._execution.convolutions():
            features = heads.box_head(heads.box_roi_pool(maps, proposals, sizes)).float()
        logits, deltas = heads.box_predictor(features)
        counts = [len(boxes) for boxes in proposals]
        parts = zip(
            proposals,
            sizes,
            heads.box_coder.decode(deltas, proposals).split(counts),
            logits.softmax(-1).split(counts),
            features.split(counts),
            strict=True,
        )
        return [_raw(*part) for part in parts]


def _raw(
    proposals: Tensor, size: tuple[int, int], boxes: Tensor, scores: Tensor, features: Tensor
) -> RawDetections:
    return RawDetections(
        proposals=proposals,
        boxes=clip_boxes_to_image(boxes, size)[:, 1:],
        object_scores=torch.cat([scores[:, 1:], scores[:, :1]], dim=1),
        attribute_scores=features.new_zeros(len(features), 0),
        features=features,
    )


def _labels(model: str, count: int) -> tuple[str, ...]:
    """Return the names of the published weights' classes, numbers where there are others."""
    names = tuple(get_model_weights(model).DEFAULT.meta["categories"][1:])
    return names if len(names) == count else numbered("object", count)


def _freeze(module: nn.Module, eps: float) -> None:
    """Replace every batch norm by a frozen one."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps))
        else:
            _freeze(child, eps)
