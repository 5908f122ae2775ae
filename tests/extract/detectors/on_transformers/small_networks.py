"""Detectors of transformers that are a few layers small, with random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    BertConfig,
    BertTokenizerFast,
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


def image(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)


def corners(boxes: torch.Tensor, sides: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes cxcywh of 0..1 as xyxy in pixels."""
    x, y, width, height = boxes.unbind(-1)
    xyxy = torch.stack([x - 0.5 * width, y - 0.5 * height, x + 0.5 * width, y + 0.5 * height], -1)
    scaled: NDArray[np.float32] = (xyxy.clamp(0, 1) * torch.tensor([*sides, *sides])).numpy()
    return scaled


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
