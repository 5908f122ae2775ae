"""The paired-attention head: what it sees, what it takes over, and that it trains."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semvlp.model import PackedBatch, SemVLPConfig, SemVLPForPreTraining, SemVLPForTask
from semvlp.model.packing import Mode
from tests.model.flash_reference import Calls

LENGTHS = [(3, 2), (3, 4), (2, 1), (2, 0)]
# Sums of the same float32 numbers in another order.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}

both_modes = pytest.mark.parametrize("mode", ["single", "two"])


@pytest.fixture
def model(config: SemVLPConfig) -> SemVLPForTask:
    labels = ["False", "True"]
    return SemVLPForTask(config.for_task("pair", labels, pair_head="attention")).eval()


@both_modes
def test_examples_do_not_see_each_other(
    mode: Mode, model: SemVLPForTask, make_batch: Callable[..., PackedBatch]
) -> None:
    whole = make_batch(LENGTHS)
    first = PackedBatch(
        input_ids=whole.input_ids[:6],
        region_features=whole.region_features[:6],
        region_boxes=whole.region_boxes[:6],
        text_lengths=whole.text_lengths[:2],
        region_lengths=whole.region_lengths[:2],
    )
    logits = model(whole, mode).logits
    assert logits.shape == (2, 2)
    torch.testing.assert_close(model(first, mode).logits[0], logits[0], **CLOSE)


@both_modes
@pytest.mark.parametrize("image", [0, 1])
def test_every_region_of_both_images_counts(
    image: int, mode: Mode, model: SemVLPForTask, make_batch: Callable[..., PackedBatch]
) -> None:
    batch = make_batch(LENGTHS)
    features = batch.region_features.clone().requires_grad_()
    model(batch.replace(region_features=features), mode).logits[0, 1].backward()
    rows = features.grad.split(batch.region_lengths.tolist())
    assert (rows[image].abs().sum(1) > 0).all()
    assert not rows[2].any()


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("mode", ["single", "two"])
def test_it_takes_the_attention_path_of_the_encoder(
    mode: Mode, model: SemVLPForTask, make_batch: Callable[..., PackedBatch]
) -> None:
    model.set_attn_implementation("sdpa")
    with Calls() as calls:
        expected = model(make_batch(LENGTHS), mode).logits
    assert not calls.seen
    model.set_attn_implementation("varlen")
    with Calls() as calls:
        model.semvlp(make_batch(LENGTHS), mode)
        of_the_encoder = len(calls.seen)
        actual = model(make_batch(LENGTHS), mode).logits
    assert len(calls.seen) == 2 * of_the_encoder + 1
    torch.testing.assert_close(actual, expected, **CLOSE)


def test_left_and_right_are_told_apart(
    model: SemVLPForTask, make_batch: Callable[..., PackedBatch]
) -> None:
    same = make_batch([(3, 2), (3, 2)])
    mirrored = same.replace(
        input_ids=same.input_ids.view(2, 3).flip(0).flatten(),
        region_features=same.region_features.view(2, 2, -1).flip(0).flatten(0, 1),
        region_boxes=same.region_boxes.view(2, 2, 4).flip(0).flatten(0, 1),
    )
    assert (
        abs(model(same, "two").logits - model(mirrored, "two").logits).max() > 100 * CLOSE["atol"]
    )


def test_it_starts_from_pre_training_and_comes_back(
    config: SemVLPConfig, make_batch: Callable[..., PackedBatch], tmp_path: Path
) -> None:
    SemVLPForPreTraining(config).save_pretrained(tmp_path / "pretrained")
    model, report = SemVLPForTask.from_pretraining(
        tmp_path / "pretrained", head="pair", labels=["False", "True"], pair_head="attention"
    )
    assert {name.partition(".")[0] for name in report.new} == {"head"}
    model.eval().save_pretrained(tmp_path / "task")
    again = SemVLPForTask.from_pretrained(tmp_path / "task").eval()
    batch = make_batch(LENGTHS)
    torch.testing.assert_close(
        again(batch, "two").logits, model(batch, "two").logits, rtol=0, atol=0
    )
    with pytest.raises(ValueError, match="odd number of pairs: 3"):
        model(make_batch(LENGTHS[:3]), "two")
