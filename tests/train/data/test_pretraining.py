"""Visits become parts: what is hidden, what must be said, and that order and world play no part."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from semvlp.shards.stores.store import Store
from semvlp.shards.stream.stream import Stream, Visit
from semvlp.train.config import PretrainConfig
from semvlp.train.data.pretraining import PretrainingCollator
from semvlp.train.objectives import IGNORED, Targets
from semvlp.train.step import MicroBatch

ANSWERS = ["red", "green", "blue", "grey"]
Config = Callable[..., PretrainConfig]


@pytest.fixture(scope="module")
def visits(store: Store) -> list[Visit]:
    return next(Stream([store], seed=0, batch_size=16))


@pytest.fixture
def part_of(
    tokenizer: PreTrainedTokenizerFast, small: Config, visits: list[Visit]
) -> Callable[..., MicroBatch]:
    def build(
        *overrides: str, of: list[Visit] = visits, answers: list[str] = ANSWERS
    ) -> MicroBatch:
        (part,) = PretrainingCollator(small(*overrides), tokenizer, answers).parts(of)
        return part

    return build


def targets(part: MicroBatch) -> Targets:
    assert isinstance(part.targets, Targets)
    return part.targets


def test_masked_regions_are_marked_and_are_the_targets(
    part_of: Callable[..., MicroBatch], visits: list[Visit]
) -> None:
    part = part_of("objectives.negative_rate=0.0")
    aim, batch = targets(part), part.batch
    assert batch.region_mask is not None
    assert 0 < batch.region_mask.sum() < len(batch.region_mask)
    assert (batch.region_mask.nonzero()[:, 0] == aim.region_positions).all()
    # Every target against the records themselves.
    all_regions = [(v.sample.regions, row) for v in visits for row in range(len(v.sample.regions))]
    for k, position in enumerate(aim.region_positions.tolist()):
        regions, row = all_regions[position]
        assert aim.region_features[k].tolist() == regions.features[row].tolist()
        assert aim.object_ids[k] == regions.object_ids[row]
        assert aim.object_conf[k] == float(regions.object_conf[row])
        assert aim.attribute_ids[k] == regions.attribute_ids[row]
        assert aim.attribute_conf[k] == float(regions.attribute_conf[row])


def test_masked_tokens_restore_the_texts(
    part_of: Callable[..., MicroBatch], tokenizer: PreTrainedTokenizerFast
) -> None:
    hidden = part_of("objectives.negative_rate=0.0", "objectives.token_rate=0.5")
    plain = part_of("objectives.negative_rate=0.0", "objectives.token_rate=0.0")
    aim = targets(hidden)
    restored = hidden.batch.input_ids.clone()
    restored[aim.token_positions] = aim.token_ids
    assert (restored == plain.batch.input_ids).all()
    assert (hidden.batch.input_ids == tokenizer.mask_token_id).any()
    assert len(aim.token_ids) == hidden.counts["mlm"] > 0


def hidden_per_pair(part: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden regions [N] of each pair, and those among them that are asked for."""
    assert part.batch.region_mask is not None
    count = len(part.batch.region_lengths)
    pair_of_region = torch.arange(count).repeat_interleave(part.batch.region_lengths)
    hidden = torch.zeros(count).index_add(0, pair_of_region, part.batch.region_mask.float())
    asked = torch.bincount(pair_of_region[targets(part).region_positions], minlength=count)
    return hidden, asked


@pytest.mark.parametrize("on_mismatched", ["true", "false"])
def test_masks_do_not_tell_matches_from_mismatches(
    part_of: Callable[..., MicroBatch], on_mismatched: str
) -> None:
    part = part_of(
        "objectives.negative_rate=0.5",
        f"objectives.on_mismatched={on_mismatched}",
        "train.batch_size=64",
    )
    mismatched = targets(part).matched == 0
    assert 0 < mismatched.sum() < (targets(part).matched != IGNORED).sum()
    hidden, asked = hidden_per_pair(part)
    assert (hidden > 0).all()
    wanted = hidden if on_mismatched == "true" else hidden * ~mismatched
    assert asked.tolist() == wanted.tolist()
    pair_of_token = torch.arange(len(mismatched)).repeat_interleave(part.batch.text_lengths)
    told = mismatched[pair_of_token[targets(part).token_positions]].any()
    assert bool(told) == (on_mismatched == "true")


def test_questions_have_answers_and_no_matching(part_of: Callable[..., MicroBatch]) -> None:
    part = part_of("data.texts_per_image=4", "train.batch_size=64")
    aim = targets(part)
    assert (aim.matched[aim.question_pairs] == IGNORED).all()
    assert aim.answer_scores[:, 3] == pytest.approx(0.3)
    assert (aim.answer_scores[:, :3].sum(dim=1) == 1).all()
    assert len(aim.matched) == 64
    # Each image has two captions and a question: four texts take one of them twice.
    assert 16 <= len(aim.question_pairs) <= 32


def test_questions_see_everything_where_asked(part_of: Callable[..., MicroBatch]) -> None:
    sizes = ("data.texts_per_image=4", "train.batch_size=64")
    part = part_of(*sizes, "objectives.on_questions=false")
    asked = targets(part).question_pairs
    pair_of_region = torch.arange(64).repeat_interleave(part.batch.region_lengths)
    pair_of_token = torch.arange(64).repeat_interleave(part.batch.text_lengths)
    assert part.batch.region_mask is not None
    hidden = pair_of_region[part.batch.region_mask]
    assert not torch.isin(hidden, asked).any()
    assert not torch.isin(pair_of_token[targets(part).token_positions], asked).any()
    assert len(hidden) > 0


def test_an_unknown_answer_is_not_asked_for(part_of: Callable[..., MicroBatch]) -> None:
    part = part_of("data.texts_per_image=4", "train.batch_size=64", answers=["mauve"])
    assert part.counts["answers"] == 0
    assert targets(part).answer_scores.shape == (0, 1)


def test_counts_are_the_lengths_of_the_targets(part_of: Callable[..., MicroBatch]) -> None:
    part = part_of()
    aim = targets(part)
    assert part.counts["features"] == part.counts["objects"] == len(aim.region_positions)
    assert part.counts["attributes"] == (aim.attribute_ids != IGNORED).sum()
    assert part.counts["matching"] == (aim.matched != IGNORED).sum()
    assert part.counts["attributes"] < part.counts["objects"]


def test_a_part_is_the_same_wherever_it_is_made(
    part_of: Callable[..., MicroBatch], visits: list[Visit]
) -> None:
    """Cut into two ranks, the same pairs are made with the same things hidden."""
    whole = part_of()
    halves = [part_of(of=visits[:8]), part_of(of=visits[8:])]
    for name in ("input_ids", "region_features", "region_mask", "text_lengths"):
        joined = torch.cat([getattr(half.batch, name) for half in halves])
        assert torch.equal(getattr(whole.batch, name), joined), name
    for name in ("token_ids", "object_ids", "matched", "answer_scores"):
        joined = torch.cat([getattr(half.targets, name) for half in halves])
        assert torch.equal(getattr(whole.targets, name), joined), name


def test_regions_and_texts_are_cut(part_of: Callable[..., MicroBatch]) -> None:
    part = part_of("data.max_regions=2", "data.max_text_length=4")
    assert part.batch.region_lengths.max() == 2
    assert part.batch.text_lengths.max() == 4


def test_the_images_are_named(part_of: Callable[..., MicroBatch], visits: list[Visit]) -> None:
    assert part_of().image_ids == tuple(v.sample.regions.image_id for v in visits)


def test_one_side_of_a_pair_is_masked_and_both_are_at_times(
    part_of: Callable[..., MicroBatch],
) -> None:
    part = part_of("objectives.masked_sides=one", "objectives.negative_rate=0.0")
    texts = torch.arange(len(part.batch.text_lengths)).repeat_interleave(part.batch.text_lengths)
    with_tokens = set(texts[targets(part).token_positions].tolist())
    hidden, _ = hidden_per_pair(part)
    with_regions = set(hidden.nonzero().squeeze(1).tolist())
    assert with_tokens
    assert with_regions
    assert not with_tokens & with_regions
    assert with_tokens | with_regions == set(range(len(hidden)))


def test_classes_of_all_regions_and_features_of_the_masked_ones(
    part_of: Callable[..., MicroBatch],
) -> None:
    masked = targets(part_of("objectives.negative_rate=0.0"))
    every = part_of("objectives.negative_rate=0.0", "objectives.classes_on=all")
    aim = targets(every)
    assert aim.region_positions.tolist() == list(range(len(every.batch.region_features)))
    assert aim.restored.tolist() == masked.region_positions.tolist()
    assert (aim.region_features == masked.region_features).all()
    assert every.counts["objects"] == len(aim.region_positions) > every.counts["features"]
    assert (aim.object_ids[aim.restored] == masked.object_ids).all()


def test_masked_regions_may_be_replaced_or_stay(part_of: Callable[..., MicroBatch]) -> None:
    plain = part_of("objectives.negative_rate=0.0", "objectives.region_rate=0.0")
    part = part_of(
        "objectives.negative_rate=0.0",
        "objectives.region_rate=0.9",
        "objectives.region_zeroed=0.3",
        "objectives.region_random=0.4",
    )
    aim, now, before = targets(part), part.batch.region_features, plain.batch.region_features
    chosen = torch.zeros(len(now), dtype=torch.bool).index_fill(0, aim.region_positions, True)
    assert part.batch.region_mask is not None
    changed = (now != before).any(dim=1) & ~part.batch.region_mask
    kept = chosen & ~changed & ~part.batch.region_mask
    assert part.batch.region_mask.any()
    assert changed.any()
    assert kept.any()
    assert not (changed & ~chosen).any()
    # A replaced region looks like some region of the batch, and its own features are the target.
    rows = {tuple(row) for row in before.tolist()}
    assert all(tuple(row) in rows for row in now[changed].tolist())
    assert (aim.region_features == before[chosen]).all()


def test_whole_words_are_masked_in_real_texts(
    part_of: Callable[..., MicroBatch], tokenizer: PreTrainedTokenizerFast
) -> None:
    part = part_of("objectives.token_unit=word", "objectives.token_rate=0.3")
    aim = targets(part)
    restored = part.batch.input_ids.clone()
    restored[aim.token_positions] = aim.token_ids
    pieces = tokenizer.convert_ids_to_tokens(restored.tolist())
    chosen = set(aim.token_positions.tolist())
    inside = [place for place, piece in enumerate(pieces) if piece.startswith("##")]
    assert inside
    for place in inside:
        assert (place in chosen) == (place - 1 in chosen)


def test_images_of_the_batch_make_mismatches(part_of: Callable[..., MicroBatch]) -> None:
    part = part_of("objectives.negatives=batch_image", "objectives.negative_rate=1.0")
    assert (targets(part).matched == 0).any()
