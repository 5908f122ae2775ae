"""Of a database that is cut short or whose list of keys is damaged, the rest is imported."""

import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import InputError
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.formats import foreign_lmdb
from semvlp.shards.formats.foreign_lmdb import ForeignLmdb
from semvlp.shards.formats.raw import to_regions
from semvlp.shards.formats.table import load_format
from semvlp.shards.stores.lmdb_salvage import salvage
from semvlp.shards.stores.lmdb_store import open_environment, put_all
from tests.shards.formats.test_lmdb import as_msgpack, cut, database, uniter_arrays, vilbert_entry

IMAGES = 300
"""Enough for a tree of two levels, and some of them need pages of their own."""


def entry_of(number: int) -> dict[str, Any]:
    rows = 100 if number % 7 == 0 else 2
    features = np.full((rows, 3), number, np.float32)
    boxes = np.tile(np.array([[1, 2, 19, 9]], np.float32), (rows, 1))
    return vilbert_entry(features=features, boxes=boxes, num_boxes=rows)


def vilbert(path: Path, *, at_once: int = IMAGES + 1, listed: bool = True) -> Path:
    """A database as ViLBERT's, written in transactions of so many entries."""
    path.mkdir()
    items = [(f"{number}".encode(), pickle.dumps(entry_of(number))) for number in range(IMAGES)]
    keys = (b"keys", pickle.dumps([key for key, _ in items]))
    items = [keys, *items] if listed else items
    environment = open_environment(path, readonly=False)
    for first in range(0, len(items), at_once):
        put_all(environment, items[first : first + at_once])
    environment.close()
    return path


def imported(path: Path, out: Path, *more: str) -> int:
    names = ["--from", "vilbert-lmdb", "--to", "tar", "--overwrite"]
    return run(cli, "semvlp", ["shards", "import", str(path), str(out), *names, *more])


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("at_once", [IMAGES + 1, 40])
@pytest.mark.parametrize("share", [0.8])
def test_what_a_cut_database_holds_is_read_and_the_rest_is_refused_by_name(
    tmp_path: Path, listed: bool, at_once: int, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    path = vilbert(tmp_path / "db", listed=listed, at_once=at_once)
    file = path / "data.mdb"
    cut(path, int(file.stat().st_size * share))
    try:
        kept, lost, whole = salvage(path)
    except InputError:
        # Its root was written last, so nothing leads anywhere.
        assert imported(path, tmp_path / "out") == 3
        assert "it was cut short" in capsys.readouterr().err
        return
    assert imported(path, tmp_path / "out", "--max-bad", "0") == 4
    said = capsys.readouterr().err
    manifest = read_manifest(tmp_path / "out")
    assert manifest.counts["samples"] == len(kept) - (b"keys" in kept)
    refused = {refusal.image_id for refusal in manifest.refused}
    if b"keys" in kept:
        # Whatever is lost has a name.
        assert len(refused) == IMAGES - manifest.counts["samples"]
    else:
        assert {key.decode() for key in lost} <= refused
    known = whole or b"keys" in kept
    assert ("how much more is lost is not known" in said) is not known
    assert imported(path, tmp_path / "out", "--max-bad", "0.99") == (0 if known else 4)


@pytest.mark.parametrize("share", [0.6, 0.9, 1.0])
def test_what_is_read_of_a_cut_database_is_what_was_written(tmp_path: Path, share: float) -> None:
    path = vilbert(tmp_path / "db")
    cut(path, int((path / "data.mdb").stat().st_size * share))
    dataset = load_format("vilbert-lmdb").open(path)
    read = 0
    for image_id in dataset.image_ids:
        with suppress(InputError):
            regions = to_regions(dataset.read(image_id), image_id, profile="")
            assert np.array_equal(regions.features, entry_of(int(image_id))["features"])
            read += 1
    dataset.close()
    assert read == IMAGES if share == 1 else 0 < read < IMAGES


LISTS: list[tuple[str, Callable[[list[str]], bytes]]] = [
    ("vilbert-lmdb", lambda keys: b"\x80\x04]"),
    ("vilbert-lmdb", lambda keys: pickle.dumps({"keys": keys})),
    ("vilbert-lmdb", lambda keys: pickle.dumps(list(range(3)))),
    ("uniter-lmdb", lambda keys: json.dumps(keys).encode()[:-3]),
    ("uniter-lmdb", lambda keys: b"7"),
    ("uniter-lmdb", lambda keys: b"[" * 100_000),
]


@pytest.mark.parametrize(("name", "damaged"), LISTS)
def test_with_a_damaged_list_of_keys_all_entries_are_read(
    tmp_path: Path,
    name: str,
    damaged: Callable[[list[str]], bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name == "uniter-lmdb":
        entries = {f"{n}.npz": as_msgpack(uniter_arrays()) for n in range(3)}
        list_key = b"__keys__"
    else:
        entries = {f"{n}": pickle.dumps(entry_of(n)) for n in range(3)}
        list_key = b"keys"
    items = {key.encode(): value for key, value in entries.items()}
    path = database(tmp_path / "db", {**items, list_key: damaged(list(entries))})
    out = tmp_path / "out"
    arguments = ["shards", "import", str(path), str(out), "--from", name, "--to", "tar"]
    assert run(cli, "semvlp", arguments) == 4
    said = capsys.readouterr().err
    assert "holds 3 images, but 1 of 4 were refused" in said
    assert "how much more is lost is not known" in said
    manifest = read_manifest(out)
    assert manifest.counts["samples"] == 3
    [refusal] = manifest.refused
    assert refusal.file == str(path)
    assert refusal.reason.startswith("the list of keys is damaged: ")


def test_a_tree_that_leads_astray_is_followed_where_it_is_sound(tmp_path: Path) -> None:
    """Each page of the tree in turn says that its keys are others, or leads nowhere."""
    path = vilbert(tmp_path / "db")
    file = path / "data.mdb"
    whole = file.read_bytes()
    sound = salvage(path)
    assert sound.whole
    assert len(sound.values) == IMAGES + 1
    assert not sound.lost
    values = {key: whole[at : at + size] for key, (at, size) in sound.values.items()}
    lost = 0
    for page in range(2 * 4096, len(whole), 4096):
        (kind,) = whole[page + 10 : page + 11]
        if kind not in (1, 2):
            continue
        for place in (0, 10, 12, 14, 16, 2000, 4090):
            data = bytearray(whole)
            data[page + place] ^= 0x10
            file.write_bytes(data)
            try:
                read = salvage(path)
            except InputError:
                continue
            lost += len(read.values) < len(values)
            for key, (at, size) in read.values.items():
                assert key not in values or len(data[at : at + size]) == size
            assert read.whole or len(read.values) < len(values)
    assert lost > 10


def test_a_database_that_is_whole_is_read_by_lmdb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_lmdb, "salvage", None)
    database = ForeignLmdb(vilbert(tmp_path / "db"))
    assert database.get(b"0") == pickle.dumps(entry_of(0))
    database.close()
