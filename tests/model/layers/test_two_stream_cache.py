"""The halves of a two-stream pass: the lower crosses no modality, the upper is the rest."""

from collections.abc import Callable

import pytest
import torch

from semvlp.model import PackedBatch, SemVLPConfig, SemVLPModel
from semvlp.model.layers.two_stream_cache import LowerStates

# Sums of the same float32 numbers in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
LENGTHS = [(3, 2), (1, 0), (5, 4), (2, 7)]


@pytest.mark.parametrize("cross_layers", [0, 1, 2, 3])
def test_both_halves_are_the_whole(
    cross_layers: int, config: SemVLPConfig, make_batch: Callable[..., PackedBatch]
) -> None:
    config.cross_layers = cross_layers
    model, batch = SemVLPModel(config).eval(), make_batch(LENGTHS)
    with torch.inference_mode():
        pooled = model.upper(*model.lower(batch))
        torch.testing.assert_close(pooled, model(batch, "two").pooled, **CLOSE)


def test_the_lower_half_sees_no_other_modality(
    config: SemVLPConfig, make_batch: Callable[..., PackedBatch]
) -> None:
    """Text and regions of the lower half are the same whatever they are paired with."""
    model, batch = SemVLPModel(config).eval(), make_batch(LENGTHS)
    with torch.inference_mode():
        text, regions = model.lower(batch)
        others = batch.replace(region_features=batch.region_features.flip(1) + 1)
        torch.testing.assert_close(model.lower(others)[0].rows, text.rows, rtol=0, atol=0)
        other_texts = batch.replace(input_ids=batch.input_ids.roll(1))
        torch.testing.assert_close(model.lower(other_texts)[1].rows, regions.rows, **CLOSE)
        whole = model.upper(text, regions)
        other = model.upper(text, regions._replace(rows=regions.rows + 1))
    assert abs(whole - other).max() > 100 * CLOSE["atol"]


def take(half: LowerStates, items: torch.Tensor) -> LowerStates:
    """Some of the texts or images, each with rows of its own."""
    pieces = half.rows.split(half.lengths.tolist())
    return LowerStates(torch.cat([pieces[item] for item in items]), half.lengths[items])


@pytest.mark.parametrize("cross_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("cross_attention", ["shared", "separate", "tied"])
def test_any_text_meets_any_image(
    cross_layers: int,
    cross_attention: str,
    config: SemVLPConfig,
    make_batch: Callable[..., PackedBatch],
) -> None:
    """Pairs of cached texts and images are what laying their rows out would give."""
    config.cross_layers, config.cross_attention = cross_layers, cross_attention
    model, batch = SemVLPModel(config).eval(), make_batch(LENGTHS)
    texts, images = torch.tensor([2, 0, 2, 3, 1]), torch.tensor([3, 3, 1, 0, 2])
    with torch.inference_mode():
        text, regions = model.lower(batch)
        actual = model.upper(text, regions, texts, images)
        laid_out = model.upper(take(text, texts), take(regions, images))
    torch.testing.assert_close(actual, laid_out, **CLOSE)
    assert abs(actual - actual.roll(1, 0)).max() > 100 * CLOSE["atol"]
