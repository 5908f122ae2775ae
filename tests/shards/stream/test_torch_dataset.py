"""The batches of a stream through PyTorch's DataLoader: the same for any number of workers."""

import pickle
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from semvlp.shards.open import open_store
from semvlp.shards.stores.store import Store
from semvlp.shards.stream.stream import Stream
from semvlp.shards.stream.torch_dataset import StreamDataset
from tests.shards.datasets import plan_of, write_dataset

SETTINGS: dict[str, Any] = {"seed": 3, "batch_size": 4}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("loader")
    write_dataset(folder, plan_of(7), refused=["img-2"])
    with open_store(folder) as opened:
        yield opened


def positions(batch: dict[str, Any]) -> list[int]:
    return [visit["position"] for visit in batch["visits"]]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_workers_gives_the_same_batches(store: Store, workers: int) -> None:
    dataset = StreamDataset(Stream([store], **SETTINGS))
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=None, num_workers=workers)
    batches = list(islice(loader, 7))
    assert [positions(batch) for batch in batches] == [
        list(range(start, start + 4)) for start in range(0, 28, 4)
    ]
    for batch, visits in zip(batches, Stream([store], **SETTINGS), strict=False):
        for row, visit in enumerate(visits):
            start, end = batch["starts"][row : row + 2].tolist()
            expected = torch.from_numpy(visit.sample.regions.features.copy())
            assert torch.equal(batch["features"][start:end], expected)
            # A DataLoader makes lists of tuples.
            assert tuple(batch["visits"][row]["captions"]) == visit.sample.texts.captions
            assert batch["visits"][row]["image_id"] == visit.sample.key


def test_each_worker_goes_on_from_its_state(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What StatefulDataLoader does: it keeps a state of each worker and hands it back."""

    class Info:
        num_workers = 2
        id = 1

    monkeypatch.setattr("semvlp.shards.stream.torch_dataset.get_worker_info", lambda: Info)
    dataset = StreamDataset(Stream([store], **SETTINGS))
    visited = [positions(batch) for batch in islice(dataset, 2)]
    assert [first for first, *_ in visited] == [4, 12]
    again = StreamDataset(Stream([store], **SETTINGS))
    again.load_state_dict(pickle.loads(pickle.dumps(dataset.state_dict())))
    assert [positions(batch)[0] for batch in islice(again, 2)] == [20, 28]
    fresh = StreamDataset(Stream([store], **SETTINGS))
    fresh.load_state_dict(StreamDataset(Stream([store], **SETTINGS)).state_dict())
    assert positions(next(iter(fresh)))[0] == 4


@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:'set_vital'")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 5])
def test_a_stateful_loader_goes_on_with_exactly_the_next_sample(
    store: Store, workers: int, taken: int
) -> None:
    """Stopped within an epoch (6 images) and behind it; the state travels in a checkpoint."""
    loader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def begin() -> Any:
        dataset = StreamDataset(Stream([store], **SETTINGS))
        return loader(dataset, batch_size=None, num_workers=workers)

    stopped = begin()
    running = iter(stopped)
    before = [positions(batch) for batch in islice(running, taken)]
    checkpoint = pickle.dumps(stopped.state_dict())
    expected = list(islice(running, 4))
    again = begin()
    again.load_state_dict(pickle.loads(checkpoint))
    batches = list(islice(again, 4))
    assert [*before, *map(positions, batches)] == [
        list(range(start, start + 4)) for start in range(0, 4 * (taken + 4), 4)
    ]
    for batch, wanted in zip(batches, expected, strict=True):
        assert torch.equal(batch["features"], wanted["features"])
        assert batch["visits"] == wanted["visits"]


def test_the_state_of_a_stream_is_taken_too(store: Store, tmp_path: Path) -> None:
    stopped = Stream([store], **SETTINGS)
    next(stopped)
    dataset = StreamDataset(Stream([store], **SETTINGS))
    dataset.load_state_dict(stopped.state_dict())
    assert positions(next(iter(dataset))) == [4, 5, 6, 7]
