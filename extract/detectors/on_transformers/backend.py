"""Detectors of queries, as transformers has them: equal to the plain call to the bit.

n images, Q queries, C object classes, T tokens of a text; a query's last hidden state is a feature.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForObjectDetection,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
)
from transformers.image_transforms import center_to_corners_format

from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors import batched
from semvlp.extract.detectors.on_transformers.hub import HUB, config_sha256, opened
from semvlp.extract.images.resize import Pixels, Resized, ResizeRule
from semvlp.extract.weights.checkpoint import state_sha256

_OWL = ("owlvit", "owlv2")
_OPEN = (*_OWL, "grounding-dino", "mm-grounding-dino")


def open_detector(name: str, execution: batched.Execution) -> "QueryDetector":
    """Open `hf:OWNER/NAME`, or a folder that transformers wrote.

    Raises:
        InputError: it cannot be had, is no detector, or lacks weights.
    """
    source = name.removeprefix(HUB)
    try:
        is_open = AutoConfig.from_pretrained(source).model_type in _OPEN
        auto = AutoModelForZeroShotObjectDetection if is_open else AutoModelForObjectDetection
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"--detector {name} cannot be opened: {error}") from error
    model, processor = opened(auto, AutoProcessor, source, f"--detector {name}")
    profile = {
        "backend": "transformers",
        "detector": name if name.startswith(HUB) else "",
        "config_sha256": config_sha256(source),
        # Copies, because layers may share a tensor.
        "weights_sha256": state_sha256({k: v.clone() for k, v in model.state_dict().items()}),
        "precision": execution.precision,
    }
    return (OpenDetector if is_open else QueryDetector)(model, processor, profile, execution)


class QueryDetector(batched.BatchedDetector):
    """A network of a closed set of classes; see `Detector`."""

    attribute_labels: tuple[str, ...] = ()
    describes_boxes = False

    def __init__(
        self, model: Any, processor: Any, profile: dict[str, Any], execution: batched.Execution
    ) -> None:
        super().__init__(ResizeRule(0, 0), execution.images_per_pass)
        self.profile, self._processor, self._execution = profile, processor, execution
        self._model, config = model.to(execution.device).eval(), model.config
        self.object_labels = tuple(config.id2label[index] for index in sorted(config.id2label))
        wide = getattr(config, "vision_config", config)
        self.feature_size: int = getattr(config, "d_model", 0) or wide.hidden_size
        self._words: dict[str, Tensor] = {}
        self._columns: list[slice] = []

    def prepare(self, image: NDArray[np.uint8]) -> Resized:
        """Resize and normalise [H, W, 3] as the processor does; a mask is a fourth channel."""
        size = height, width = image.shape[:2]
        process = getattr(self._processor, "image_processor", self._processor)
        inputs = process(images=image, input_data_format="channels_last", return_tensors="pt")
        mask = [each[None].float() for each in inputs.get("pixel_mask", ())]
        pixels = torch.cat([inputs["pixel_values"][0], *mask]).permute(1, 2, 0).numpy()
        # OWLv2 pads images to squares, of which its boxes are fractions.
        is_square = self._model.config.model_type == "owlv2"
        return Resized(pixels, (max(size),) * 2 if is_square else (width, height), (height, width))

    @torch.inference_mode()
    def _forward(
        self, pixels: Pixels, scales: list[float], given: Sequence[batched.GivenRegions | None]
    ) -> list[batched.RawDetections]:
        batch = torch.from_numpy(pixels).to(self._execution.device).permute(0, 3, 1, 2)
        inputs = {name: words.repeat(len(batch), 1) for name, words in self._words.items()}
        inputs["pixel_values"] = batch[:, :3].contiguous()
        if batch.shape[1] > 3:
            inputs["pixel_mask"] = batch[:, 3].long()
        with self._execution.convolutions():
            output = self._model(**inputs)
        boxes: Any = center_to_corners_format(output.pred_boxes)
        maps = output.get("image_embeds")
        # In YOLOS patches stand before the queries; in OWL-ViT every patch is one.
        last = output.last_hidden_state if maps is None else maps.flatten(1, 2)
        states = last[:, -boxes.shape[1] :]
        parts = zip(boxes.clamp(0, 1), self._scores(output.logits.float()), states, strict=True)
        return [batched.RawDetections(b, b[:, None], s, f[:, :0], f) for b, s, f in parts]

    def _scores(self, logits: Tensor) -> Tensor:
        """Return probabilities [n, Q, C + 1] of logits [n, Q, C + 1], [n, Q, C] or [n, Q, T].

        "No object" is what the likeliest class leaves, where there is no softmax with it; a label
        of words is as likely as its likeliest token.
        """
        if not self._words and logits.shape[-1] > len(self.object_labels):
            return logits.softmax(-1)
        scores = logits.sigmoid()
        if self._columns:
            scores = torch.stack([scores[..., each].amax(-1) for each in self._columns], dim=-1)
        return torch.cat([scores, 1 - scores.amax(-1, keepdim=True)], dim=-1)


class OpenDetector(QueryDetector):
    """A network whose classes are the labels that it was last told to look for."""

    def look_for(self, labels: tuple[str, ...]) -> None:
        """Make `labels` the object classes.

        Raises:
            ConfigError: there is none, or more text than the network reads.
        """
        if not labels or any("." in label for label in labels):
            raise ConfigError('--labels "dog, red car" must say what to find, without full stops')
        config = self._model.config
        is_owl = config.model_type in _OWL
        text = [list(labels)] if is_owl else " ".join(f"{label.lower()}." for label in labels)
        words = self._processor(text=text, return_tensors="pt").to(self._execution.device)
        stop = None if is_owl else self._processor.tokenizer.convert_tokens_to_ids(".")
        stops = [i for i, token in enumerate(words["input_ids"][0].tolist()) if token == stop]
        most = getattr(config, "max_text_len", config.text_config.max_position_embeddings)
        if words["input_ids"].shape[1] > most:
            raise ConfigError(
                f"--labels: {len(labels)} names are more text than this network reads"
            )
        starts = [1, *(stop + 1 for stop in stops)]
        self._columns = [slice(*each) for each in zip(starts, stops, strict=False)]
        self._words, self.object_labels, self.profile["labels"] = words, labels, list(labels)
