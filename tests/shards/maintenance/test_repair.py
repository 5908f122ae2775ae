"""What follows from the samples is made anew from them; damage in the samples is not hidden."""

import json
from pathlib import Path

import pytest

from semvlp.errors import InputError
from semvlp.names import StoreFormat
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.maintenance.repair import repair
from semvlp.shards.maintenance.verify import verify
from semvlp.shards.stores.tar_file import scan
from tests.shards.datasets import plan_of, write_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "set", plan_of(7, samples_per_shard=4), refused=["img-1"])
    return tmp_path / "set"


def without_time(path: Path) -> dict[str, object]:
    entry = json.loads(path.read_text())
    return {key: value for key, value in entry.items() if key not in ("created", "manifest_sha256")}


@pytest.mark.parametrize("damage", ["lost", "damaged"])
def test_everything_beside_the_samples_is_made_anew(dataset: Path, damage: str) -> None:
    names = ["manifest.json", "index.safetensors", "shard-000000.idx", "shard-000001.json"]
    before = {name: (dataset / name).read_bytes() for name in names[1:]}
    manifest = without_time(dataset / "manifest.json")
    for name in names:
        (dataset / name).unlink() if damage == "lost" else (dataset / name).write_bytes(b"{")
    assert verify(dataset) != []
    repair(dataset)
    assert verify(dataset) == []
    assert {name: (dataset / name).read_bytes() for name in names[1:]} == before
    assert without_time(dataset / "manifest.json") == manifest


def test_a_sound_data_set_stays_as_it_is(tmp_path: Path, format: StoreFormat) -> None:
    manifest = write_dataset(tmp_path, format=format, refused=["img-1"])
    (tmp_path / "manifest.json").write_text("")
    assert repair(tmp_path).dataset_sha256 == manifest.dataset_sha256
    assert read_manifest(tmp_path).counts == manifest.counts
    assert verify(tmp_path) == []


@pytest.mark.parametrize("damage", ["bit", "cut", "lost", "swapped"])
def test_damaged_samples_are_not_repaired_away(dataset: Path, damage: str) -> None:
    path = dataset / "shard-000001.tar"
    data = bytearray(path.read_bytes())
    place = next(scan(path)).location
    path.unlink()
    if damage == "bit":
        data[place.regions_offset + place.regions_bytes - 1] ^= 1
    elif damage == "cut":
        del data[-1500:]
    elif damage == "swapped":
        data = bytearray((dataset / "shard-000000.tar").read_bytes())
    if damage != "lost":
        path.write_bytes(data)
    with pytest.raises(InputError, match=r"shard-000001\.tar"):
        repair(dataset)
    assert verify(dataset) != []


def test_without_a_plan_it_says_what_to_do(dataset: Path) -> None:
    (dataset / "plan.json").unlink()
    with pytest.raises(InputError, match=r"plan\.json is needed.*made the data set once more"):
        repair(dataset)
