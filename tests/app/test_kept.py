"""Kept rows: made once, used again, and made anew where they are not what they must be."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semvlp.app import kept
from semvlp.app.block import Block, Damaged
from semvlp.app.kept import KeptRows
from semvlp.eval.matching.shortlist import SeenWords
from semvlp.eval.network import Network, open_network
from semvlp.shards.open import open_store
from semvlp.shards.stores.store import Store
from tests.app.conftest import Drawn

SIZE = 4
Keep = Callable[[], KeptRows]


@pytest.fixture
def store(drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A copy of the store, whose photographs are kept in blocks of 4."""
    monkeypatch.setattr(kept, "BLOCK", SIZE)
    monkeypatch.setenv("SEMVLP_CACHE", str(tmp_path / "cache"))
    shutil.copytree(drawn.root / "regions", tmp_path / "regions")
    with open_store(tmp_path / "regions") as opened:
        yield opened


@pytest.fixture
def keep(drawn: Drawn, store: Store, caplog: pytest.LogCaptureFixture) -> Keep:
    """() -> the rows of the store, as a process of its own would have them."""
    checkpoint = drawn.checkpoint("retrieval")
    network = open_network(checkpoint, device="cpu", batch_size=3)

    def call() -> KeptRows:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            return KeptRows(network, store, checkpoint)

    return call


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many photographs each call of the lower layers was for."""
    calls: list[int] = []
    lower = Network.lower_regions

    def counted(self: Network, regions: Any) -> Any:
        calls.append(len(regions))
        return lower(self, regions)

    monkeypatch.setattr(Network, "lower_regions", counted)
    return calls


def rows_of(rows: KeptRows, store: Store) -> Any:
    return rows.take(range(len(store)))


def folder_of(rows: KeptRows) -> Path:
    assert rows.folder is not None
    return rows.folder


def test_they_are_those_of_the_lower_layers(
    keep: Keep, store: Store, drawn: Drawn, made: list[int]
) -> None:
    rows = keep()
    assert folder_of(rows).parent == store.path / "search"
    assert sum(made) == len(store)
    vlp = drawn.assistant("retrieval")
    most = vlp.network.limits.max_regions
    chosen = [len(store) - 1, 0, SIZE]
    states = rows.take(chosen)
    regions = [store.sample(index).regions.top(most) for index in chosen]
    assert states.lengths.tolist() == [len(each) for each in regions]
    with vlp.network.inference():
        expected = vlp.network.lower_regions(
            [(each.features, each.boxes, each.width, each.height) for each in regions]
        )
    np.testing.assert_allclose(states.rows.numpy(), expected.numpy(), atol=5e-3)


def test_they_are_used_again(keep: Keep, store: Store, made: list[int]) -> None:
    first = rows_of(keep(), store)
    made.clear()
    again = keep()
    assert not made
    np.testing.assert_array_equal(rows_of(again, store).rows, first.rows)
    with open_store(store.path) as opened:
        assert len(opened) == len(store), "the data set is what it was"


def test_a_stopped_run_goes_on(
    keep: Keep, store: Store, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = Network.lower_regions

    def stopped(self: Network, regions: Any) -> Any:
        if sum(made) >= SIZE + 2:
            raise KeyboardInterrupt
        return lower(self, regions)

    with monkeypatch.context() as patch:
        patch.setattr(Network, "lower_regions", stopped)
        with pytest.raises(KeyboardInterrupt):
            keep()
    made.clear()
    keep()
    assert sum(made) == len(store) - SIZE


@pytest.mark.parametrize("where", ["rows", "header", "cut"])
def test_what_is_damaged_is_made_anew(
    keep: Keep,
    store: Store,
    made: list[int],
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    """Rows when they are read, the rest when it is opened; the other blocks stay."""
    rows = keep()
    expected = rows_of(rows, store).rows
    path = folder_of(rows) / "000001.safetensors"
    data = bytearray(path.read_bytes())
    if where == "rows":
        at = 8 + int.from_bytes(data[:8], "little")
        names = json.loads(bytes(data[8:at]))
        data[at + names["rows"]["data_offsets"][0] + 5] ^= 4
    elif where == "header":
        data[12] ^= 4
    else:
        del data[len(data) // 2 :]
    path.write_bytes(data)
    made.clear()
    rows = keep()
    np.testing.assert_array_equal(rows_of(rows, store).rows, expected)
    assert sum(made) == min(SIZE, len(store) - SIZE)
    (line,) = [record.message for record in caplog.records if "damaged" in record.message]
    assert str(path) in line
    made.clear()
    rows_of(keep(), store)
    assert not made, "and kept"


def test_those_of_another_network_go(
    keep: Keep, store: Store, made: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    mark = folder_of(keep()) / "kept.json"
    about = json.loads(mark.read_text())
    about["inputs"]["config_sha256"] = "0" * 64
    mark.write_text(json.dumps(about))
    made.clear()
    keep()
    assert sum(made) == len(store)
    assert "other photographs or another network: made anew" in caplog.text
    made.clear()
    keep()
    assert not made


def test_files_of_somebody_else_stay(
    keep: Keep, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_of(keep())
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "000000.safetensors").write_text("somebody's")
    assert folder_of(keep()).is_relative_to(tmp_path / "cache")
    assert "does not tell to be rows of ours" in caplog.text
    assert (folder / "000000.safetensors").read_text() == "somebody's"


def test_where_nothing_can_be_written_they_are_in_memory(
    keep: Keep, store: Store, made: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (store.path / "search").write_text("no folder")
    (tmp_path / "cache").write_text("no folder either")
    rows = keep()
    assert rows.folder is None
    assert "kept in memory" in caplog.text
    assert sum(made) == len(store)
    assert len(rows_of(rows, store).lengths) == len(store)


def test_a_part_of_the_shards_has_rows_of_its_own(drawn: Drawn, store: Store, keep: Keep) -> None:
    whole = folder_of(keep())
    shard = next(store.path.glob("*.tar"))
    checkpoint = drawn.checkpoint("retrieval")
    with open_store(shard) as part:
        part.image_ids = part.image_ids[:-1]
        rows = KeptRows(open_network(checkpoint, device="cpu", batch_size=3), part, checkpoint)
        assert folder_of(rows).name.startswith(f"{whole.name}-")


def test_a_photograph_without_regions_has_no_rows(tmp_path: Path) -> None:
    seen = SeenWords(
        np.array([1, 0], np.int32), np.array([3], np.int32), np.array([0.5], np.float32)
    )
    block = Block.of([np.ones((2, 4), np.float16), np.zeros((0, 4), np.float16)], seen)
    path = tmp_path / "block.safetensors"
    path.write_bytes(block.to_bytes("a key"))
    opened = Block.opened(path, "a key", 2, 4)
    assert [opened.photograph(place).shape for place in range(2)] == [(2, 4), (0, 4)]
    for key, count, width in (("another", 2, 4), ("a key", 3, 4), ("a key", 2, 5)):
        with pytest.raises(Damaged):
            Block.opened(path, key, count, width)
