"""The two halves of a two-stream pass: nothing has met in the lower, the upper is the rest."""

from collections.abc import Callable

import pytest
import torch

from semvlp.model import PackedBatch, SemVLPConfig, SemVLPModel

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
        kept = model.lower(batch)
        pooled = model.upper(*kept, batch.text_lengths, batch.region_lengths)
        torch.testing.assert_close(pooled, model(batch, "two").pooled, **CLOSE)


def test_the_lower_half_sees_no_other_modality(
    config: SemVLPConfig, make_batch: Callable[..., PackedBatch]
) -> None:
    """Text and regions of the lower half are the same whatever they are paired with."""
    model, batch = SemVLPModel(config).eval(), make_batch(LENGTHS)
    with torch.inference_mode():
        text, regions = model.lower(batch)
        others = batch.replace(region_features=batch.region_features.flip(1) + 1)
        torch.testing.assert_close(model.lower(others)[0], text, rtol=0, atol=0)
        torch.testing.assert_close(
            model.lower(batch.replace(input_ids=batch.input_ids.roll(1)))[1], regions, **CLOSE
        )
        whole = model.upper(text, regions, batch.text_lengths, batch.region_lengths)
        other = model.upper(text, regions + 1, batch.text_lengths, batch.region_lengths)
    assert abs(whole - other).max() > 100 * CLOSE["atol"]


@pytest.mark.parametrize("cross_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("cross_attention", ["shared", "separate"])
def test_any_text_meets_any_image(
    cross_layers: int,
    cross_attention: str,
    config: SemVLPConfig,
    make_batch: Callable[..., PackedBatch],
) -> None:
    """Pairs of places among kept texts and images are what laying their rows out would give."""
    config.cross_layers, config.cross_attention = cross_layers, cross_attention
    model, batch = SemVLPModel(config).eval(), make_batch(LENGTHS)
    texts, images = torch.tensor([2, 0, 2, 3, 1]), torch.tensor([3, 3, 1, 0, 2])
    with torch.inference_mode():
        text, regions = model.lower(batch)
        lengths = batch.text_lengths, batch.region_lengths
        pieces = text.split(lengths[0].tolist()), regions.split(lengths[1].tolist())
        found = model.upper(text, regions, *lengths, texts, images)
        laid_out = model.upper(
            torch.cat([pieces[0][place] for place in texts]),
            torch.cat([pieces[1][place] for place in images]),
            lengths[0][texts],
            lengths[1][images],
        )
    torch.testing.assert_close(found, laid_out, **CLOSE)
    assert abs(found - found.roll(1, 0)).max() > 100 * CLOSE["atol"]
