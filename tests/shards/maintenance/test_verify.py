"""Verification lists every damage, each with its file and key, and never raises."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from semvlp.errors import InputError
from semvlp.shards.maintenance.verify import info, verify
from semvlp.shards.open import open_store
from semvlp.shards.stores.tar_file import scan
from semvlp.shards.stores.tar_index import read_index
from tests.shards.datasets import plan_of, sample_of, write_dataset

SHARD = "shard-000001.tar"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "set", plan_of(7, samples_per_shard=4), refused=["img-1"])
    return tmp_path / "set"


@pytest.fixture
def lmdb_dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "lmdb", format="lmdb")
    return tmp_path / "lmdb"


def change(path: Path, offset: int, *, zeros: int = 0) -> None:
    data = bytearray(path.read_bytes())
    if zeros:
        data[offset : offset + zeros] = bytes(zeros)
    else:
        data[offset] ^= 1
    path.write_bytes(data)


def keys(dataset: Path) -> set[tuple[str, str | None]]:
    return {(finding.shard, finding.key) for finding in verify(dataset)}


def test_a_sound_data_set_has_no_findings(dataset: Path, lmdb_dataset: Path) -> None:
    assert verify(dataset) == []
    assert verify(lmdb_dataset) == []


def test_each_damaged_sample_is_listed_and_the_others_are_still_checked(dataset: Path) -> None:
    first, second, third = (record.location for record in scan(dataset / SHARD))
    change(dataset / SHARD, first.start, zeros=512)
    change(dataset / SHARD, second.json_offset + second.json_bytes // 2)
    change(dataset / SHARD, third.regions_offset + third.regions_bytes - 1)
    assert keys(dataset) == {(SHARD, None), *((SHARD, f"img-{number}") for number in (4, 5, 6))}


def test_a_bit_of_the_padding_is_found(dataset: Path) -> None:
    place = next(scan(dataset / SHARD)).location
    assert place.json_bytes % 512
    change(dataset / SHARD, place.json_offset + place.json_bytes)
    problems = {finding.key: finding.problem for finding in verify(dataset)}
    assert set(problems) == {None, "img-4"}
    assert "padding" in problems["img-4"]


def test_a_text_changed_with_valid_json_is_found(dataset: Path) -> None:
    data = (dataset / SHARD).read_bytes()
    (dataset / SHARD).write_bytes(data.replace(b"a photo of img-5", b"a phota of img-5"))
    assert keys(dataset) == {(SHARD, None), (SHARD, "img-5")}


@pytest.mark.parametrize("cut", [1, 1024, 2000])
def test_a_shard_cut_short_is_found(dataset: Path, cut: int) -> None:
    os.truncate(dataset / SHARD, (dataset / SHARD).stat().st_size - cut)
    findings = verify(dataset)
    assert findings
    assert {finding.shard for finding in findings} == {SHARD}
    assert "bytes, but has" in findings[0].problem


def test_a_missing_shard_is_found_with_its_samples(dataset: Path) -> None:
    (dataset / SHARD).unlink()
    findings = verify(dataset)
    assert findings[0].shard == SHARD
    assert findings[0].problem == "the file is missing"
    assert {finding.key for finding in findings[1:]} == {"img-4", "img-5", "img-6"}


def test_samples_of_another_data_set_are_duplicate_unknown_or_mixed(
    dataset: Path, tmp_path: Path, write_other: Callable[[Path], None]
) -> None:
    write_other(tmp_path / "other")
    foreign = (tmp_path / "other" / "shard-000000.tar").read_bytes()
    (dataset / SHARD).write_bytes(foreign)
    problems = {(finding.key, finding.problem.partition(" ")[0]) for finding in verify(dataset)}
    assert ("img-0", "the") in problems
    assert ("stranger", "index.safetensors") in problems
    assert ("stranger", "profile") in problems
    assert ("img-6", "it") in problems


@pytest.fixture
def write_other() -> Callable[[Path], None]:
    from semvlp.shards.writer import open_writer

    def build(out: Path) -> None:
        plan = plan_of(image_ids=("img-0", "stranger"), extractor={"network": "other"})
        with open_writer(out, plan, format="tar") as writer:
            for image_id in writer.pending:
                writer.write(sample_of(image_id, profile=plan.profile))
            writer.finish()

    return build


def test_a_damaged_index_or_manifest_is_a_finding(dataset: Path) -> None:
    index = dataset / "index.safetensors"
    whole = index.read_bytes()
    index.write_bytes(whole[:-1])
    assert verify(dataset)[0].shard == "index.safetensors"
    index.write_bytes(whole)
    change(index, len(whole) - 3)
    assert verify(dataset) != []
    index.write_bytes(whole)
    (dataset / "manifest.json").write_text("{")
    (finding,) = verify(dataset)
    assert finding.shard == "manifest.json"


def test_an_lmdb_can_be_verified_while_it_is_read(lmdb_dataset: Path) -> None:
    with open_store(lmdb_dataset) as store:
        assert verify(lmdb_dataset) == []
        assert store.sample(0).key == "img-0"


@pytest.mark.parametrize("column", ["captions", "questions", "regions", "json_crc32", "shard"])
def test_a_wrong_number_in_the_index_is_found(dataset: Path, column: str) -> None:
    path = dataset / "index.safetensors"
    index = read_index(path)
    index.rows[column][3] += 1
    path.write_bytes(index.to_bytes())
    damaged = keys(dataset)
    assert (SHARD, "img-4") in damaged
    # The index of the shard itself is sound, so the two differ.
    assert damaged - {(SHARD, "img-4")} <= {(f"shard-00000{n}.idx", None) for n in (0, 1)}


def test_a_flipped_bit_in_an_lmdb_names_the_key(lmdb_dataset: Path) -> None:
    path = lmdb_dataset / "regions.lmdb"
    features = sample_of("img-3").regions.features.tobytes()
    data = path.read_bytes()
    # Pages that a later transaction has replaced still hold what they held.
    for place in [at for at in range(len(data)) if data.startswith(features, at)]:
        change(path, place)
    assert keys(lmdb_dataset) == {("regions.lmdb", None), ("regions.lmdb", "img-3")}


@pytest.mark.parametrize("damage", ["zeroed", "cut"])
def test_an_lmdb_whose_tree_is_damaged_is_a_finding(lmdb_dataset: Path, damage: str) -> None:
    path = lmdb_dataset / "regions.lmdb"
    size = path.stat().st_size
    if damage == "cut":
        os.truncate(path, size // 2)
    else:
        change(path, 8192, zeros=size - 8192)
    findings = verify(lmdb_dataset)
    assert len(findings) >= 2
    assert {finding.shard for finding in findings} <= {"regions.lmdb", "manifest.json"}


def test_info_sums_up_the_manifest(dataset: Path) -> None:
    counts = [len(sample_of(f"img-{number}").regions) for number in (0, 2, 3, 4, 5, 6)]
    facts = info(dataset)
    assert facts["counts"] == {"samples": 6, "captions": 6, "questions": 6, "errors": 1}
    assert facts["regions"] == {
        "min": min(counts),
        "mean": round(sum(counts) / 6, 2),
        "max": max(counts),
    }
    assert facts["shards"] == 2
    assert facts["bytes"] == sum(path.stat().st_size for path in dataset.glob("*.tar"))
    assert (facts["object_labels"], facts["attribute_labels"]) == (3, 2)
    with pytest.raises(InputError, match=r"no manifest\.json"):
        info(dataset.parent)
