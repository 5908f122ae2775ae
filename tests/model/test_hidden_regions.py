"""What the network sees of region features: as stored or as float32, and nothing where hidden."""

from collections.abc import Callable

import pytest
import torch

from semvlp.model import PackedBatch, SemVLPConfig, SemVLPModel
from semvlp.model.packing import Mode
from semvlp.names import ImageToken

LENGTHS = [(3, 2), (1, 0), (2, 4)]
MASK = torch.tensor([True, False, False, True, True, False])


@pytest.mark.parametrize("mode", ["single", "two"])
@pytest.mark.parametrize("image_token", ["none", "mean"])
def test_hidden_features_and_the_type_of_the_others_change_nothing(
    make_batch: Callable[..., PackedBatch], mode: Mode, image_token: ImageToken
) -> None:
    batch = make_batch(LENGTHS)
    stored = batch.region_features.half()
    batch = batch.replace(region_features=stored.float(), region_mask=MASK)
    config = SemVLPConfig.preset(
        "tiny", vocab_size=50, region_feature_size=stored.shape[1], image_token=image_token
    )
    model = SemVLPModel(config).eval()
    seen = model(batch, mode)
    hidden = MASK[:, None]
    for features in (stored, stored.masked_fill(hidden, 0), stored.masked_fill(hidden, 7).float()):
        for one, other in zip(
            seen.values(),
            model(batch.replace(region_features=features), mode).values(),
            strict=True,
        ):
            assert torch.equal(one, other)
    shown = model(batch.replace(region_features=stored.masked_fill(~hidden, 7)), mode)
    assert not torch.equal(seen.regions, shown.regions)
