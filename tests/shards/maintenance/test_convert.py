"""Tar to LMDB and back keeps each byte; joined texts leave the regions as they are."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import ConfigError, InputError, TooManyRefused
from semvlp.names import StoreFormat
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.maintenance import convert as convert_module
from semvlp.shards.maintenance.convert import convert, join
from semvlp.shards.maintenance.verify import verify
from semvlp.shards.open import open_store
from semvlp.shards.record import Texts
from tests.shards.datasets import write_dataset


def members(path: Path) -> list[tuple[bytes, bytes]]:
    with open_store(path) as store:
        members = [store.members(index) for index in range(len(store))]
    return [(text, bytes(blob)) for text, blob in members]


def test_there_and_back_again_is_the_same_data_set(tmp_path: Path) -> None:
    original = write_dataset(tmp_path / "tar", refused=["img-1", "img-4"])
    middle = convert(tmp_path / "tar", tmp_path / "lmdb", to="lmdb")
    back = convert(tmp_path / "lmdb", tmp_path / "back", to="tar")
    assert middle.store == "lmdb"
    assert members(tmp_path / "lmdb") == members(tmp_path / "tar")
    assert back.dataset_sha256 == original.dataset_sha256
    assert middle.counts == original.counts
    assert middle.refused == back.refused == original.refused
    assert middle.profile == original.profile
    for shard in original.shards:
        same = (tmp_path / "back" / shard.name).read_bytes()
        assert same == (tmp_path / "tar" / shard.name).read_bytes()
    assert verify(tmp_path / "lmdb") == verify(tmp_path / "back") == []


def test_converting_onto_another_data_set_is_refused(tmp_path: Path, caption_file: Path) -> None:
    write_dataset(tmp_path / "a")
    join(tmp_path / "a", [caption_file], tmp_path / "joined")
    convert(tmp_path / "a", tmp_path / "lmdb", to="lmdb")
    with pytest.raises(ConfigError, match="was begun with other texts"):
        convert(tmp_path / "joined", tmp_path / "lmdb", to="lmdb")
    manifest = convert(tmp_path / "joined", tmp_path / "lmdb", to="lmdb", overwrite=True)
    assert manifest.counts["captions"] == 8
    with pytest.raises(ConfigError, match="must not be the data set that is read"):
        convert(tmp_path / "a", tmp_path / "b" / ".." / "a", to="lmdb", overwrite=True)
    assert verify(tmp_path / "a") == []


def damaged(path: Path, **fields: Any) -> Path:
    """Return a data set of five images, one of them refused and another one damaged."""
    write_dataset(path, **fields)
    shard = path / "shard-000001.tar"
    data = bytearray(shard.read_bytes())
    data[-1024 - 512] ^= 1
    shard.write_bytes(data)
    return path


@pytest.mark.parametrize("command", ["convert", "join"])
def test_damaged_images_are_left_out_where_some_may_be(
    tmp_path: Path, caption_file: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = damaged(tmp_path / "a", refused=["img-0"])
    more = ("--to", "lmdb") if command == "convert" else ("--texts", caption_file, "--out")
    to = (tmp_path / "b",)
    both = (source, *to, *more) if command == "convert" else (source, *more, *to)
    arguments = ["shards", command, *map(str, both)]
    assert run(cli, "semvlp", arguments) == 4
    said = capsys.readouterr().err
    assert "holds 3 images, but 1 of 4 were refused" in said
    assert run(cli, "semvlp", [*arguments, "--max-bad", "0.5"]) == 0
    assert "2 refused" in capsys.readouterr().out
    refused = read_manifest(tmp_path / "b").refused
    assert [refusal.image_id for refusal in refused] == ["img-0", "img-3"]
    assert refused[1].file == str(source)
    assert "shard-000001.tar" in refused[1].reason


def test_a_stored_text_with_half_a_character_costs_its_image_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "a")
    (tmp_path / "c.jsonl").write_text('{"image_id": "img-1", "captions": ["new"]}\n')
    texts_of = convert_module.texts_of

    def with_half(entry: dict[str, Any]) -> Texts:
        texts = texts_of(entry)
        return replace(texts, captions=("\ud800",)) if entry["key"] == "img-1" else texts

    monkeypatch.setattr(convert_module, "texts_of", with_half)
    with pytest.raises(TooManyRefused):
        join(tmp_path / "a", [tmp_path / "c.jsonl"], tmp_path / "b", max_bad=0)
    manifest = read_manifest(tmp_path / "b")
    assert [refusal.image_id for refusal in manifest.refused] == ["img-1"]
    assert "half a character" in manifest.refused[0].reason


def test_a_damaged_source_is_not_copied(tmp_path: Path) -> None:
    damaged(tmp_path / "a")
    with pytest.raises(InputError, match=r"shard-000001\.tar.*img-3"):
        convert(tmp_path / "a", tmp_path / "b", to="lmdb")
    with pytest.raises(InputError, match="not finished"):
        open_store(tmp_path / "b")


@pytest.fixture
def caption_file(tmp_path: Path) -> Path:
    """COCO captions: two of one image, one it has already, one of an unknown image."""
    captions = [
        (0, "a cat"),
        (0, "a second cat"),
        (2, "a dog"),
        (2, "a photo of img-2, naïve"),
        (77, "nowhere to be seen"),
    ]
    value = {
        "images": [{"id": n, "file_name": f"img-{n}.jpg"} for n in (0, 2, 77)],
        "annotations": [
            {"id": number, "image_id": image, "caption": text}
            for number, (image, text) in enumerate(captions)
        ],
    }
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_join_adds_texts_and_copies_the_regions(
    tmp_path: Path, format: StoreFormat, caption_file: Path
) -> None:
    before = write_dataset(tmp_path / "a", format=format, refused=["img-1"])
    report = join(tmp_path / "a", [caption_file], tmp_path / "b")
    assert (report.images, report.matched) == (4, 2)
    assert (report.captions, report.questions) == (4 + 3, 4)
    assert [name.partition(".")[0] for name in report.unmatched] == ["img-77"]
    assert report.manifest.profile == before.profile
    assert report.manifest.store == format
    old, new = members(tmp_path / "a"), members(tmp_path / "b")
    assert [blob for _, blob in new] == [blob for _, blob in old]
    with open_store(tmp_path / "b") as store:
        own = "a photo of img-0, naïve"
        assert store.texts(0).captions == (own, "a cat", "a second cat")
        assert store.texts(1).captions == ("a photo of img-2, naïve", "a dog")
    assert new[2:] == old[2:]
    assert verify(tmp_path / "b") == []


def test_joining_twice_changes_nothing(tmp_path: Path, caption_file: Path) -> None:
    write_dataset(tmp_path / "a")
    join(tmp_path / "a", [caption_file], tmp_path / "b")
    join(tmp_path / "b", [caption_file], tmp_path / "c")
    assert members(tmp_path / "c") == members(tmp_path / "b")


def test_a_question_asked_again_replaces_the_old_one(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a")
    questions = tmp_path / "questions.json"
    entry = {"question_id": 7, "image_id": "img-3", "question": "is it really?"}
    questions.write_text(json.dumps({"questions": [entry]}))
    report = join(tmp_path / "a", [questions], tmp_path / "b")
    assert report.questions == 5
    with open_store(tmp_path / "b") as store:
        (question,) = store.texts(3).questions
        assert question.question == "is it really?"
        assert store.texts(2).questions[0].question == "is it img-2?"


def test_only_matched_images_are_kept_where_asked(tmp_path: Path, caption_file: Path) -> None:
    write_dataset(tmp_path / "a", refused=["img-1"])
    report = join(tmp_path / "a", [caption_file], tmp_path / "b", only_matched=True)
    assert report.images == report.matched == 2
    with open_store(tmp_path / "b") as store:
        assert list(store.image_ids) == ["img-0", "img-2"]
        assert all("a photo of" not in store.texts(i).captions[-1] for i in range(2))
    assert verify(tmp_path / "b") == []
