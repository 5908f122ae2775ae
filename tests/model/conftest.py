"""A network small enough for exact comparisons, and batches of pairs of uneven lengths."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from semvlp.model import PackedBatch, SemVLPConfig, pack
from tests.model import flash_reference

FEATURES = 6
VOCABULARY = 40

MakeBatch = Callable[..., PackedBatch]


@pytest.fixture
def config() -> SemVLPConfig:
    return SemVLPConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
        # Untrained heads attend almost evenly; larger weights make leaks visible.
        initializer_range=0.3,
        cross_layers=2,
        region_feature_size=FEATURES,
        num_objects=5,
        num_attributes=4,
        answers=["yes", "no", "red", "2"],
    )


@pytest.fixture
def make_batch() -> MakeBatch:
    def make(lengths: Sequence[tuple[int, int]], seed: int = 0) -> PackedBatch:
        """Random pairs of (tokens, regions)."""
        rng = np.random.default_rng(seed)
        texts = [rng.integers(0, VOCABULARY, tokens).tolist() for tokens, _ in lengths]
        regions = []
        for _, count in lengths:
            corners = rng.random((count, 2, 2), dtype=np.float32)
            boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
            features = rng.standard_normal((count, FEATURES)).astype(np.float16)
            regions.append((features.astype(np.float32), boxes * [64, 32, 64, 32], 64, 32))
        return pack(texts, regions)

    return make


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """varlen_attn on the CPU, by definition, for any dtype and head width."""
    flash_reference.install()
    monkeypatch.setattr("semvlp.model.layers.attention.varlen_obstacle", lambda *_, **__: None)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
