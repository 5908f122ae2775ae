"""The manifest says exactly what was written, and a changed one is refused."""

import hashlib
import json
import platform
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import numpy
import pytest

from semvlp.errors import ConfigError, InputError
from semvlp.shards.dataset.manifest import files_sha256, profile_hash, read_manifest
from tests.shards.datasets import plan_of, sample_of, write_dataset


def test_manifest_json_has_the_documented_shape(tmp_path: Path) -> None:
    write_dataset(tmp_path, refused=["img-1"])
    entry = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    plan = plan_of()
    regions = [len(sample_of(f"img-{number}").regions) for number in (0, 2, 3, 4)]
    assert (entry["format"], entry["format_version"]) == ("regions-shards", 1)
    assert entry["profile"] == plan.profile
    assert entry["extractor"] == plan.extractor
    assert entry["counts"] == {"samples": 4, "captions": 4, "questions": 4, "errors": 1}
    assert entry["source"] == {
        "image_list_sha256": hashlib.sha256(b"img-0\nimg-1\nimg-2\nimg-3\nimg-4\n").hexdigest(),
        "n_listed": 5,
        "samples_per_shard": 2,
        "texts_sha256": "",
    }
    assert entry["schema"] == {
        "regions": {"dtype": "F16", "dim": 8},
        "boxes": {"dtype": "F32", "coords": "xyxy_abs"},
        "class_vocab": {
            "name": "objects-3",
            "sha256": hashlib.sha256(b"cat\ndog\ntree\n").hexdigest(),
            "labels": ["cat", "dog", "tree"],
        },
        "attr_vocab": {
            "name": "attributes-2",
            "sha256": hashlib.sha256(b"red\nblue\n").hexdigest(),
            "labels": ["red", "blue"],
        },
        "n_min": min(regions),
        "n_max": max(regions),
        "crc_alg": "crc32",
    }
    assert entry["errors"] == [
        {"position": 1, "key": "img-1", "file": "img-1.jpg", "error": "cannot be decoded"}
    ]
    assert entry["software"]["python"] == platform.python_version()
    assert entry["software"]["numpy"] == numpy.__version__
    assert "pillow" not in entry["software"]
    for shard in entry["shards"]:
        data = (tmp_path / shard["name"]).read_bytes()
        assert shard["bytes"] == len(data)
        assert shard["sha256"] == hashlib.sha256(data).hexdigest()
        assert sum(shard["n_hist"]) == shard["n"]
        commit = json.loads((tmp_path / shard["name"]).with_suffix(".json").read_text())
        assert commit == shard
    lines = "".join(f"{shard['name']}\0{shard['sha256']}\n" for shard in entry["shards"])
    assert entry["dataset_sha256"] == hashlib.sha256(lines.encode()).hexdigest()


def test_read_manifest_gives_what_finish_gave(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, refused=["img-0", "img-4"])
    assert read_manifest(tmp_path) == manifest
    assert manifest.plan(["img-1", "img-2", "img-3"]) == plan_of()


def _set(path: str, value: object) -> Callable[[MutableMapping[str, Any]], None]:
    def change(entry: MutableMapping[str, Any]) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            entry = entry[parent]
        entry[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format_version", 2, "format version 2; this program reads version 1"),
        ("format_version", "7.3", r"format version 7\.3"),
        ("format", "something", "describes 'something'"),
        ("counts.samples", 6, "its counts does not follow"),
        ("extractor.network", "another", "its profile does not follow"),
        ("schema.class_vocab.labels", ["cat"], "its class_vocab does not follow"),
        ("dataset_sha256", "", "its dataset_sha256 does not follow"),
        ("shards", None, "damaged"),
        ("schema", [], "damaged"),
    ],
)
def test_a_changed_manifest_is_refused(
    tmp_path: Path, path: str, value: object, message: str
) -> None:
    write_dataset(tmp_path)
    file = tmp_path / "manifest.json"
    entry = json.loads(file.read_text())
    _set(path, value)(entry)
    file.write_text(json.dumps(entry))
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path)


def test_a_minor_version_and_new_entries_are_read(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path)
    file = tmp_path / "manifest.json"
    entry = json.loads(file.read_text())
    entry |= {"format_version": "1.2", "news": True}
    del entry["manifest_sha256"]
    own = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    entry["manifest_sha256"] = hashlib.sha256(own.encode()).hexdigest()
    file.write_text(json.dumps(entry))
    assert read_manifest(tmp_path).counts == manifest.counts


def test_an_entry_that_follows_from_nothing_is_checked_too(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    file = tmp_path / "manifest.json"
    entry = json.loads(file.read_text())
    entry["created"] = "2001-01-01T00:00:00+00:00"
    file.write_text(json.dumps(entry))
    with pytest.raises(InputError, match="manifest_sha256"):
        read_manifest(tmp_path)


def test_a_directory_without_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a data set of regions"):
        read_manifest(tmp_path)
    with pytest.raises(InputError, match="not a data set of regions"):
        read_manifest(tmp_path / "absent")
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(InputError, match=r"not finished.*run the same command again"):
        read_manifest(tmp_path)


def test_profile_is_pinned_and_blind_to_order_only() -> None:
    extractor = {"b": [1, 2], "a": {"x": 0.5}}
    text = b'{"a":{"x":0.5},"b":[1,2]}'
    assert profile_hash(extractor) == hashlib.sha256(text).hexdigest()[:16]
    assert profile_hash({"a": {"x": 0.5}, "b": (1, 2)}) == profile_hash(extractor)
    assert profile_hash({"b": [2, 1], "a": {"x": 0.5}}) != profile_hash(extractor)
    with pytest.raises(ConfigError, match="plain JSON values"):
        profile_hash({"a": float("nan")})
    with pytest.raises(ConfigError, match="plain JSON values"):
        profile_hash({"a": Path("weights")})


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"image_ids": ("a", "b", "a")}, InputError, "'a' is listed twice"),
        ({"image_ids": ("a.b",)}, InputError, r"'a\.b' cannot be a key"),
        ({"samples_per_shard": 0}, ConfigError, "must be at least 1, got 0"),
        ({"feature_size": 0}, ConfigError, "must be at least 1, got 2 and 0"),
    ],
)
def test_a_plan_that_cannot_be_written_is_refused(
    fields: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan_of(**fields)


def test_shards_of_a_plan_cover_it() -> None:
    for count in range(8):
        plan = plan_of(count, samples_per_shard=3)
        covered = [p for shard in range(plan.num_shards) for p in plan.positions(shard)]
        assert covered == list(range(count))


def test_files_hash_changes_with_bytes_order_and_history(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    hashes = {
        files_sha256([]),
        files_sha256([first]),
        files_sha256([first, second]),
        files_sha256([second, first]),
        files_sha256([first, second], after="old"),
    }
    assert len(hashes) == 5
    second.write_bytes(b"3")
    assert files_sha256([first, second]) not in hashes
