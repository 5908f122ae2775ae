"""A step becomes micro-batches: what is hidden and asked for, whatever the order and world."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from semvlp.shards.batch import Batch
from semvlp.shards.stores.store import Store
from semvlp.train.config import PretrainConfig
from semvlp.train.data.pretraining import PretrainingCollator
from semvlp.train.objectives import IGNORED, Targets
from semvlp.train.step import MicroBatch
from tests.train.micro_batches import first_step, micro_batches, some_visits

ANSWERS = ["red", "green", "blue", "grey"]
Config = Callable[..., PretrainConfig]


@pytest.fixture(scope="module")
def step(store: Store) -> Batch:
    return first_step(store, 16)


@pytest.fixture
def micro_batch_of(
    tokenizer: PreTrainedTokenizerFast, small: Config, step: Batch
) -> Callable[..., MicroBatch]:
    def build(*overrides: str, of: Batch = step, answers: list[str] = ANSWERS) -> MicroBatch:
        collator = PretrainingCollator(small(*overrides), tokenizer, answers)
        (micro_batch,) = micro_batches(collator, of)
        return micro_batch

    return build


def targets(micro_batch: MicroBatch) -> Targets:
    assert isinstance(micro_batch.targets, Targets)
    return micro_batch.targets


def test_masked_regions_are_marked_and_are_the_targets(
    micro_batch_of: Callable[..., MicroBatch], step: Batch
) -> None:
    micro_batch = micro_batch_of("objectives.negative_rate=0.0")
    wanted, batch = targets(micro_batch), micro_batch.batch
    assert batch.region_mask is not None
    assert 0 < batch.region_mask.sum() < len(batch.region_mask)
    assert (batch.region_mask.nonzero()[:, 0] == wanted.region_positions).all()
    # Every target against the records themselves.
    all_regions = [
        (v.sample.regions, row) for v in step.visits() for row in range(len(v.sample.regions))
    ]
    for k, position in enumerate(wanted.region_positions.tolist()):
        regions, row = all_regions[position]
        assert wanted.region_features[k].tolist() == regions.features[row].tolist()
        assert wanted.object_ids[k] == regions.object_ids[row]
        assert wanted.object_conf[k] == float(regions.object_conf[row])
        assert wanted.attribute_ids[k] == regions.attribute_ids[row]
        assert wanted.attribute_conf[k] == float(regions.attribute_conf[row])


def test_masked_tokens_restore_the_texts(
    micro_batch_of: Callable[..., MicroBatch], tokenizer: PreTrainedTokenizerFast
) -> None:
    hidden = micro_batch_of("objectives.negative_rate=0.0", "objectives.token_rate=0.5")
    plain = micro_batch_of("objectives.negative_rate=0.0", "objectives.token_rate=0.0")
    wanted = targets(hidden)
    restored = hidden.batch.input_ids.clone()
    restored[wanted.token_positions] = wanted.token_ids
    assert (restored == plain.batch.input_ids).all()
    assert (hidden.batch.input_ids == tokenizer.mask_token_id).any()
    assert len(wanted.token_ids) == hidden.counts["mlm"] > 0


def hidden_per_pair(micro_batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden regions [N] of each pair, and those among them that are asked for."""
    assert micro_batch.batch.region_mask is not None
    count = len(micro_batch.batch.region_lengths)
    pair_of_region = torch.arange(count).repeat_interleave(micro_batch.batch.region_lengths)
    hidden = torch.zeros(count).index_add(0, pair_of_region, micro_batch.batch.region_mask.float())
    asked = torch.bincount(pair_of_region[targets(micro_batch).region_positions], minlength=count)
    return hidden, asked


@pytest.mark.parametrize("on_mismatched", ["true", "false"])
def test_masks_do_not_tell_matches_from_mismatches(
    micro_batch_of: Callable[..., MicroBatch], on_mismatched: str
) -> None:
    micro_batch = micro_batch_of(
        "objectives.negative_rate=0.5",
        f"objectives.on_mismatched={on_mismatched}",
        "train.batch_size=64",
    )
    mismatched = targets(micro_batch).matched == 0
    assert 0 < mismatched.sum() < (targets(micro_batch).matched != IGNORED).sum()
    hidden, asked = hidden_per_pair(micro_batch)
    assert (hidden > 0).all()
    expected = hidden if on_mismatched == "true" else hidden * ~mismatched
    assert asked.tolist() == expected.tolist()
    pair_of_token = torch.arange(len(mismatched)).repeat_interleave(micro_batch.batch.text_lengths)
    told = mismatched[pair_of_token[targets(micro_batch).token_positions]].any()
    assert bool(told) == (on_mismatched == "true")


def test_questions_have_answers_and_no_matching(micro_batch_of: Callable[..., MicroBatch]) -> None:
    micro_batch = micro_batch_of("data.texts_per_image=4", "train.batch_size=64")
    wanted = targets(micro_batch)
    assert (wanted.matched[wanted.question_pairs] == IGNORED).all()
    assert wanted.answer_scores[:, 3] == pytest.approx(0.3)
    assert (wanted.answer_scores[:, :3].sum(dim=1) == 1).all()
    assert len(wanted.matched) == 64
    # Each image has two captions and a question: four texts take one of them twice.
    assert 16 <= len(wanted.question_pairs) <= 32


def test_questions_see_everything_where_asked(micro_batch_of: Callable[..., MicroBatch]) -> None:
    sizes = ("data.texts_per_image=4", "train.batch_size=64")
    micro_batch = micro_batch_of(*sizes, "objectives.on_questions=false")
    asked = targets(micro_batch).question_pairs
    pair_of_region = torch.arange(64).repeat_interleave(micro_batch.batch.region_lengths)
    pair_of_token = torch.arange(64).repeat_interleave(micro_batch.batch.text_lengths)
    assert micro_batch.batch.region_mask is not None
    hidden = pair_of_region[micro_batch.batch.region_mask]
    assert not torch.isin(hidden, asked).any()
    assert not torch.isin(pair_of_token[targets(micro_batch).token_positions], asked).any()
    assert len(hidden) > 0


def test_an_unknown_answer_is_not_asked_for(micro_batch_of: Callable[..., MicroBatch]) -> None:
    micro_batch = micro_batch_of("data.texts_per_image=4", "train.batch_size=64", answers=["mauve"])
    assert micro_batch.counts["answers"] == 0
    assert targets(micro_batch).answer_scores.shape == (0, 1)


def test_counts_are_the_lengths_of_the_targets(micro_batch_of: Callable[..., MicroBatch]) -> None:
    micro_batch = micro_batch_of()
    wanted = targets(micro_batch)
    assert (
        micro_batch.counts["features"]
        == micro_batch.counts["objects"]
        == len(wanted.region_positions)
    )
    assert micro_batch.counts["attributes"] == (wanted.attribute_ids != IGNORED).sum()
    assert micro_batch.counts["matching"] == (wanted.matched != IGNORED).sum()
    assert micro_batch.counts["attributes"] < micro_batch.counts["objects"]


def test_a_micro_batch_is_the_same_wherever_it_is_made(
    micro_batch_of: Callable[..., MicroBatch], step: Batch
) -> None:
    """Cut into two ranks, the same pairs are made with the same things hidden."""
    whole = micro_batch_of()
    halves = [micro_batch_of(of=some_visits(step, run)) for run in (slice(8), slice(8, 16))]
    for name in ("input_ids", "region_features", "region_mask", "text_lengths"):
        joined = torch.cat([getattr(half.batch, name) for half in halves])
        assert torch.equal(getattr(whole.batch, name), joined), name
    for name in ("token_ids", "object_ids", "matched", "answer_scores"):
        joined = torch.cat([getattr(half.targets, name) for half in halves])
        assert torch.equal(getattr(whole.targets, name), joined), name


def test_regions_and_texts_are_cut(micro_batch_of: Callable[..., MicroBatch]) -> None:
    micro_batch = micro_batch_of("data.max_regions=2", "data.max_text_length=4")
    assert micro_batch.batch.region_lengths.max() == 2
    assert micro_batch.batch.text_lengths.max() == 4


def test_the_images_are_named(micro_batch_of: Callable[..., MicroBatch], step: Batch) -> None:
    assert micro_batch_of().image_ids == tuple(v.sample.regions.image_id for v in step.visits())


def test_one_side_of_a_pair_is_masked_and_both_are_at_times(
    micro_batch_of: Callable[..., MicroBatch],
) -> None:
    micro_batch = micro_batch_of("objectives.masked_sides=one", "objectives.negative_rate=0.0")
    texts = torch.arange(len(micro_batch.batch.text_lengths)).repeat_interleave(
        micro_batch.batch.text_lengths
    )
    with_tokens = set(texts[targets(micro_batch).token_positions].tolist())
    hidden, _ = hidden_per_pair(micro_batch)
    with_regions = set(hidden.nonzero().squeeze(1).tolist())
    assert with_tokens
    assert with_regions
    assert not with_tokens & with_regions
    assert with_tokens | with_regions == set(range(len(hidden)))


def test_classes_of_all_regions_and_features_of_the_masked_ones(
    micro_batch_of: Callable[..., MicroBatch],
) -> None:
    masked = targets(micro_batch_of("objectives.negative_rate=0.0"))
    every = micro_batch_of("objectives.negative_rate=0.0", "objectives.classes_on=all")
    wanted = targets(every)
    assert wanted.region_positions.tolist() == list(range(len(every.batch.region_features)))
    assert wanted.masked_index.tolist() == masked.region_positions.tolist()
    assert (wanted.region_features == masked.region_features).all()
    assert every.counts["objects"] == len(wanted.region_positions) > every.counts["features"]
    assert (wanted.object_ids[wanted.masked_index] == masked.object_ids).all()


def test_masked_regions_may_be_replaced_or_stay(micro_batch_of: Callable[..., MicroBatch]) -> None:
    plain = micro_batch_of("objectives.negative_rate=0.0", "objectives.region_rate=0.0")
    micro_batch = micro_batch_of(
        "objectives.negative_rate=0.0",
        "objectives.region_rate=0.9",
        "objectives.region_zeroed=0.3",
        "objectives.region_random=0.4",
    )
    wanted, now, before = (
        targets(micro_batch),
        micro_batch.batch.region_features,
        plain.batch.region_features,
    )
    chosen = torch.zeros(len(now), dtype=torch.bool).index_fill(0, wanted.region_positions, True)
    assert micro_batch.batch.region_mask is not None
    changed = (now != before).any(dim=1) & ~micro_batch.batch.region_mask
    kept = chosen & ~changed & ~micro_batch.batch.region_mask
    assert micro_batch.batch.region_mask.any()
    assert changed.any()
    assert kept.any()
    assert not (changed & ~chosen).any()
    # A replaced region looks like some region of the batch, and its own features are the target.
    rows = {tuple(row) for row in before.tolist()}
    assert all(tuple(row) in rows for row in now[changed].tolist())
    assert (wanted.region_features == before[chosen]).all()


def test_whole_words_are_masked_in_real_texts(
    micro_batch_of: Callable[..., MicroBatch], tokenizer: PreTrainedTokenizerFast
) -> None:
    micro_batch = micro_batch_of("objectives.token_unit=word", "objectives.token_rate=0.3")
    wanted = targets(micro_batch)
    restored = micro_batch.batch.input_ids.clone()
    restored[wanted.token_positions] = wanted.token_ids
    pieces = tokenizer.convert_ids_to_tokens(restored.tolist())
    chosen = set(wanted.token_positions.tolist())
    inside = [place for place, piece in enumerate(pieces) if piece.startswith("##")]
    assert inside
    for place in inside:
        assert (place in chosen) == (place - 1 in chosen)


def test_images_of_the_batch_make_mismatches(micro_batch_of: Callable[..., MicroBatch]) -> None:
    micro_batch = micro_batch_of("objectives.negatives=batch_image", "objectives.negative_rate=1.0")
    assert (targets(micro_batch).matched == 0).any()


def test_a_region_keeps_its_features_whatever_text_it_stands_beside(
    micro_batch_of: Callable[..., MicroBatch], step: Batch
) -> None:
    size = np.array([100, 100, 100, 100], np.float32)  # of every image of the small world
    features = {
        tuple(box): row.tolist()
        for visit in step.visits()
        for box, row in zip(
            (visit.sample.regions.boxes / size).tolist(), visit.sample.regions.features, strict=True
        )
    }
    micro_batch = micro_batch_of(
        "data.texts_per_image=2",
        "train.batch_size=32",
        "data.max_regions=3",
        "objectives.negatives=batch_image",
        "objectives.negative_rate=0.8",
    )
    batch, wanted = micro_batch.batch, targets(micro_batch)
    assert (wanted.matched == 0).any()
    boxes = [tuple(box) for box in batch.region_boxes.tolist()]
    assert batch.region_features.tolist() == [features[box] for box in boxes]
    masked = wanted.region_positions[wanted.masked_index].tolist()
    assert wanted.region_features.tolist() == [features[boxes[row]] for row in masked]
