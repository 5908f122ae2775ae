"""Maps of patches as features: boxes lie where they lie in the photograph, whatever is resized."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.ops import roi_align
from transformers import (
    AutoModel,
    BertConfig,
    BitImageProcessor,
    ConvNextConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    Siglip2VisionConfig,
    SiglipConfig,
    SiglipImageProcessor,
    SwinConfig,
    ViTConfig,
    YolosConfig,
)

from semvlp.app.eyes import _features, open_eyes
from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors.batched import Execution
from semvlp.extract.detectors.on_transformers.patches import PatchMap
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.images.find import DECODING_VERSION
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.extract.presets import resolve
from semvlp.shards.dataset.hashes import plain
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.open import open_store

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def siglip() -> Any:
    vision = {**SMALL, "image_size": 64, "patch_size": 16}
    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 8, "projection_size": 16}
    return SiglipConfig(vision_config=vision, text_config=text)


VITS: dict[str, Callable[[], Any]] = {
    "dinov2": lambda: Dinov2Config(**SMALL, image_size=56, patch_size=14),
    "registers": lambda: Dinov2WithRegistersConfig(
        **SMALL, image_size=56, patch_size=14, num_register_tokens=3
    ),
    "dinov3": lambda: DINOv3ViTConfig(**SMALL, image_size=64, patch_size=16, num_register_tokens=4),
    "vit": lambda: ViTConfig(**SMALL, image_size=64, patch_size=16),
    "siglip": siglip,
    "siglip2": lambda: Siglip2VisionConfig(**SMALL, patch_size=16, num_patches=16),
}


def saved(folder: Path, config: Any, processor: Any = None) -> Path:
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    (processor or SiglipImageProcessor()).save_pretrained(folder)
    return folder


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    """An image whose red is its column and whose green is its row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(width), np.arange(height)[:, None]
    return image


class PositionMap(nn.Module):
    """A network whose patches are their own mean colour, behind tokens that are no patches."""

    def __init__(self, patch: int, tokens: int, **config: Any) -> None:
        super().__init__()
        given = {"patch_size": patch, "hidden_size": 3, "model_type": "position", "image_size": 96}
        self.config = SimpleNamespace(**given, num_register_tokens=max(0, tokens - 1), **config)
        self._tokens = tokens

    def forward(self, pixel_values: torch.Tensor) -> Any:
        means = nn.functional.avg_pool2d(pixel_values, self.config.patch_size)
        patches = means.flatten(2).transpose(1, 2)
        others = patches.new_full((len(patches), self._tokens, 3), 1e4)
        return SimpleNamespace(last_hidden_state=torch.cat([others, patches], 1))


@pytest.mark.parametrize("tokens", [0, 1, 5])
@pytest.mark.parametrize("patch", [14, 16])
@pytest.mark.parametrize("size", [(97, 201), (151, 83), (112, 112), (50, 50), (13, 250)])
def test_a_box_is_where_it_is_in_the_photograph(
    size: tuple[int, int], patch: int, tokens: int
) -> None:
    height, width = size
    processor = SiglipImageProcessor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
    net = PositionMap(patch, tokens)
    patches = PatchMap(net, processor, None, Execution(), "position")
    (grid,) = patches.maps(patches.prepare(photograph(*size))[None])
    # Half a patch from the border a map ends, and what lies beyond it is its last value.
    across, down = width / grid.shape[2], height / grid.shape[1]
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(across / 2, width - across / 2, (40, 2)), axis=1)
    y = np.sort(rng.uniform(down / 2, height - down / 2, (40, 2)), axis=1)
    boxes = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1).astype(np.float32)
    features = patches.describe(grid, boxes, size)
    means, stds = np.array(processor.image_mean), np.array(processor.image_std)
    colours = (features * stds + means) * 255
    # The colour of a pixel is its left border, so its middle is half a pixel more.
    middles = np.stack([x.mean(1), y.mean(1)], 1) - 0.5
    np.testing.assert_allclose(colours[:, :2], middles, atol=0.75)


@pytest.mark.parametrize("name", VITS)
@pytest.mark.parametrize("shape", [(2, 8), (4, 4)])
def test_features_are_those_of_the_plain_call(
    name: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    config = VITS[name]()
    path = saved(tmp_path, config)
    patch = getattr(config, "vision_config", config).patch_size
    image = np.random.default_rng(0).integers(0, 256, (shape[0] * patch, shape[1] * patch, 3))
    detector = load_detector("demo", device="cpu", features=str(path))
    (ours,) = detector([image.astype(np.uint8)])
    model: Any = AutoModel.from_pretrained(path).eval()
    model = getattr(model, "vision_model", model)
    pixels = ((torch.from_numpy(image).float() / 255 - 0.5) / 0.5).permute(2, 0, 1)[None]
    with torch.inference_mode():
        if name == "siglip2":
            from transformers.models.siglip2.image_processing_siglip2 import (
                convert_image_to_patches,
            )

            states = model(
                pixel_values=convert_image_to_patches(pixels[0], patch)[None],
                pixel_attention_mask=torch.ones(1, 16, dtype=torch.int32),
                spatial_shapes=torch.tensor([shape]),
            ).last_hidden_state
        elif name in ("siglip", "vit"):
            states = model(pixels, interpolate_pos_encoding=True).last_hidden_state
        else:
            states = model(pixels).last_hidden_state
    skipped = {"dinov2": 1, "registers": 4, "dinov3": 5, "vit": 1, "siglip": 0, "siglip2": 0}[name]
    grid = states[:, skipped:].transpose(1, 2).reshape(1, 16, *shape)
    best = ours.object_scores[:, :-1].argmax(1)
    boxes = torch.from_numpy(ours.class_boxes(np.arange(len(best)), best))
    wanted = roi_align(grid, [boxes], 7, 1 / patch, 2, aligned=True).mean((2, 3))
    np.testing.assert_allclose(ours.features, wanted.numpy(), rtol=1e-4, atol=1e-5)
    assert ours.features.std(0).max() > 0.01


def test_boxes_of_a_file_are_described_and_the_profile_names_the_network(tmp_path: Path) -> None:
    path = saved(tmp_path / "vit", VITS["registers"](), BitImageProcessor())
    (tmp_path / "images").mkdir()
    Image.fromarray(photograph(61, 90)).save(tmp_path / "images" / "one.png")
    given = [[3, 4, 50, 33], [0, 0, 90, 61], [80, 50, 81, 51]]
    boxes = tmp_path / "boxes.jsonl"
    boxes.write_text(f'{{"image": "one", "boxes": {given}}}')
    settings = ExtractSettings(
        detector="demo", features=str(path), boxes=boxes, device="cpu", workers=1
    )
    extract(tmp_path / "images", tmp_path / "out", settings)
    manifest = read_manifest(tmp_path / "out")
    features = manifest.extractor["features"]
    assert features["side"] == 56
    assert features["patch"] == 14
    assert features["network"] == ""
    assert len(features["weights_sha256"]) == 64
    assert "transformers" in manifest.software
    assert manifest.feature_size == 16
    with open_store(tmp_path / "out") as store:
        regions = store.sample(0).regions
    np.testing.assert_array_equal(regions.boxes, given)
    detector: Any = load_detector("demo", device="cpu", features=str(path))
    image = detector.prepare(photograph(61, 90)).in_patches
    (grid,) = detector._patches.maps(image[None])
    wanted = detector._patches.describe(grid, np.float32(given), (61, 90))
    np.testing.assert_array_equal(regions.features, wanted.astype(np.float16))
    larger = replace(settings, features_side=112)
    with pytest.raises(ConfigError, match="features"):
        extract(tmp_path / "images", tmp_path / "out", larger)


def test_images_of_a_pass_agree_with_single_ones(tmp_path: Path) -> None:
    detector: Any = load_detector("demo", device="cpu", features=str(saved(tmp_path, siglip())))
    several = [detector.prepare(photograph(60, width)) for width in (90, 90, 40)]
    alone = [detector.detect([each])[0] for each in several]
    detector.images_per_pass = 2
    for one, other in zip(alone[:2], detector.detect(several[:2]), strict=True):
        np.testing.assert_allclose(one.features, other.features, rtol=1e-3, atol=1e-4)


def test_a_larger_side_is_a_finer_grid(tmp_path: Path) -> None:
    path = str(saved(tmp_path, VITS["dinov2"]()))
    detectors: Any = [
        load_detector("demo", device="cpu", features=path, features_side=side)
        for side in (None, 112)
    ]
    shapes = [each.prepare(photograph(50, 100)).in_patches.shape for each in detectors]
    assert shapes == [(42, 84, 3), (84, 154, 3)]
    one, other = (each.profile["features"] for each in detectors)
    assert one["weights_sha256"] == other["weights_sha256"]
    assert one != other


@pytest.mark.parametrize(
    "config",
    [
        SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=2, image_size=64),
        ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1]),
        YolosConfig(**SMALL, image_size=[64, 64], num_detection_tokens=9),
        BertConfig(**SMALL, vocab_size=20),
    ],
    ids=lambda config: config.model_type,
)
def test_networks_without_a_grid_of_patches_are_refused(config: Any, tmp_path: Path) -> None:
    path = str(saved(tmp_path, config))
    with pytest.raises(InputError, match=f"{config.model_type} gives no grid of patches"):
        load_detector("demo", device="cpu", features=path)


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--features 'nothing' must be hf:OWNER/NAME"):
        load_detector("demo", features="nothing")
    with pytest.raises(ConfigError, match="--features-side"):
        ExtractSettings(features_side=3)
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(InputError, match=r"--features .* cannot be opened"):
        load_detector("demo", device="cpu", features=str(tmp_path))


def test_weights_that_are_a_pickle_are_not_opened(tmp_path: Path) -> None:
    path = saved(tmp_path, VITS["dinov2"]())
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"--features .* cannot be opened: .*safetensors"):
        load_detector("demo", device="cpu", features=str(path))


def test_a_checkpoint_opens_both_networks_again(tmp_path: Path) -> None:
    features = {"network": "hf:a/b", "side": 224}
    assert _features({"features": features}) == {"features": "hf:a/b", "features_side": 224}
    assert _features({}) == {}
    path = str(saved(tmp_path, VITS["dinov2"]()))
    profile = load_detector("demo", device="cpu", features=path).profile
    stored = {"decoding": DECODING_VERSION, "selection": resolve(None, None, None).stored()}
    with pytest.raises(ConfigError, match=r"demo differs: .*features"):
        open_eyes(plain(profile | stored), detector="demo", device="cpu")
