"""Texts that refer to the regions of another data set are what a copy of both would be."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from semvlp.errors import ConfigError, InputError
from semvlp.names import StoreFormat
from semvlp.shards.batch import Damage
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.formats.import_export import export_format
from semvlp.shards.maintenance.convert import convert, join
from semvlp.shards.maintenance.repair import repair
from semvlp.shards.maintenance.verify import info, verify
from semvlp.shards.open import open_store
from semvlp.shards.stores.tar_store import webdataset
from semvlp.shards.stream.reader import Reader
from semvlp.shards.stream.stream import Order, Stream, VisitKind
from semvlp.shards.writer import open_writer
from tests.shards.datasets import contents, plan_of, sample_of, write_dataset


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Regions in either kind of store, and on each a copy with texts and a reference."""
    folder = tmp_path_factory.mktemp("written")
    for format in get_args(StoreFormat):
        write_dataset(folder / format / "regions", plan_of(7), format=format, refused=["img-1"])
        texts = write_texts(folder / format)
        for name, refer in (("copy", False), ("reference", True)):
            join(folder / format / "regions", [texts], folder / format / name, refer=refer)
    return folder


def write_texts(folder: Path) -> Path:
    path = folder / "texts.jsonl"
    lines = (
        {"image_id": f"img-{number}", "captions": [f"{number} cats", "naïve"]} for number in (3, 0)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path)


@pytest.fixture
def folder(tmp_path: Path, written: Path, format: StoreFormat) -> Path:
    """Where `regions`, `copy` and `reference` lie, for regions in either kind of store."""
    return shutil.copytree(written / format, tmp_path / "data")


@pytest.fixture
def tars(tmp_path: Path, written: Path) -> Path:
    """As `folder`, with the regions in tar shards."""
    return shutil.copytree(written / "tar", tmp_path / "data")


def samples(path: Path) -> list[tuple[bytes, bytes, bytes, bytes]]:
    """Return members, entry and entry of several for each sample."""
    with open_store(path) as store:
        entries = store.entries(range(len(store)))
        every = [(*store.members(row), store.entry(row), entries[row]) for row in range(len(store))]
    return [(text, bytes(blob), one, of_all) for text, blob, one, of_all in every]


def test_every_sample_is_that_of_the_copy(folder: Path) -> None:
    assert samples(folder / "reference") == samples(folder / "copy")
    with open_store(folder / "reference") as store, open_store(folder / "copy") as copy:
        assert store.image_ids == copy.image_ids
        assert list(store.shard_sizes) == list(copy.shard_sizes)
        assert list(store.text_counts()) == list(copy.text_counts())
        manifest = store.manifest
        for name in ("counts", "refused", "regions_histogram", "profile", "texts_sha256"):
            assert getattr(manifest, name) == getattr(copy.manifest, name)
        features = store.regions("img-3").features
        np.testing.assert_array_equal(features, copy.regions("img-3").features)


@pytest.mark.parametrize("visit", ["images", "pairs"])
@pytest.mark.parametrize("order", ["full", "block", "sequential"])
def test_every_batch_is_that_of_the_copy(folder: Path, order: Order, visit: VisitKind) -> None:
    with open_store(folder / "reference") as store, open_store(folder / "copy") as copy:
        streams = [
            Stream([each], seed=3, batch_size=4, order=order, visit=visit, block_shards=2)
            for each in (store, copy)
        ]
        assert streams[0].state_dict() == streams[1].state_dict()
        assert streams[0].most_rows == streams[1].most_rows
        for position in range(0, 24, 4):
            ours, theirs = (stream.read(position) for stream in streams)
            assert ours.headers == theirs.headers
            assert ours.lengths == theirs.lengths
            for name, column in ours.columns.items():
                assert column.tobytes() == theirs.columns[name].tobytes()


def test_another_process_reads_it(tars: Path) -> None:
    with open_store(tars / "reference") as store, open_store(tars / "copy") as copy:
        expected = Stream([copy], seed=3, batch_size=4).read(0)
        with Reader(Stream([store], seed=3, batch_size=4)) as reader:
            batch = next(reader)
            assert batch.headers == expected.headers
            assert batch.columns["features"].tobytes() == expected.columns["features"].tobytes()
        with pickle.loads(pickle.dumps(store)) as again:
            assert again.sample(2).texts == copy.sample(2).texts


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_it_reads_on_both_sides_of_a_fork(folder: Path) -> None:
    with open_store(folder / "reference") as store:
        store.sample(0)
        child = os.fork()
        if not child:
            os._exit(0 if store.sample(1).key == "img-2" else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert store.sample(2).key == "img-3"


def test_its_size_does_not_depend_on_the_features(tmp_path: Path, texts: Path) -> None:
    sizes = []
    for width in (8, 4096):
        plan = plan_of(feature_size=width)
        with open_writer(tmp_path / f"{width}", plan, format="tar") as writer:
            for image_id in plan.image_ids:
                sample = sample_of(image_id, regions=3)
                features = np.zeros((3, width), np.float16)
                regions = replace(sample.regions, features=features)
                writer.write(replace(sample, regions=regions))
            writer.finish()
        join(tmp_path / f"{width}", [texts], tmp_path / f"on-{width}", refer=True)
        assert not list((tmp_path / f"on-{width}").glob("shard-*"))
        sizes.append((tmp_path / f"on-{width}" / "texts.lmdb").stat().st_size)
    assert sizes[0] == sizes[1]


def test_matched_images_alone_keep_their_regions(folder: Path, texts: Path) -> None:
    for name, refer in (("few-copied", False), ("few", True)):
        join(folder / "regions", [texts], folder / name, only_matched=True, refer=refer)
    assert samples(folder / "few") == samples(folder / "few-copied")
    with open_store(folder / "few") as store:
        assert list(store.image_ids) == ["img-0", "img-3"]
    assert verify(folder / "few") == []


def test_it_is_sound_and_says_what_it_refers_to(folder: Path) -> None:
    assert verify(folder / "reference") == []
    facts, base = info(folder / "reference"), read_manifest(folder / "regions")
    assert facts["store"] == "reference"
    assert facts["refers_to"] == {
        "path": "../regions",
        "images": 6,
        "dataset_sha256": base.dataset_sha256,
    }
    assert json.loads((folder / "reference" / "manifest.json").read_text())["format_version"] == 2


@pytest.mark.parametrize("to", ["tar", "lmdb"])
def test_converted_it_is_a_whole_data_set(folder: Path, to: StoreFormat) -> None:
    ours = convert(folder / "reference", folder / "whole", to=to)
    theirs = convert(folder / "copy", folder / "other", to=to)
    assert ours.base is None
    assert ours.format_version == 1
    if to == "tar":
        assert contents(folder / "whole") == contents(folder / "other")
    assert ours.counts == theirs.counts
    shutil.rmtree(folder / "regions")
    assert samples(folder / "whole") == samples(folder / "copy")
    assert verify(folder / "whole") == []


def test_it_is_exported_and_copied_like_any_other(tars: Path, texts: Path) -> None:
    for name in ("reference", "copy"):
        export_format(tars / name, tars / f"{name}.tsv", to="lxmert-tsv")
        join(tars / name, [texts], tars / f"{name}-again")
    assert (tars / "reference.tsv").read_bytes() == (tars / "copy.tsv").read_bytes()
    assert contents(tars / "reference-again") == contents(tars / "copy-again")


def test_a_reference_to_a_reference_refers_to_the_regions(tars: Path, texts: Path) -> None:
    texts.write_text('{"image_id": "img-4", "captions": ["a fourth"]}\n')
    join(tars / "copy", [texts], tars / "copy-2")
    join(tars / "reference", [texts], tars / "elsewhere" / "reference-2", refer=True)
    shutil.rmtree(tars / "reference")
    assert info(tars / "elsewhere" / "reference-2")["refers_to"]["path"] == "../../regions"
    assert samples(tars / "elsewhere" / "reference-2") == samples(tars / "copy-2")


def test_some_shards_alone_may_be_referred_to(tars: Path, texts: Path) -> None:
    shards = tars / "regions" / "shard-00000[01].tar"
    join(shards, [texts], tars / "some", refer=True)
    with open_store(tars / "some") as store:
        assert list(store.image_ids) == ["img-0", "img-2", "img-3"]
        assert store.sample(2).texts.captions[1:] == ("3 cats", "naïve")


def test_both_may_move_together_and_what_is_far_is_named_from_the_root(
    tars: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = samples(tars / "copy")
    tars.rename(tars.parent / "moved")
    (tars.parent / "link").symlink_to(tars.parent / "moved" / "reference")
    assert samples(tars.parent / "link") == expected
    monkeypatch.setattr(os.path, "commonpath", lambda paths: "/")
    join(tars.parent / "moved" / "regions", [texts], tars.parent / "far", refer=True)
    named = info(tars.parent / "far")["refers_to"]["path"]
    assert named == str((tars.parent / "moved" / "regions").resolve())
    (tars.parent / "far").rename(tars.parent / "moved" / "far")
    assert samples(tars.parent / "moved" / "far") == expected


def lost(regions: Path) -> None:
    shutil.rmtree(regions)


def unfinished(regions: Path) -> None:
    (regions / "manifest.json").unlink()


def cut(regions: Path) -> None:
    os.truncate(regions / "shard-000001.tar", 100)


def overwritten(regions: Path) -> None:
    shutil.rmtree(regions)
    write_dataset(regions, plan_of(6))


def another_reference(regions: Path) -> None:
    shutil.rmtree(regions)
    shutil.copytree(regions.parent / "reference", regions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lost, "not a data set of regions"),
        (unfinished, "is not finished"),
        (cut, r"shard-000001\.tar must have \d+ bytes"),
        (overwritten, r"it held 6 images under the hash \w{16}, now 6 under \w{16}"),
        (another_reference, "has no regions of its own"),
    ],
)
def test_regions_that_are_not_the_same_are_one_error_that_names_both(
    tars: Path, change: Callable[[Path], None], message: str
) -> None:
    change(tars / "regions")
    both = f"{tars / 'reference'} reads the regions of {(tars / 'regions').resolve()}, "
    with pytest.raises(InputError, match=message) as error:
        open_store(tars / "reference")
    assert str(error.value).startswith(both)
    assert [str(finding) for finding in verify(tars / "reference")] == [
        f"manifest.json: {error.value}"
    ]


def test_a_damaged_sample_of_the_base_is_named_and_costs_no_other(tars: Path) -> None:
    shard = tars / "regions" / "shard-000001.tar"
    data = bytearray(shard.read_bytes())
    data[-1024 - 512] ^= 1
    shard.write_bytes(data)
    with open_store(tars / "reference") as store:
        assert store.sample(1).key == "img-2"
        with pytest.raises(InputError, match=r"regions/shard-000001\.tar.*img-3"):
            store.sample(2)
        with store.view([2]) as views:
            damage = next(views)
        assert isinstance(damage, Damage)
        assert damage.image_id == "img-3"
        assert re.search(r"regions/shard-000001\.tar.*img-3", damage.reason)
    (finding,) = verify(tars / "reference")
    assert (finding.shard, finding.key) == ("texts.lmdb", "img-3")


def test_sound_regions_of_another_extraction_are_noticed(tmp_path: Path, texts: Path) -> None:
    """Files that took the place of others, of the same size, under the old manifest."""
    for name, shift in (("regions", 0), ("other", 1)):
        with open_writer(tmp_path / name, plan_of(), format="tar") as writer:
            for image_id in plan_of().image_ids:
                sample = sample_of(image_id, regions=2)
                regions = replace(sample.regions, features=sample.regions.features + shift)
                writer.write(replace(sample, regions=regions))
            writer.finish()
    join(tmp_path / "regions", [texts], tmp_path / "reference", refer=True)
    for path in (tmp_path / "other").iterdir():
        if path.name != "manifest.json":
            shutil.copy(path, tmp_path / "regions")
    with open_store(tmp_path / "reference") as store:
        message = r"reference/texts\.lmdb, sample img-0: .*of .*/regions: .*checksum"
        with pytest.raises(InputError, match=message):
            store.sample(0)
        with store.view([0]) as views:
            damage = next(views)
        assert isinstance(damage, Damage)
        assert re.search(message, damage.reason)
    assert {finding.key for finding in verify(tmp_path / "reference")} == set(plan_of().image_ids)


@pytest.mark.parametrize("place", [4, 0.5])
def test_damage_of_its_own_file_is_found(tars: Path, place: float) -> None:
    path = tars / "reference" / "texts.lmdb"
    data = bytearray(path.read_bytes())
    data[place if isinstance(place, int) else int(len(data) * place)] ^= 1
    path.write_bytes(data)
    assert "texts.lmdb" in {finding.shard for finding in verify(tars / "reference")}


def test_what_lies_beside_its_texts_is_made_anew(folder: Path) -> None:
    before = read_manifest(folder / "reference")
    (folder / "reference" / "manifest.json").unlink()
    assert repair(folder / "reference") == replace(before, created=before.created)
    assert verify(folder / "reference") == []


def test_nothing_is_written_over_the_regions_that_are_read(tars: Path, texts: Path) -> None:
    before = contents(tars / "regions")
    for refer in (False, True):
        with pytest.raises(ConfigError, match="must not be the data set that is read"):
            join(tars / "reference", [texts], tars / "regions", overwrite=True, refer=refer)
    with pytest.raises(ConfigError, match="must not be the data set that is read"):
        convert(tars / "reference", tars / "regions", to="tar", overwrite=True)
    assert contents(tars / "regions") == before


def test_a_join_does_not_go_on_with_other_regions(tars: Path, texts: Path) -> None:
    before = contents(tars / "reference")
    overwritten(tars / "regions")
    with pytest.raises(ConfigError, match=r"another plan: .*refers_to\.dataset_sha256 was"):
        join(tars / "regions", [texts], tars / "reference", refer=True)
    assert contents(tars / "reference") == before


def test_a_place_that_json_cannot_name_is_refused(tmp_path: Path, texts: Path) -> None:
    regions = tmp_path / os.fsdecode(b"bad\xff")
    write_dataset(regions)
    with pytest.raises(ConfigError, match=r"bad\? is no UTF-8"):
        join(regions, [texts], tmp_path / "out", refer=True)
    assert not (tmp_path / "out").exists()


def test_a_damaged_entry_is_refused_without_reading_regions(tars: Path, texts: Path) -> None:
    """Regions are not read; where JSON is damaged, its image can be left out."""
    sound = samples(tars / "reference")
    shard = tars / "regions" / "shard-000001.tar"
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"a photo of img-2", b"a Photo of img-2"))
    with pytest.raises(InputError, match="checksum of its JSON"):
        join(tars / "regions", [texts], tars / "again", refer=True)
    report = join(tars / "regions", [texts], tars / "again", refer=True, max_bad=1)
    assert [refusal.image_id for refusal in report.manifest.refused] == ["img-1", "img-2"]
    assert samples(tars / "again") == [each for each in sound if b"of img-2" not in each[0]]


def test_stock_webdataset_is_told_what_to_do(folder: Path) -> None:
    with pytest.raises(InputError, match=r"has no tar shards.*shards convert"):
        webdataset(folder / "reference")
