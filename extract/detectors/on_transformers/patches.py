"""Region features of a vision transformer: RoIAlign on the map of its patches.

H x W an image as it was given, h x w the same image resized to gh x gw patches of p pixels a side;
n images, T tokens, P boxes, F feature size. Boxes are xyxy in pixels of the image as it was given.
"""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.ops import roi_align
from transformers import AutoImageProcessor, AutoModel

from semvlp.errors import InputError
from semvlp.extract.batching import passes
from semvlp.extract.detectors.batched import REGIONS_AT_ONCE, Execution
from semvlp.extract.detectors.detector import Detector, OpenVocabulary, Proposals
from semvlp.extract.detectors.on_transformers.hub import HUB, config_sha256, opened
from semvlp.extract.images.resize import Pixels, Resized
from semvlp.extract.weights.checkpoint import state_sha256

_BINS = 7
# A class token and, in DeiT, a second one; registers are counted by the configuration.
_CLASS_TOKENS = 2


def with_patch_features(
    detector: Detector, name: str, side: int | None, execution: Execution
) -> "PatchDetector":
    """Return a detector whose regions are described by `hf:OWNER/NAME` or a folder of transformers.

    `side` is that of the square with as many pixels as the network sees, its own where None.

    Raises:
        InputError: the network cannot be had, lacks weights or has no grid of patches.
    """
    source = name.removeprefix(HUB)
    # What is pooled of the whole image is not asked for, and in some weights not there.
    model, processor = opened(AutoModel, AutoImageProcessor, source, f"--features {name}", _is_used)
    model = getattr(model, "vision_model", model)
    patches = PatchMap(model, processor, side, execution, f"--features {name}")
    state = {k: v.clone() for k, v in model.state_dict().items() if _is_used(k)}
    profile = {
        "network": name if name.startswith(HUB) else "",
        "weights_sha256": state_sha256(state),
        "config_sha256": config_sha256(source),
        "side": patches.side,
        "patch": patches.patch,
        "pooling": f"RoIAlign {_BINS} x {_BINS}, aligned, mean",
    }
    of = OpenPatchDetector if isinstance(detector, OpenVocabulary) else PatchDetector
    return of(detector, patches, profile)


class PatchMap:
    """A vision transformer whose last hidden states are a map of its patches."""

    def __init__(
        self, model: Any, processor: Any, side: int | None, execution: Execution, name: str
    ) -> None:
        self._model = model.to(execution.device).eval()
        self._execution, self._name = execution, name
        self._processor, self._config = processor, model.config
        patch = getattr(model.config, "patch_size", None)
        if not isinstance(patch, int):
            raise self._without_grid("its configuration has no single patch_size")
        self.patch = patch
        self.side = side or self._own_side()
        self._takes = inspect.signature(model.forward).parameters
        try:
            black = self.prepare(np.zeros((2 * patch, 3 * patch, 3), np.uint8))
            self.feature_size: int = self.maps(black[None]).shape[1]
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise self._without_grid(f"{error!s:.300}") from error

    def prepare(self, image: NDArray[np.uint8]) -> Pixels:
        """Resize an image [H, W, 3] to whole patches [h, w, 3], none of it cut off or added.

        Each side is rounded to patches by itself, in the proportion of the image, and their number
        is about that of the square of `side`.
        """
        height, width = image.shape[:2]
        most = max(1, self.side // self.patch) ** 2
        tall, wide = (
            self.patch * min(most, max(1, round(sqrt(most * ratio))))
            for ratio in (height / width, width / height)
        )
        if (tall, wide) == (height, width):
            return image
        resample = Image.Resampling(self._processor.resample)
        return np.asarray(Image.fromarray(image).resize((wide, tall), resample))

    @torch.inference_mode()
    def maps(self, pixels: Pixels) -> Tensor:
        """Return the last hidden states [n, F, gh, gw] of images [n, h, w, 3] of bytes.

        Raises:
            InputError: they are not one for each patch behind the tokens of the whole image.
        """
        mean, std = (
            torch.tensor(getattr(self._processor, each)) for each in ("image_mean", "image_std")
        )
        scaled = torch.tensor(pixels, dtype=torch.float32) * self._processor.rescale_factor
        batch = ((scaled - mean) / std).to(self._execution.device).permute(0, 3, 1, 2)
        tall, wide = (side // self.patch for side in batch.shape[2:])
        with self._execution.convolutions():
            states = self._model(**self._inputs(batch, tall, wide)).last_hidden_state.float()
        before = states.shape[1] - tall * wide if states.ndim == 3 else -1
        if not 0 <= before <= _CLASS_TOKENS + getattr(self._config, "num_register_tokens", 0):
            raise self._without_grid(
                f"its last hidden states {list(states.shape)} are not {tall} x {wide} patches"
            )
        grid: Tensor = states[:, before:].transpose(1, 2).unflatten(2, (tall, wide))
        return grid

    def describe(
        self, grid: Tensor, boxes: NDArray[np.float32], size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Return features [P, F] of boxes [P, 4] in an image of `size` (H, W) from [F, gh, gw]."""
        tall, wide = grid.shape[1:]
        # A patch is a cell of the map, whose middle is half a cell from its corner: `aligned`.
        in_patches = torch.tensor([wide / size[1], tall / size[0]] * 2, device=grid.device)
        placed = torch.from_numpy(boxes).to(grid.device) * in_patches
        parts = [
            roi_align(grid[None], [some], _BINS, sampling_ratio=2, aligned=True).mean((2, 3))
            for some in torch.split(placed, REGIONS_AT_ONCE)
        ]
        features: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
        return features

    def _inputs(self, batch: Tensor, tall: int, wide: int) -> dict[str, Any]:
        """Return what the network takes of images [n, 3, h, w]."""
        if "spatial_shapes" in self._takes:
            # SigLIP 2 of any resolution takes patches, laid out as its processor does.
            cells = batch.reshape(*batch.shape[:2], tall, self.patch, wide, self.patch)
            return {
                "pixel_values": cells.permute(0, 2, 4, 3, 5, 1).flatten(1, 2).flatten(2),
                "pixel_attention_mask": batch.new_ones(len(batch), tall * wide, dtype=torch.int32),
                "spatial_shapes": torch.tensor([[tall, wide]] * len(batch)),
            }
        stretched = "interpolate_pos_encoding" in self._takes
        return {"pixel_values": batch} | ({"interpolate_pos_encoding": True} if stretched else {})

    def _own_side(self) -> int:
        size = getattr(self._config, "image_size", None)
        if size is None:
            return self.patch * round(sqrt(getattr(self._config, "num_patches", 256)))
        return int(size if isinstance(size, int) else max(size))

    def _without_grid(self, why: str) -> InputError:
        return InputError(
            f"{self._name}: {self._config.model_type} gives no grid of patches to take features "
            f"from ({why}); take a vision transformer such as hf:facebook/dinov2-base"
        )


class PatchDetector:
    """A detector whose boxes, classes and scores are another's, with features of its own."""

    def __init__(self, detector: Detector, patches: PatchMap, profile: dict[str, Any]) -> None:
        self._detector, self._patches = detector, patches
        self.object_labels = detector.object_labels
        self.attribute_labels = detector.attribute_labels
        self.describes_boxes = detector.describes_boxes
        self.images_per_pass = detector.images_per_pass
        self.feature_size = patches.feature_size
        self.profile = {**detector.profile, "features": profile}

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Proposals]:
        """Detect in RGB images [H, W, 3] of any sizes, one after the other."""
        return [self.detect([self.prepare(image)])[0] for image in images]

    def prepare(self, image: NDArray[np.uint8]) -> Resized:
        """Resize an RGB image [H, W, 3] for both networks."""
        prepared = self._detector.prepare(image)
        return prepared._replace(in_patches=self._patches.prepare(image))

    def detect(self, images: Sequence[Resized]) -> list[Proposals]:
        """Detect in one pass, then describe in passes of images with equal grids."""
        results = self._detector.detect(images)
        pixels = [image.in_patches for image in images if image.in_patches is not None]
        shapes = [each.shape for each in pixels]
        for alike in passes(range(len(images)), shapes.__getitem__, self.images_per_pass):
            maps = self._patches.maps(np.stack([pixels[index] for index in alike]))
            for index, grid in zip(alike, maps, strict=True):
                boxes, size = _boxes(results[index]), images[index].size
                features = self._patches.describe(grid, boxes, size)
                results[index] = replace(results[index], features=features)
        return results


class OpenPatchDetector(PatchDetector):
    """The same around a detector of open vocabulary."""

    def look_for(self, labels: tuple[str, ...]) -> None:
        """Make `labels` the object classes; see `OpenVocabulary`."""
        assert isinstance(self._detector, OpenVocabulary)
        self._detector.look_for(labels)
        self.object_labels = self._detector.object_labels
        self.profile |= self._detector.profile


def _boxes(proposals: Proposals) -> NDArray[np.float32]:
    """Return the box [P, 4] of each proposal's most probable class; given ones as they are."""
    best = proposals.object_scores[:, :-1].argmax(1)
    boxes = proposals.class_boxes(np.arange(len(best)), best)
    count = len(proposals.given_classes)
    return np.concatenate([proposals.proposals[:count], boxes[count:]])


def _is_used(name: str) -> bool:
    return "pooler" not in name
