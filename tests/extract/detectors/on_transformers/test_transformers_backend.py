"""Detectors of transformers: what the plain call gives, bit by bit, as proposals of ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForObjectDetection,
    AutoProcessor,
    DetrImageProcessor,
)

from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.open import open_store
from tests.extract.detectors.on_transformers.small_networks import (
    CLOSED,
    SIDES,
    corners,
    detr,
    image,
    rt_detr,
    saved,
)

# transformers itself warns of what it will change.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("make", CLOSED)
def test_it_is_the_plain_call_to_the_bit(
    make: Callable[[], tuple[Any, Any]], folder: Callable[..., Path]
) -> None:
    path, pixels = folder(make), image(50, 83)
    detector = load_detector(str(path), device="cpu")
    (ours,) = detector([pixels])
    model = AutoModelForObjectDetection.from_pretrained(path).eval()
    processor = AutoProcessor.from_pretrained(path)
    with torch.inference_mode():
        theirs = model(**processor(images=Image.fromarray(pixels), return_tensors="pt"))
    queries = theirs.logits.shape[1]
    states = theirs.last_hidden_state[0, -queries:]
    np.testing.assert_array_equal(ours.features, states.numpy())
    np.testing.assert_array_equal(ours.proposals, corners(theirs.pred_boxes[0], (83, 50)))
    np.testing.assert_array_equal(ours.boxes[:, 0], ours.proposals)
    if theirs.logits.shape[-1] == 4:
        scores = theirs.logits[0].softmax(-1).numpy()
        np.testing.assert_array_equal(ours.object_scores, scores)
    else:
        scores = theirs.logits[0].sigmoid().numpy()
        np.testing.assert_array_equal(ours.object_scores[:, :3], scores)
        np.testing.assert_array_equal(ours.object_scores[:, 3], 1 - scores.max(1))
    assert ours.features.shape == (queries, detector.feature_size)
    assert detector.object_labels == ("cup", "cat", "box")
    assert (ours.width, ours.height) == (83, 50)


def test_what_a_processor_pads_is_masked(tmp_path: Path) -> None:
    config, _ = detr()
    padding = DetrImageProcessor(size=SIDES, pad_size={"height": 96, "width": 128})
    path, pixels = saved(tmp_path, config, padding, AutoModelForObjectDetection), image(50, 83)
    (ours,) = load_detector(str(path), device="cpu")([pixels])
    inputs = AutoProcessor.from_pretrained(path)(images=pixels, return_tensors="pt")
    assert not inputs["pixel_mask"].all()
    with torch.inference_mode():
        theirs = AutoModelForObjectDetection.from_pretrained(path).eval()(**inputs)
    np.testing.assert_array_equal(ours.features, theirs.last_hidden_state[0].numpy())


def test_images_of_a_pass_agree_with_single_ones(folder: Callable[..., Path]) -> None:
    detector: Any = load_detector(str(folder(rt_detr)), device="cpu")
    several = [image(50, 83), image(40, 40)]
    alone = detector(several)
    detector.images_per_pass = 2
    for one, other in zip(alone, detector(several), strict=True):
        np.testing.assert_allclose(one.features, other.features, rtol=1e-4, atol=1e-5)


def test_extraction_stores_its_regions(folder: Callable[..., Path], tmp_path: Path) -> None:
    Image.fromarray(image(50, 83)).save(tmp_path / "one.png")
    settings = ExtractSettings(
        detector=str(folder(rt_detr)), device="cpu", min_regions=3, max_regions=5, workers=1
    )
    extract(tmp_path / "one.png", tmp_path / "out", settings)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.extractor["backend"] == "transformers"
    assert manifest.extractor["detector"] == ""
    assert "transformers" in manifest.software
    assert manifest.object_labels == ("cup", "cat", "box")
    with open_store(tmp_path / "out") as store:
        regions = store.sample(0).regions
    assert 3 <= len(regions) <= 5
    boxes = tmp_path / "boxes.jsonl"
    boxes.write_text('{"image": "one", "boxes": [[1, 1, 5, 5]]}')
    given = ExtractSettings(detector=settings.detector, device="cpu", boxes=boxes)
    with pytest.raises(ConfigError, match="--boxes: the states of this detector's queries"):
        extract(tmp_path / "one.png", tmp_path / "given", given)


def test_the_profile_follows_weights_and_processor(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    first = load_detector(str(folder(detr)), device="cpu").profile
    config, _ = detr()
    other = DetrImageProcessor(size={"shortest_edge": 32, "longest_edge": 96})
    second = load_detector(
        str(saved(tmp_path, config, other, AutoModelForObjectDetection)), device="cpu"
    ).profile
    assert first["weights_sha256"] == second["weights_sha256"]
    assert first["config_sha256"] != second["config_sha256"]


def test_what_cannot_be_opened_says_why(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = str(folder(detr))
    with pytest.raises(ConfigError, match="run by transformers alone"):
        load_detector(path, backend="torchvision")
    with pytest.raises(ConfigError, match="is no detector of transformers"):
        load_detector("untrained", backend="transformers")
    with pytest.raises(ConfigError, match="leave --set out"):
        load_detector(path, settings=["shorter_side=5"])
    with pytest.raises(ConfigError, match="leave --weights out"):
        load_detector(path, weights="x.pth")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match=r"cannot be opened: .*BertConfig"):
        load_detector(str(tmp_path), device="cpu")
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(InputError, match="cannot be opened"):
        load_detector(str(tmp_path), device="cpu")


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = saved(tmp_path, *detr(), AutoModelForObjectDetection)
    weights = path / "model.safetensors"
    state = load_file(weights)
    del state["bbox_predictor.layers.0.weight"]
    save_file(state, weights, {"format": "pt"})
    with pytest.raises(InputError, match=r"its weights lack bbox_predictor\.layers\.0\.weight"):
        load_detector(str(path), device="cpu")


def test_weights_that_are_a_pickle_are_not_opened(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path = saved(tmp_path, *detr(), AutoModelForObjectDetection)
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"cannot be opened: .*safetensors"):
        load_detector(str(path), device="cpu")
