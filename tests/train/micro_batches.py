"""Micro-batches of a step, put together in the plainest way."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from semvlp.shards.batch import Batch
from semvlp.shards.stores.store import Store
from semvlp.shards.stream.stream import Stream
from semvlp.train.data.pretraining import PretrainingCollator
from semvlp.train.objectives import Targets
from semvlp.train.step import MicroBatch


def first_step(store: Store, batch_size: int) -> Batch:
    """Read the first step of a store."""
    return Stream([store], seed=0, batch_size=batch_size).read(0)


def some_visits(step: Batch, visits: slice) -> Batch:
    """Cut some visits, which follow each other, out of a step."""
    first, last, _ = visits.indices(len(step))
    rows = slice(step.starts[first], step.starts[last])
    return replace(
        step,
        headers=step.headers[visits],
        lengths=step.lengths[visits],
        columns={name: column[rows] for name, column in step.columns.items()},
    )


def micro_batches(collator: PretrainingCollator, step: Batch) -> Sequence[MicroBatch]:
    """Make the micro-batches of a step that holds its features."""
    features = torch.from_numpy(step.columns["features"])
    made = []
    for micro_batch, rows, target_rows in collator(step):
        assert isinstance(micro_batch.targets, Targets)
        batch = micro_batch.batch.replace(region_features=features[rows])
        targets = replace(micro_batch.targets, region_features=features[target_rows])
        made.append(replace(micro_batch, batch=batch, targets=targets))
    return made
