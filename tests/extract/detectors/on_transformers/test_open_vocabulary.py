"""Detectors of transformers that are told what to find give what the plain call gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    CLIPTokenizerFast,
    Owlv2Config,
    Owlv2ImageProcessor,
    Owlv2Processor,
)

from semvlp.errors import ConfigError
from semvlp.extract.detectors.published import name_labels
from semvlp.extract.detectors.zoo import load_detector
from tests.extract.detectors.on_transformers.small_networks import (
    corners,
    grounding_dino,
    image,
)

# transformers itself warns of what it will change.
pytestmark = pytest.mark.filterwarnings("ignore")


def owlv2() -> tuple[Any, Any]:
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 64, "patch_size": 16}
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "vocab_size": 100, "max_position_embeddings": 16}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)
    words = ["!", "<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz"]
    words += [f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = CLIPTokenizerFast(vocab=vocabulary, merges=[], pad_token="!", model_max_length=16)
    size = {"height": 64, "width": 64}
    return config, Owlv2Processor(Owlv2ImageProcessor(size=size), tokenizer)


LABELS = ("dog", "red car")


@pytest.mark.parametrize("make", [owlv2, grounding_dino])
def test_open_vocabulary_is_the_plain_call_with_the_labels(
    make: Callable[[], tuple[Any, Any]], folder: Callable[..., Path]
) -> None:
    path = folder(make, AutoModelForZeroShotObjectDetection)
    detector, pixels = load_detector(str(path), device="cpu"), image(50, 83)
    name_labels(detector, [Path("dog, red car")])
    (ours,) = detector([pixels])
    model = AutoModelForZeroShotObjectDetection.from_pretrained(path).eval()
    processor = AutoProcessor.from_pretrained(path)
    inputs = processor(images=Image.fromarray(pixels), text=[list(LABELS)], return_tensors="pt")
    with torch.inference_mode():
        theirs = model(**inputs)
    scores = theirs.logits[0].sigmoid()
    if make is owlv2:
        states, sides = theirs.image_embeds[0].flatten(0, 1), (83, 83)
        wanted = scores
    else:
        states, sides = theirs.last_hidden_state[0], (83, 50)
        # [CLS] dog . red car . [SEP]
        wanted = torch.stack([scores[:, 1], scores[:, 3:5].amax(1)], dim=1)
    np.testing.assert_array_equal(ours.features, states.numpy())
    np.testing.assert_array_equal(ours.object_scores[:, :2], wanted.numpy())
    boxes = np.minimum(corners(theirs.pred_boxes[0], sides), [83, 50, 83, 50])
    np.testing.assert_array_equal(ours.proposals, boxes)
    assert detector.object_labels == LABELS
    assert detector.profile["labels"] == list(LABELS)
    assert ours.features.shape[1] == detector.feature_size


def test_open_vocabulary_must_be_told_what_to_find(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    path = folder(grounding_dino, AutoModelForZeroShotObjectDetection)
    detector = load_detector(str(path), device="cpu")
    with pytest.raises(ConfigError, match="must say what to find"):
        name_labels(detector, [])
    with pytest.raises(ConfigError, match="must say what to find"):
        name_labels(detector, [Path("dog. cat")])
    with pytest.raises(ConfigError, match="40 names are more text than this network reads"):
        name_labels(detector, [Path(",".join(["dog"] * 40))])
    (tmp_path / "names.txt").write_text("red car\n\ndog\n")
    name_labels(detector, [tmp_path / "names.txt"])
    assert detector.object_labels == ("red car", "dog")
