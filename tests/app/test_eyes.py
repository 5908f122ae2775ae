"""Eyes of every kind of detector are opened again from the profile that they left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForObjectDetection, AutoModelForZeroShotObjectDetection

from semvlp.app.eyes import Eyes, open_eyes
from semvlp.errors import ConfigError
from semvlp.extract.detectors.on_torchvision.models import build_model
from semvlp.extract.networks import MODELS
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.open import open_store
from tests.extract.detectors.on_transformers.small_networks import (
    grounding_dino,
    rt_detr,
    saved,
)

LIGHT = "fasterrcnn_mobilenet_v3_large_320_fpn"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 83, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def reopened(photo: Path, **options: Any) -> Eyes:
    """Extract the photograph, open the eyes of the profile, and see the same regions again."""
    out = photo.parent / "out"
    settings = ExtractSettings(device="cpu", min_regions=3, max_regions=7, workers=1, **options)
    extract(photo, out, settings)
    eyes = open_eyes(read_manifest(out).extractor, device="cpu")
    with open_store(out) as store:
        stored, seen = store.sample(0).regions, eyes(photo)
    assert seen.profile == stored.profile
    for name in ("boxes", "features", "object_ids", "object_conf"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(stored, name))
    return eyes


def test_a_model_of_torchvisions(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = photo.parent / "weights.pth"
    torch.manual_seed(0)
    torch.save(build_model(MODELS[LIGHT], 91).state_dict(), weights)
    monkeypatch.setattr("semvlp.extract.detectors.zoo.fetch", lambda address: weights)
    eyes = reopened(
        photo,
        detector=f"torchvision:{LIGHT}",
        settings=("shorter_side=64", "longer_side=96"),
    )
    assert eyes.profile["network"]["model"] == LIGHT


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "auto", "labels"),
    [
        (rt_detr, AutoModelForObjectDetection, ()),
        (grounding_dino, AutoModelForZeroShotObjectDetection, (Path("dog, red car"),)),
    ],
)
def test_a_detector_of_transformers(
    photo: Path, make: Callable[[], Any], auto: Any, labels: tuple[Path, ...]
) -> None:
    folder = saved(photo.parent / "model", *make(), auto)
    eyes = reopened(photo, detector=f"hf:{folder}", labels=labels)
    assert eyes.profile["detector"] == f"hf:{folder}"


def test_given_boxes_cannot_be_seen_again(photo: Path) -> None:
    boxes = photo.parent / "boxes.jsonl"
    boxes.write_text('{"image": "photo", "boxes": [[1, 1, 50, 40]]}')
    settings = ExtractSettings(detector="demo", device="cpu", boxes=boxes, workers=1)
    extract(photo, photo.parent / "out", settings)
    with pytest.raises(ConfigError, match="boxes that were given"):
        open_eyes(read_manifest(photo.parent / "out").extractor, device="cpu")
