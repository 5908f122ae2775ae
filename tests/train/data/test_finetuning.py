"""The order of fine-tuning examples, their negatives, and the cache of regions."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from semvlp.distributed import World
from semvlp.eval.lookup import RegionLookup
from semvlp.eval.task import Example
from semvlp.eval.tasks.table import load_task
from semvlp.model.tokenizer import train_wordpiece
from semvlp.shards.open import open_store
from semvlp.shards.stores.store import Store
from semvlp.train.config import FinetuneConfig
from semvlp.train.data.finetuning import FinetuningBatches, RegionCache, TaskTargets
from semvlp.train.step import MicroBatch

EXAMPLES = [
    Example(
        example_id=number,
        text=f"caption {number}",
        images=(f"image-{number % 12}",),
        target={"match": 1.0},
    )
    for number in range(20)
]


@pytest.fixture(scope="module")
def store(shards: Path) -> Iterator[Store]:
    with open_store(shards) as opened:
        yield opened


@pytest.fixture
def source_of(
    store: Store, small_task: Callable[..., FinetuneConfig]
) -> Callable[..., FinetuningBatches]:
    tokenizer = train_wordpiece([example.text for example in EXAMPLES], 100)

    def build(*overrides: str, rank: int = 0, size: int = 1, task: str = "retrieval") -> Any:
        world = World(rank, size)
        labels = ["mismatch", "match"]
        config = small_task(*overrides)
        return FinetuningBatches(load_task(task), EXAMPLES, labels, tokenizer, store, config, world)

    return build


def scores(source: FinetuningBatches) -> torch.Tensor:
    step = source.next_step()
    assert all(isinstance(one.targets, TaskTargets) for one in step)
    return torch.cat([one.targets.scores for one in step])  # type: ignore[attr-defined]


def test_an_epoch_has_every_example_once(source_of: Callable[..., FinetuningBatches]) -> None:
    source = source_of("train.batch_size=5")
    epochs = [
        [source._at(position).images[0] for position in range(start, start + 20)]
        for start in (0, 20)
    ]
    expected = Counter(example.images[0] for example in EXAMPLES)
    assert [Counter(epoch) for epoch in epochs] == [expected, expected]
    assert epochs[0] != epochs[1]


def test_half_of_the_match_pairs_are_of_another_image(
    source_of: Callable[..., FinetuningBatches],
) -> None:
    source = source_of("train.batch_size=400")
    drawn = scores(source)
    assert (drawn.sum(dim=1) == 1).all()
    assert drawn[:, 0].mean().item() == pytest.approx(0.5, abs=0.1)
    own = {(example.text, example.images) for example in EXAMPLES}
    for position in range(400):
        (example,) = source._candidates(position)
        assert ((example.text, example.images) in own) == ("match" in example.target)


NEGATIVES = pytest.mark.parametrize("negatives", ["random", "batch", "hard"])


@NEGATIVES
@pytest.mark.parametrize("replaced", ["text", "image"])
def test_ranks_and_micro_batches_split_one_sequence(
    source_of: Callable[..., FinetuningBatches], negatives: str, replaced: str
) -> None:
    settings = (
        "train.batch_size=8",
        f"retrieval.negatives={negatives}",
        f"retrieval.replaced={replaced}",
    )
    whole = source_of(*settings)
    ranks = [
        source_of(*settings, "train.gradient_accumulation_steps=2", rank=r, size=2) for r in (0, 1)
    ]
    for _ in range(3):
        steps = [source.next_step() for source in ranks]
        assert [len(step) for step in steps] == [2, 2]
        (one,) = whole.next_step()
        split = [micro_batch for step in steps for micro_batch in step]
        for name in ("input_ids", "region_features"):
            pieces = [getattr(micro_batch.batch, name) for micro_batch in split]
            assert torch.equal(torch.cat(pieces), getattr(one.batch, name))
        assert [row for micro_batch in split for row in offered(micro_batch)] == offered(one)


def offered(micro_batch: MicroBatch) -> list[list[Any]]:
    """Return the texts and images that each example of a micro-batch may become."""
    candidates = micro_batch.targets.candidates  # type: ignore[attr-defined]
    if candidates is None:
        return []
    texts = candidates.pool.input_ids.split(candidates.pool.text_lengths.tolist())
    images = candidates.pool.region_features.split(candidates.pool.region_lengths.tolist())
    indices = zip(candidates.texts.tolist(), candidates.images.tolist(), strict=True)
    return [
        [(texts[t].tolist(), images[i].tolist()) for t, i in zip(*row, strict=True)]
        for row in indices
    ]


@NEGATIVES
def test_the_position_is_the_state(
    source_of: Callable[..., FinetuningBatches], negatives: str
) -> None:
    source = source_of(f"retrieval.negatives={negatives}")
    source.next_step()
    state = source.state_dict()
    (expected,) = source.next_step()
    again = source_of(f"retrieval.negatives={negatives}")
    again.load_state_dict(state)
    (resumed,) = again.next_step()
    assert torch.equal(resumed.batch.input_ids, expected.batch.input_ids)
    assert torch.equal(resumed.targets.scores, expected.targets.scores)  # type: ignore[attr-defined]
    assert offered(resumed) == offered(expected)


def test_in_batch_pairs_need_no_second_read(
    source_of: Callable[..., FinetuningBatches], store: Store
) -> None:
    for replaced in ("text", "either"):
        source = source_of(
            "train.batch_size=6", "retrieval.negatives=batch", f"retrieval.replaced={replaced}"
        )
        counting = Counting(RegionLookup(store, EXAMPLES, max_regions=100))
        source._regions = RegionCache(counting, 0)  # type: ignore[arg-type]
        source.next_step()
        step = {source._at(position).images[0] for position in range(6)}
        assert set(counting.read) <= step
        assert set(counting.read.values()) == {1}


def test_only_hard_negatives_are_left_to_the_network(
    source_of: Callable[..., FinetuningBatches],
) -> None:
    for negatives, asked in (("random", False), ("batch", False), ("hard", True)):
        (micro_batch,) = source_of(
            f"retrieval.negatives={negatives}", "retrieval.pool=3"
        ).next_step()
        candidates = micro_batch.targets.candidates  # type: ignore[attr-defined]
        assert (candidates is not None) == asked
        if candidates is not None:
            assert candidates.texts.shape == (micro_batch.batch.num_pairs, 3)
            mismatched = micro_batch.targets.scores[:, 0].bool()  # type: ignore[attr-defined]
            several = (candidates.texts != candidates.texts[:, :1]).any(dim=1)
            assert torch.equal(several, mismatched)


class Counting:
    """A lookup that counts what it reads."""

    def __init__(self, lookup: RegionLookup) -> None:
        self.lookup, self.read = lookup, Counter[str]()

    def __call__(self, names: list[str]) -> list[Any]:
        self.read.update(names)
        return self.lookup(names)


def test_the_cache_keeps_the_first_images(store: Store) -> None:
    lookup = RegionLookup(store, EXAMPLES, max_regions=100)
    counting = Counting(lookup)
    cache = RegionCache(counting, 2)  # type: ignore[arg-type]
    names = ["image-1", "image-2", "image-3", "image-1"]
    for _ in range(3):
        regions = cache(names)
        assert [f[0].tolist() for f in regions] == [f[0].tolist() for f in lookup(names)]
    assert counting.read == {"image-1": 1, "image-2": 1, "image-3": 3}
