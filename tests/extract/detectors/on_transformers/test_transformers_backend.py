"""Detectors of transformers: what the plain call gives, bit by bit, as proposals of ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    AutoModelForObjectDetection,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    BertConfig,
    BertTokenizerFast,
    CLIPTokenizerFast,
    DeformableDetrConfig,
    DeformableDetrImageProcessor,
    Deimv2Config,
    DetrConfig,
    DetrImageProcessor,
    DFineConfig,
    GroundingDinoConfig,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    HGNetV2Config,
    Owlv2Config,
    Owlv2ImageProcessor,
    Owlv2Processor,
    ResNetConfig,
    RfDetrConfig,
    RfDetrDinov2Config,
    RfDetrImageProcessor,
    RTDetrConfig,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    RTDetrV2Config,
    SwinConfig,
    YolosConfig,
    YolosImageProcessor,
)

from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors.published import name_labels
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.open import open_store

# transformers itself warns of what it will change.
pytestmark = pytest.mark.filterwarnings("ignore")

RESNET: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [8, 8, 8, 16],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}
SIDES = {"shortest_edge": 64, "longest_edge": 96}
NAMES = {0: "cup", 1: "cat", 2: "box"}
DETR: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "num_queries": 7,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "id2label": NAMES,
}
RT_DETR: dict[str, Any] = {
    "d_model": 16,
    "encoder_hidden_dim": 16,
    "encoder_in_channels": [8, 8, 16],
    "feat_strides": [8, 16, 32],
    "encoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_in_channels": [16, 16, 16],
    "decoder_ffn_dim": 16,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "num_queries": 9,
    "num_denoising": 0,
    "id2label": NAMES,
}


def resnet(stages: list[str], config: type = ResNetConfig) -> Any:
    return config(**RESNET, out_features=stages)


def detr() -> tuple[Any, Any]:
    return DetrConfig(**DETR, backbone_config=resnet(["stage4"])), DetrImageProcessor(size=SIDES)


def deformable_detr() -> tuple[Any, Any]:
    stages = ["stage2", "stage3", "stage4"]
    config = DeformableDetrConfig(**DETR, backbone_config=resnet(stages))
    return config, DeformableDetrImageProcessor(size=SIDES)


def rt_detr() -> tuple[Any, Any]:
    stages = ["stage2", "stage3", "stage4"]
    backbone = resnet(stages, RTDetrResNetConfig)
    config = RTDetrConfig(**RT_DETR, backbone_config=backbone)
    return config, RTDetrImageProcessor(size={"height": 64, "width": 64})


def rt_detr_v2() -> tuple[Any, Any]:
    stages = ["stage2", "stage3", "stage4"]
    backbone = resnet(stages, RTDetrResNetConfig)
    config = RTDetrV2Config(**RT_DETR, backbone_config=backbone)
    return config, RTDetrImageProcessor(size={"height": 64, "width": 64})


HGNET: dict[str, Any] = {
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 8, 16, 16],
    "stage_mid_channels": [8] * 4,
    "stage_out_channels": [8, 16, 16, 32],
    "stage_num_blocks": [1] * 4,
    "stage_numb_of_layers": [1] * 4,
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 16, 32],
    "depths": [1] * 4,
    "out_features": ["stage2", "stage3", "stage4"],
}


def of_hgnet(config: type) -> tuple[Any, Any]:
    backbone = HGNetV2Config(**HGNET)
    given = RT_DETR | {"encoder_in_channels": [16, 16, 32], "backbone_config": backbone}
    return config(**given, max_num_bins=8), RTDetrImageProcessor(size={"height": 64, "width": 64})


def d_fine() -> tuple[Any, Any]:
    return of_hgnet(DFineConfig)


def deimv2() -> tuple[Any, Any]:
    return of_hgnet(Deimv2Config)


def rf_detr() -> tuple[Any, Any]:
    backbone = RfDetrDinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=1,
        image_size=64,
        patch_size=16,
        num_windows=1,
        window_block_indexes=[],
        out_features=["stage2"],
    )
    config = RfDetrConfig(
        backbone_config=backbone,
        d_model=32,
        decoder_layers=1,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        decoder_ffn_dim=16,
        num_queries=9,
        group_detr=1,
        id2label=NAMES,
    )
    return config, RfDetrImageProcessor(size={"height": 64, "width": 64})


def yolos() -> tuple[Any, Any]:
    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[64, 96],
        num_detection_tokens=7,
        use_mid_position_embeddings=False,
        id2label=NAMES,
    )
    return config, YolosImageProcessor(size=SIDES)


CLOSED: list[Callable[[], tuple[Any, Any]]] = [
    *(detr, deformable_detr, rt_detr, rt_detr_v2, d_fine, deimv2, rf_detr, yolos)
]


def saved(folder: Path, config: Any, processor: Any, auto: Any) -> Path:
    torch.manual_seed(0)
    model = auto.from_config(config)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "class" in name and tensor.ndim > 1:
                tensor.normal_(std=2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    made: dict[str, Path] = {}

    def path(make: Callable[[], tuple[Any, Any]], auto: Any = AutoModelForObjectDetection) -> Path:
        if make.__name__ not in made:
            new = tmp_path_factory.mktemp(make.__name__)
            made[make.__name__] = saved(new, *make(), auto)
        return made[make.__name__]

    return path


def image(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)


def corners(boxes: torch.Tensor, sides: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes cxcywh of 0..1 as xyxy in pixels."""
    x, y, width, height = boxes.unbind(-1)
    xyxy = torch.stack([x - 0.5 * width, y - 0.5 * height, x + 0.5 * width, y + 0.5 * height], -1)
    scaled: NDArray[np.float32] = (xyxy.clamp(0, 1) * torch.tensor([*sides, *sides])).numpy()
    return scaled


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


def grounding_dino() -> tuple[Any, Any]:
    letters = list("abcdefghijklmnopqrstuvwxyz")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "dog", "red", "car", *letters]
    vocabulary = {word: number for number, word in enumerate(words)}
    swin = SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        image_size=64,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config=text,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=9,
        max_text_len=32,
    )
    tokenizer = BertTokenizerFast(vocab=vocabulary, model_max_length=32)
    return config, GroundingDinoProcessor(GroundingDinoImageProcessor(size=SIDES), tokenizer)


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
