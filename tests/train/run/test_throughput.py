"""Operations, utilisation, pace: against numbers counted otherwise."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from semvlp.model.config import SemVLPConfig
from semvlp.model.packing import Mode, PackedBatch
from semvlp.model.semvlp import SemVLPForPreTraining
from semvlp.train.run.throughput import (
    counts_for_flops,
    hours,
    pairs_per_second,
    seconds_left,
    step_flops,
    utilisation,
)

TEXTS, REGIONS = (9, 9, 9), (6, 6, 6)


@pytest.fixture(scope="module")
def model() -> SemVLPForPreTraining:
    config = SemVLPConfig.preset(
        "tiny",
        vocab_size=50,
        region_feature_size=24,
        num_objects=7,
        num_attributes=5,
        answers=["a", "b"],
    )
    return SemVLPForPreTraining(config).eval()


@pytest.fixture
def batch() -> PackedBatch:
    """Equal lengths: nothing is padded, so that what is computed is what is needed."""
    tokens, regions = sum(TEXTS), sum(REGIONS)
    return PackedBatch(
        input_ids=torch.full((tokens,), 7),
        region_features=torch.randn(regions, 24),
        region_boxes=torch.rand(regions, 4).sort(dim=1).values,
        text_lengths=torch.tensor(TEXTS),
        region_lengths=torch.tensor(REGIONS),
    )


@pytest.mark.parametrize("mode", ["single", "two"])
def test_flops_are_those_that_pytorch_counts(
    model: SemVLPForPreTraining, batch: PackedBatch, mode: Mode
) -> None:
    tokens, regions = torch.tensor([1, 4]), torch.tensor([0, 2, 5])
    # Other kernels of attention are not counted on a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(batch, mode, token_positions=tokens, region_positions=regions)
    counted = counter.get_total_flops()
    ours = step_flops(model.config, batch, mode, tokens=2, regions=3, questions=3)
    # Boxes, four numbers each, are left out; a backward pass is two forward passes.
    boxes = 2 * sum(REGIONS) * 4 * model.config.hidden_size
    assert ours / 3 == pytest.approx(counted - boxes, rel=0.01)


def test_the_step_takes_its_counts_from_the_objectives() -> None:
    counts = {"mlm": 4, "features": 3, "objects": 9, "matching": 2, "answers": 1}
    assert counts_for_flops(counts) == {"tokens": 4, "regions": 9, "questions": 1}
    assert counts_for_flops({"task": 8}) == {"tokens": 0, "regions": 0, "questions": 0}


def test_utilisation_pace_and_time_left() -> None:
    assert utilisation(4e12, 2.0, 8e12) == pytest.approx(0.25)
    assert pairs_per_second(64, [0.5, 1.5]) == pytest.approx(64)
    assert seconds_left(40, 100, [0.5, 1.5]) == pytest.approx(60)
    assert seconds_left(100, 100, [0.5]) == 0


def test_the_time_of_a_full_run_follows_from_its_pace() -> None:
    assert hours(9_000_000 * 20, 1000) == pytest.approx(50)
