"""The network chooses the wrong pair it believes most, and nothing of that is left behind."""

import numpy as np
import pytest
import torch

from semvlp.model.config import SemVLPConfig
from semvlp.model.packing import Mode, PackedBatch, PairRegions, pack
from semvlp.model.semvlp import SemVLPForTask
from semvlp.train.data.finetuning import TaskTargets
from semvlp.train.data.hard_negatives import (
    Candidate,
    Candidates,
    candidates_of,
    mine_hard_negative,
    paired,
)
from semvlp.train.finetune import TaskLoss
from semvlp.train.step import MicroBatch

FEATURES, POOL = 16, 3
TEXTS = [(2, 10 + n, 20 + n, *range(30, 30 + n), 3) for n in range(6)]


def regions(number: int) -> PairRegions:
    random = np.random.default_rng(number)
    count = number + 1
    boxes = np.sort(random.uniform(0, 99, (count, 2, 2)), axis=1).reshape(count, 4)
    return random.random((count, FEATURES)), boxes, 100, 100


REGIONS = {f"image {number}": regions(number) for number in range(4)}
# A pair that stands, two whose text is open, one whose image is, one with fewer choices.
EXAMPLES = [
    [Candidate(TEXTS[0], "image 0")],
    [Candidate(TEXTS[n], "image 1") for n in (2, 3, 5)],
    [Candidate(TEXTS[n], "image 2") for n in (1, 0, 4)],
    [Candidate(TEXTS[4], f"image {n}") for n in (3, 0, 1)],
    [Candidate(TEXTS[n], "image 3") for n in (5, 1)],
]


def network(dropout: float) -> SemVLPForTask:
    torch.manual_seed(3)
    config = SemVLPConfig.preset(
        "tiny",
        region_feature_size=FEATURES,
        vocab_size=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return SemVLPForTask(config.for_task("match", ["mismatch", "match"])).train()


@pytest.fixture
def model() -> SemVLPForTask:
    return network(dropout=0.1)


def candidates() -> Candidates:
    return candidates_of(EXAMPLES, REGIONS, POOL)


def packed(pairs: list[Candidate]) -> PackedBatch:
    return pack([pair.text for pair in pairs], [REGIONS[pair.image] for pair in pairs])


def assert_same(ours: PackedBatch, theirs: PackedBatch) -> None:
    for name in ("input_ids", "region_features", "region_boxes", "text_lengths", "region_lengths"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


@pytest.mark.parametrize("texts", [[0, 2, 2], [5, 1, 4]])
def test_a_pool_is_paired_in_any_way(texts: list[int]) -> None:
    pool = candidates_of([[Candidate(text, "image 1")] for text in TEXTS], REGIONS, 1).pool
    pairs = paired(pool, torch.tensor(texts), torch.tensor([0, 0, 0]))
    assert_same(pairs, packed([Candidate(TEXTS[text], "image 1") for text in texts]))


def test_more_images_than_texts() -> None:
    choice = candidates_of([[Candidate(TEXTS[1], name)] for name in REGIONS], REGIONS, 1)
    assert choice.texts.flatten().tolist() == [0, 0, 0, 0]
    pairs = paired(choice.pool, choice.texts[:, 0], choice.images[:, 0])
    assert_same(pairs, packed([Candidate(TEXTS[1], name) for name in REGIONS]))


def test_every_text_and_image_is_in_the_pool_once() -> None:
    offered = candidates()
    assert offered.texts.shape == offered.images.shape == (len(EXAMPLES), POOL)
    assert len(offered.pool.input_ids) == sum(map(len, TEXTS))
    assert len(offered.pool.region_features) == sum(len(r[0]) for r in REGIONS.values())


@pytest.mark.parametrize("mode", ["single", "two"])
def test_the_hardest_is_chosen(model: SemVLPForTask, mode: Mode) -> None:
    expected = []
    model.eval()
    with torch.no_grad():
        for row in EXAMPLES:
            # One pair at a time, all layers: the plainest way to score them.
            logits = torch.cat([model(packed([choice]), mode).logits for choice in row])
            expected.append(row[int((logits[:, 1] - logits[:, 0]).argmax())])
    model.train()
    assert len({row.index(one) for row, one in zip(EXAMPLES, expected, strict=True)}) > 1
    assert_same(mine_hard_negative(model, candidates(), mode), packed(expected))


def test_it_follows_the_network(model: SemVLPForTask) -> None:
    before = mine_hard_negative(model, candidates(), "single")
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.neg_()
    # What was believed most is believed least now.
    assert not torch.equal(
        mine_hard_negative(model, candidates(), "single").input_ids, before.input_ids
    )


def test_nothing_is_left_behind(model: SemVLPForTask) -> None:
    state = torch.get_rng_state()
    mine_hard_negative(model, candidates(), "two")
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("bf16", [False, True])
def test_the_loss_is_of_the_hardest_and_reaches_all_weights(*, bf16: bool) -> None:
    model = network(dropout=0.0)
    offered, loss_of = candidates(), TaskLoss(model)
    scores = torch.tensor([[0.0, 1.0]] + [[1.0, 0.0]] * 4)

    def gradients(
        batch: PackedBatch, open_candidates: Candidates | None
    ) -> dict[str, torch.Tensor]:
        targets = TaskTargets(
            scores=scores,
            loss="cross_entropy",
            weights=torch.ones(len(scores)),
            candidates=open_candidates,
        )
        micro_batch = MicroBatch(batch=batch, targets=targets, counts={"task": 5}, image_ids=())
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = loss_of(micro_batch, "two")["task"]
        loss.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        chosen = mine_hard_negative(model, offered, "two")
    ours, theirs = gradients(packed([row[0] for row in EXAMPLES]), offered), gradients(chosen, None)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(bool(gradient.any()) for name, gradient in ours.items() if "query" in name)


def test_where_nothing_is_open_the_pairs_stand(model: SemVLPForTask) -> None:
    rows = [[row[0]] for row in EXAMPLES]
    chosen = mine_hard_negative(model, candidates_of(rows, REGIONS, POOL), "two")
    assert_same(chosen, packed([row[0] for row in rows]))
