"""The index of tar shards: its bytes are those of safetensors, and it is mapped, not read."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from semvlp.errors import InputError
from semvlp.shards.dataset.plan import PLAN_NAME
from semvlp.shards.stores.tar_index import INDEX_NAME, ROW, read_index
from tests.shards.datasets import plan_of, write_dataset


def test_the_bytes_are_those_of_safetensors(tmp_path: Path) -> None:
    write_dataset(tmp_path, refused=["img-1"])
    data = (tmp_path / INDEX_NAME).read_bytes()
    columns = load(data)
    assert save(columns) == data == read_index(tmp_path / INDEX_NAME).to_bytes()
    for name, kind in ROW.items():
        assert columns[name].dtype == kind


def test_columns_are_views_of_the_file_that_change_nothing_there(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    path = tmp_path / INDEX_NAME
    before = path.read_bytes()
    index = read_index(path)
    for column in (*index.rows.values(), index.keys.joined()):
        base = column
        while isinstance(base.base, np.ndarray):
            base = base.base
        assert isinstance(base, np.memmap)
    index.rows["regions"][0] += 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", ["kind", "length", "missing"])
def test_columns_of_another_kind_are_refused(tmp_path: Path, change: str) -> None:
    write_dataset(tmp_path)
    path = tmp_path / INDEX_NAME
    columns = load(path.read_bytes())
    if change == "kind":
        columns["shard"] = columns["shard"].astype(np.int64)
    elif change == "length":
        columns["shard"] = columns["shard"][:-1]
    else:
        del columns["shard"]
    path.write_bytes(save(columns))
    with pytest.raises(InputError, match=r"index\.safetensors is damaged"):
        read_index(path)


@pytest.mark.parametrize("count", [0, 5])
def test_the_plan_is_written_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("semvlp.shards.dataset.plan_file.IMAGES_AT_ONCE", 2)
    write_dataset(tmp_path, plan=plan_of(count))
    expected = json.dumps(plan_of(count).to_json("tar"), indent=1, ensure_ascii=False) + "\n"
    assert (tmp_path / PLAN_NAME).read_text(encoding="utf-8") == expected
