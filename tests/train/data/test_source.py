"""Steps become micro-batches: the same ones in the same order, whoever makes them."""

import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing import active_children

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from semvlp.errors import SemVLPError
from semvlp.shards.stores.store import Store
from semvlp.shards.stream.reader import NAME, Reader
from semvlp.shards.stream.stream import Stream
from semvlp.train.config import PretrainConfig
from semvlp.train.data.pretraining import PretrainingCollator
from semvlp.train.data.source import PretrainingBatches
from semvlp.train.objectives import Targets
from semvlp.train.step import MicroBatch
from tests.train.micro_batches import micro_batches
from tests.train.processes import CONTEXT

ANSWERS = ["red", "green", "blue", "grey"]
BATCH = 8
STEPS = 5
# Everything that takes features from elsewhere than where they lie.
CHOICES = (
    "data.texts_per_image=2",
    "data.max_regions=3",
    "objectives.negatives=batch_image",
    "objectives.region_zeroed=0.5",
    "objectives.region_random=0.4",
    "train.gradient_accumulation_steps=2",
)
Config = Callable[..., PretrainConfig]


def stream_of(store: Store) -> Stream:
    return Stream([store], seed=0, batch_size=BATCH)


def check_same(ours: Sequence[MicroBatch], theirs: Sequence[MicroBatch]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.image_ids, one.counts) == (other.image_ids, other.counts)
        assert isinstance(one.targets, Targets)
        for mine, yours in ((one.batch, other.batch), (one.targets, other.targets)):
            for name in mine.__dataclass_fields__:
                left, right = getattr(mine, name), getattr(yours, name)
                assert left.dtype == right.dtype, name
                assert torch.equal(left, right), name


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that make batches start at once."""
    monkeypatch.setattr("semvlp.train.data.source.get_context", lambda method: CONTEXT)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("choices", [(), CHOICES])
@pytest.mark.parametrize("workers", [0, 2])
def test_micro_batches_are_those_of_the_steps_themselves(
    store: Store,
    tokenizer: PreTrainedTokenizerFast,
    small: Config,
    workers: int,
    choices: tuple[str, ...],
) -> None:
    collator = PretrainingCollator(small(*choices), tokenizer, ANSWERS)
    plain = stream_of(store)
    with (
        Reader(stream_of(store)) as reader,
        PretrainingBatches(reader, collator, workers=workers) as source,
    ):
        assert source.state_dict() == plain.state_dict()
        # All at first: what was handed out must not change when the memory it was read to does.
        steps = [(source.next_step(), source.state_dict()) for _ in range(STEPS)]
        for made, state in steps:
            check_same(made, micro_batches(collator, plain.read(plain.position)))
            plain.skip()
            assert state == plain.state_dict()
        source.load_state_dict(steps[1][1])
        check_same(source.next_step(), steps[2][0])
    assert not active_children()


def test_features_stay_as_they_are_stored(
    store: Store, tokenizer: PreTrainedTokenizerFast, small: Config
) -> None:
    collator = PretrainingCollator(small(), tokenizer, ANSWERS)
    with Reader(stream_of(store)) as reader, PretrainingBatches(reader, collator) as source:
        (micro_batch,) = source.next_step()
    assert isinstance(micro_batch.targets, Targets)
    assert micro_batch.batch.region_features.dtype == torch.float16
    assert micro_batch.targets.region_features.dtype == torch.float16


def test_a_process_that_dies_is_told(
    store: Store, tokenizer: PreTrainedTokenizerFast, small: Config
) -> None:
    collator = PretrainingCollator(small(), tokenizer, ANSWERS)
    with (
        Reader(stream_of(store)) as reader,
        PretrainingBatches(reader, collator, workers=1) as source,
    ):
        source.next_step()
        for process in active_children():
            if process.name != NAME:
                os.kill(process.pid or 0, signal.SIGKILL)
        with pytest.raises(SemVLPError, match=r"makes batches ended.*data\.workers"):
            [source.next_step() for _ in range(STEPS)]
