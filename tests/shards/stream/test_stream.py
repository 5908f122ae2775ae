"""The stream is one global sequence: any ranks, stopped anywhere, see the same visits."""

import json
from collections.abc import Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semvlp.errors import ConfigError, InputError
from semvlp.shards.open import open_store
from semvlp.shards.record import Regions, Texts
from semvlp.shards.stores.store import Store
from semvlp.shards.stream.stream import Stream, Visit
from semvlp.shards.writer import open_writer
from tests.shards.datasets import plan_of, sample_of, write_dataset

IMAGES = 10
Row = tuple[int, int, str, str]
KINDS: list[dict[str, Any]] = [
    {},
    {"order": "block", "block_shards": 2},
    {"weights": [3, 1]},
    {"visit": "pairs"},
    {"visit": "pairs", "order": "block", "weights": [1, 2]},
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    """Two data sets: seven images, of which one was refused, and four others."""
    folder = tmp_path_factory.mktemp("stream")
    write_dataset(folder / "a", plan_of(7), refused=["img-2"])
    others = tuple(f"other-{number}" for number in range(4))
    write_dataset(folder / "b", plan_of(image_ids=others), format="lmdb")
    return [open_store(folder / "a"), open_store(folder / "b")]


def rows(visits: Sequence[Visit]) -> list[Row]:
    return [
        (visit.position, visit.epoch, visit.sample.key, visit.negative.captions[0])
        for visit in visits
    ]


def sequence(stores: Sequence[Store], batches: int, **named: Any) -> list[Row]:
    """The visits of the first batches over all ranks, put together in order."""
    world_size = named.pop("world_size", 1)
    named = {"seed": 3, "batch_size": 4, **named}
    ranks = [
        Stream(stores, rank=rank, world_size=world_size, **named) for rank in range(world_size)
    ]
    seen = []
    for _ in range(batches):
        for stream in ranks:
            seen += rows(next(stream))
    return seen


@pytest.mark.parametrize("order", ["full", "sequential"])
def test_every_epoch_visits_every_image_once(stores: list[Store], order: str) -> None:
    seen = sequence(stores, 15, order=order)  # 60 visits = 6 epochs, ends inside batches
    everything = {*stores[0].image_ids, *stores[1].image_ids}
    assert len(everything) == IMAGES
    for epoch in range(6):
        visited = [image for _, number, image, _ in seen if number == epoch]
        assert len(visited) == IMAGES
        assert set(visited) == everything
    assert [position for position, *_ in seen] == list(range(60))


def test_a_batch_crosses_the_end_of_an_epoch(stores: list[Store]) -> None:
    batch = next(islice(Stream(stores, seed=3, batch_size=4), 2, None))
    assert [visit.epoch for visit in batch] == [0, 0, 1, 1]


def test_orders(stores: list[Store]) -> None:
    images = [*stores[0].image_ids, *stores[1].image_ids]
    sequential = [image for _, _, image, _ in sequence(stores, 5, order="sequential")]
    assert sequential == images + images
    full = [image for _, _, image, _ in sequence(stores, 5)]
    assert full[:IMAGES] != images
    assert full[:IMAGES] != full[IMAGES:]
    assert full != [image for _, _, image, _ in sequence(stores, 5, seed=4)]


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_only_cut_the_sequence(stores: list[Store], world_size: int) -> None:
    assert sequence(stores, 7, world_size=world_size) == sequence(stores, 7)


WORLD_SIZES = st.integers(1, 8)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    before=WORLD_SIZES,
    after=WORLD_SIZES,
    share=st.integers(1, 3),
    stop=st.integers(0, 4),
    kind=st.sampled_from(KINDS),
)
def test_resume_gives_the_uninterrupted_sequence(
    stores: list[Store], before: int, after: int, share: int, stop: int, kind: dict[str, Any]
) -> None:
    """Stopped on any number of ranks, it goes on with the next sample on any other number."""

    def ranks_of(world_size: int) -> list[Stream]:
        size = share * world_size
        return [
            Stream(stores, seed=3, batch_size=size, rank=rank, world_size=world_size, **kind)
            for rank in range(world_size)
        ]

    seen = []
    stopped, resumed = ranks_of(before), ranks_of(after)
    for _ in range(stop):
        seen += [row for stream in stopped for row in rows(next(stream))]
    states = [json.dumps(stream.state_dict()) for stream in stopped]
    assert len(set(states)) == 1
    for stream in resumed:
        stream.load_state_dict(json.loads(states[0]))
    for _ in range(3):
        seen += [row for stream in resumed for row in rows(next(stream))]
    assert seen == rows(next(Stream(stores, seed=3, batch_size=len(seen), **kind)))


def test_position_is_a_seek(stores: list[Store]) -> None:
    assert sequence(stores, 3, position=12) == sequence(stores, 6)[12:]


def test_the_state_survives_json_and_a_copy_as_lmdb(stores: list[Store], tmp_path: Path) -> None:
    write_dataset(tmp_path, plan_of(7), refused=["img-2"], format="lmdb")
    with open_store(tmp_path) as copy:
        state = json.loads(json.dumps(Stream(stores, seed=3, batch_size=4).state_dict()))
        Stream([copy, stores[1]], seed=3, batch_size=2).load_state_dict(state)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("seed", {"seed": 4}),
        ("order", {"order": "sequential"}),
        ("dataset", {"stores": 1}),
        ("weights", {"weights": [1, 1]}),
        ("visit", {"visit": "pairs"}),
    ],
)
def test_a_state_of_another_sequence_is_refused(
    stores: list[Store], field: str, change: dict[str, Any]
) -> None:
    state = Stream(stores, seed=3, batch_size=4).state_dict()
    used = stores[: change.pop("stores", 2)]
    other = Stream(used, **{"seed": 3, "batch_size": 4, **change})
    with pytest.raises(ConfigError, match=f"{field} must be"):
        other.load_state_dict(state)


def test_the_negative_is_another_image_and_varies(stores: list[Store]) -> None:
    seen = sequence(stores, 100)
    assert all(image not in negative for _, _, image, negative in seen)
    by_image = {negative for _, _, image, negative in seen if image == "img-0"}
    assert len(by_image) == IMAGES - 1


def test_the_same_image_in_two_stores_is_no_negative(stores: list[Store]) -> None:
    seen = sequence([stores[0], stores[0]], 12)
    assert all(image not in negative for _, _, image, negative in seen)


def test_only_the_texts_of_the_negative_are_read(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = watched(stores[0], monkeypatch)
    next(Stream(stores[:1], seed=0, batch_size=4, order="sequential"))
    assert read == [0, 1, 2, 3]


def watched(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images whose regions are read from now on."""
    read: list[int] = []
    view, members = store.view, store.members

    def viewed(indices: Sequence[int]) -> Any:
        read.extend(indices)
        return view(indices)

    def owned(index: int) -> Any:
        read.append(index)
        return members(index)

    monkeypatch.setattr(store, "view", viewed)
    monkeypatch.setattr(store, "members", owned)
    return read


def test_without_negatives_no_other_text_is_read(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [image for _, _, image, _ in sequence(stores, 2, seed=0)]
    for store in stores:
        monkeypatch.setattr(store, "entries", None)
    visits = next(Stream(stores, seed=0, batch_size=8, negatives=False))
    assert [visit.negative for visit in visits] == [Texts()] * 8
    assert [visit.sample.key for visit in visits] == expected


def test_samples_are_those_of_the_store(stores: list[Store]) -> None:
    for visit in next(Stream(stores[:1], seed=1, batch_size=12)):
        expected = stores[0].sample(stores[0].index_of(visit.sample.key))
        assert visit.sample.texts == expected.texts
        for field in fields(Regions):
            seen, wanted = (getattr(s.regions, field.name) for s in (visit.sample, expected))
            np.testing.assert_array_equal(seen, wanted)


@pytest.mark.parametrize("kind", KINDS, ids=["full", "block", "weights", "pairs", "all"])
def test_every_order_is_one_sequence_for_any_number_of_ranks(
    stores: list[Store], kind: dict[str, Any]
) -> None:
    whole = sequence(stores, 44, **kind)
    assert [position for position, *_ in whole] == list(range(176))
    for world_size in range(1, 9):
        cut = sequence(
            stores, 3, batch_size=7 * world_size, world_size=world_size, position=8, **kind
        )
        assert cut == whole[8:][: len(cut)]


def test_a_batch_of_images_without_regions(tmp_path: Path) -> None:
    with open_writer(tmp_path, plan_of(2), format="tar") as writer:
        for image_id in writer.pending:
            writer.write(sample_of(image_id, regions=0))
        writer.finish()
    with open_store(tmp_path) as store:
        visits = next(Stream([store], seed=0, batch_size=4))
    assert [len(visit.sample.regions) for visit in visits] == [0] * 4


def test_every_pair_is_visited_once_an_epoch_and_every_image_read_once(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream(stores[:1], seed=3, batch_size=4, visit="pairs")
    read = watched(stores[0], monkeypatch)
    pairs = len(stream)
    assert pairs == 2 * len(stores[0])  # a caption and a question each
    visits = [visit for batch in islice(stream, pairs // 4) for visit in batch]
    assert len({(visit.sample.key, visit.text) for visit in visits}) == pairs
    assert sorted(read) == list(range(len(stores[0])))


def test_weights_give_exact_shares_and_epochs_of_their_own(stores: list[Store]) -> None:
    seen = sequence(stores, 1, batch_size=4096, weights=[3, 1])
    own = [row for row in seen if row[2] in stores[1]]
    assert len(own) == 1024
    for epoch in range(1024 // len(stores[1])):
        visited = [image for _, number, image, _ in own if number == epoch]
        assert sorted(visited) == sorted(stores[1].image_ids)
    assert all(negative.startswith("a photo of other-") for *_, negative in own)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": [1]}, "one weight a data set is needed: 2 data sets, 1 weights"),
        ({"weights": [1, 0]}, "positive"),
        ({"weights": [1, 1e-9]}, "at least 1/4096"),
        ({"order": "block", "block_shards": 0}, "block_shards"),
    ],
)
def test_impossible_orders(stores: list[Store], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Stream(stores, seed=0, batch_size=4, **settings)


@pytest.mark.parametrize(
    ("batch_size", "world_size", "legal"), [(10, 4, "8, 12"), (3, 4, "4"), (0, 2, "2")]
)
def test_a_batch_that_does_not_divide_names_legal_sizes(
    stores: list[Store], batch_size: int, world_size: int, legal: str
) -> None:
    with pytest.raises(ConfigError, match=f"got {batch_size}; legal values near it: {legal}$"):
        Stream(stores, seed=0, batch_size=batch_size, world_size=world_size)


@pytest.mark.parametrize("settings", [{"rank": 2, "world_size": 2}, {"position": -1}])
def test_impossible_settings(stores: list[Store], settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Stream(stores, seed=0, batch_size=4, **settings)


@pytest.mark.parametrize(
    "fields",
    [{"extractor": {"network": "other"}}, {"object_labels": ("cat", "dog", "bush")}],
)
def test_stores_of_different_extractors_are_refused(
    stores: list[Store], tmp_path: Path, fields: dict[str, Any]
) -> None:
    plan = plan_of(2, **fields)
    with open_writer(tmp_path, plan, format="tar") as writer:
        for image_id in writer.pending:
            writer.write(sample_of(image_id, profile=plan.profile))
        writer.finish()
    with open_store(tmp_path) as other, pytest.raises(InputError) as caught:
        Stream([stores[0], other], seed=0, batch_size=4)
    assert stores[0].manifest.profile in str(caught.value)
    assert plan.profile in str(caught.value)


def test_one_image_alone_cannot_be_told_apart(tmp_path: Path) -> None:
    write_dataset(tmp_path, plan_of(1))
    with open_store(tmp_path) as store, pytest.raises(InputError, match="two different images"):
        Stream([store], seed=0, batch_size=1)
