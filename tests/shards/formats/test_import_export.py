"""Every community format is written from a store and read back; damaged images are refused."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semvlp.errors import ConfigError, InputError
from semvlp.shards.dataset.manifest import Plan
from semvlp.shards.formats import import_export
from semvlp.shards.formats.import_export import export_format, import_format
from semvlp.shards.formats.safe_pickle import load_npy
from semvlp.shards.formats.table import FORMATS, PARQUET, load_format
from semvlp.shards.open import open_store
from semvlp.shards.record import NO_ATTRIBUTE, Regions, Sample
from semvlp.shards.stores.store import Store
from semvlp.shards.writer import open_writer

LABELS = ("ant", "bee", "cat", "dog")
ATTRIBUTES = ("red", "blue")
IDS = ("COCO_train2014_000000000009", "n54424", "dev-1-0-img0", "2354786")
COUNTS = dict(zip(IDS, (36, 5, 0, 100), strict=True))
FEATURE_SIZE = 12

# What a format holds besides features and boxes.
KEEPS: dict[str, set[str]] = {
    "lxmert-tsv": {"size", "objects", "attributes"},
    "butd-tsv": {"size"},
    "butd-hdf5": {"size"},
    "uniter-npz": {"objects"},
    "uniter-lmdb": {"objects"},
    "vilbert-lmdb": {"size"},
    "volta-lmdb": {"size", "objects", "attributes"},
    "milvlg-npz": {"size", "objects", "attributes"},
    "vinvl-tsv": {"size", "objects"},
    "mmf-npy": {"size", "objects"},
    "mmf-lmdb": {"size", "objects"},
}
RENAMED = {
    "butd-hdf5": {"COCO_train2014_000000000009": "9"},
    "vilbert-lmdb": {"COCO_train2014_000000000009": "9"},
    "volta-lmdb": {"COCO_train2014_000000000009": "9"},
    "vinvl-tsv": {"COCO_train2014_000000000009": "9"},
}


def make_regions(image_id: str, profile: str) -> Regions:
    generator = np.random.default_rng(list(image_id.encode()))
    count = COUNTS[image_id]
    boxes = np.sort(generator.uniform(0, 400, (count, 2, 2)), axis=1).reshape(count, 4)
    return Regions(
        image_id=image_id,
        width=640,
        height=427,
        boxes=boxes.astype(np.float32),
        proposals=boxes.astype(np.float32) + 2,
        features=generator.uniform(0.1, 30, (count, FEATURE_SIZE)).astype(np.float16),
        object_ids=generator.integers(0, len(LABELS), count).astype(np.int16),
        object_conf=np.sort(generator.uniform(0.1, 1, count))[::-1].astype(np.float16),
        attribute_ids=generator.integers(0, len(ATTRIBUTES), count).astype(np.int16),
        attribute_conf=generator.uniform(0, 1, count).astype(np.float16),
        profile=profile,
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four images with 36, 5, 0 and 100 regions."""
    folder = tmp_path_factory.mktemp("original")
    plan = Plan(
        image_ids=IDS,
        extractor={"network": "test"},
        object_labels=LABELS,
        attribute_labels=ATTRIBUTES,
        feature_size=FEATURE_SIZE,
        samples_per_shard=10,
    )
    with open_writer(folder, plan, format="tar") as writer:
        for image_id in IDS:
            writer.write(Sample(key=image_id, regions=make_regions(image_id, plan.profile)))
        writer.finish()
    return open_store(folder)


def regions_of(store: Store) -> dict[str, Regions]:
    return {image_id: store.sample(n).regions for n, image_id in enumerate(store.image_ids)}


def test_the_table_has_these_formats() -> None:
    assert set(FORMATS) == set(KEEPS)


def test_the_command_line_shows_the_formats_of_the_table_and_imports_none_of_them() -> None:
    probe = (
        "import sys; from semvlp.cli import cli; from semvlp.commands.console import run;"
        "run(cli, 'semvlp', ['shards', 'import', '--help']);"
        "print([name for name in ('numpy', 'lmdb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert "".join(f"[{'|'.join([*FORMATS, PARQUET])}]".split()) in "".join(done.stdout.split())
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", KEEPS)
def test_export_and_import_give_the_images_back(original: Store, tmp_path: Path, name: str) -> None:
    assert export_format(original.path, tmp_path / "out", to=name) == len(IDS)
    to = "lmdb" if name.endswith("npz") else "tar"
    manifest = import_format(tmp_path / "out", tmp_path / "back", from_=name, to=to)
    assert manifest.counts["samples"] == len(IDS)
    assert manifest.extractor["format"] == name
    assert not manifest.refused
    with open_store(tmp_path / "back") as store:
        back = regions_of(store)
    renamed = RENAMED.get(name, {})
    assert set(back) == {renamed.get(image_id, image_id) for image_id in IDS}
    for image_id, before in regions_of(original).items():
        after = back[renamed.get(image_id, image_id)]
        _compare(before, after, KEEPS[name], manifest.object_labels)


def _compare(
    before: Regions, after: Regions, keeps: set[str], object_labels: tuple[str, ...]
) -> None:
    np.testing.assert_array_equal(after.features, before.features)
    np.testing.assert_array_equal(after.proposals, after.boxes)
    sizes = (np.array([image.width, image.height] * 2) for image in (before, after))
    size_before, size_after = sizes
    # float16 boxes of UNITER: half a unit in the eleventh binary digit.
    tolerance = 1e-6 if "size" in keeps else 2**-11
    np.testing.assert_allclose(after.boxes / size_after, before.boxes / size_before, atol=tolerance)
    if "size" in keeps:
        assert (after.width, after.height) == (before.width, before.height)
    else:
        assert (after.width, after.height) == (1000, 1000)
    if "objects" in keeps:
        ids = before.object_ids.tolist()
        if object_labels:
            assert [object_labels[i] for i in after.object_ids] == [LABELS[i] for i in ids]
        else:
            assert after.object_ids.tolist() == ids
        np.testing.assert_allclose(after.object_conf, before.object_conf, atol=1e-3)
    else:
        assert not after.object_ids.any()
        assert not after.object_conf.any()
    if "attributes" in keeps:
        np.testing.assert_array_equal(after.attribute_ids, before.attribute_ids)
        np.testing.assert_array_equal(after.attribute_conf, before.attribute_conf)
    else:
        assert (after.attribute_ids == NO_ATTRIBUTE).all()
        assert not after.attribute_conf.any()


def test_an_unknown_format_lists_the_known(original: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lxmert-tsv, butd-tsv"):
        import_format(tmp_path, tmp_path / "x", from_="tsv", to="tar")
    with pytest.raises(ConfigError, match="mmf-npy"):
        export_format(original.path, tmp_path / "x", to="h5")


def test_nothing_existing_is_overwritten_by_an_export(original: Store, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="not overwritten"):
        export_format(original.path, tmp_path / "out", to="butd-tsv")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("error", [InputError("read error"), KeyboardInterrupt("read error")])
@pytest.mark.parametrize("name", KEEPS)
def test_an_export_that_failed_leaves_nothing_and_can_be_repeated(
    original: Store,
    tmp_path: Path,
    name: str,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = type(original).sample

    def fail_at_the_last(store: Store, index: int) -> Any:
        if index == len(IDS) - 1:
            raise error
        return sample(store, index)

    with monkeypatch.context() as patch:
        patch.setattr(type(original), "sample", fail_at_the_last)
        with pytest.raises(type(error), match="read error"):
            export_format(original.path, tmp_path / "out", to=name)
    assert not list(tmp_path.iterdir())
    left = tmp_path / ".out.killed_1.part"
    left.mkdir()
    (left / "out").write_text("half")
    assert export_format(original.path, tmp_path / "out", to=name) == len(IDS)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_of_nothing_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        export_format(tmp_path / "nowhere", tmp_path / "new" / "out", to="butd-tsv")
    assert not list(tmp_path.iterdir())


def test_an_export_replaces_no_link_that_leads_nowhere(original: Store, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("unmounted")
    with pytest.raises(ConfigError, match="exists and is not overwritten"):
        export_format(original.path, tmp_path / "out", to="butd-tsv")
    assert (tmp_path / "out").is_symlink()


@pytest.mark.parametrize("name", ["vinvl-tsv", "butd-tsv"])
def test_of_two_exports_to_one_place_the_second_replaces_nothing(
    original: Store, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = type(original).sample

    def meanwhile(store: Store, index: int) -> Any:
        (tmp_path / "out").write_text("the first")
        return sample(store, index)

    monkeypatch.setattr(type(original), "sample", meanwhile)
    with pytest.raises(ConfigError, match="exists and is not overwritten"):
        export_format(original.path, tmp_path / "out", to=name)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_text() == "the first"


@pytest.fixture
def tsv(original: Store, tmp_path: Path) -> Callable[..., Path]:
    """The images as a bottom-up-attention TSV, whose rows may be changed."""
    export_format(original.path, tmp_path / "whole.tsv", to="butd-tsv")
    rows = [line.split("\t") for line in (tmp_path / "whole.tsv").read_text().splitlines()]

    def write(change: Callable[[list[list[str]]], list[list[str]]] = lambda rows: rows) -> Path:
        path = tmp_path / "set.tsv"
        changed = change([list(row) for row in rows])
        path.write_text("".join("\t".join(row) + "\n" for row in changed))
        return path

    return write


def _replace(column: int, value: Callable[[str], str]) -> Callable[..., list[list[str]]]:
    def change(rows: list[list[str]]) -> list[list[str]]:
        rows[1][column] = value(rows[1][column])
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_replace(5, lambda text: "*" + text[1:]), "column features is damaged"),
        (_replace(5, lambda text: text[:-8]), "column features"),
        (_replace(4, lambda text: text[:-8]), "column boxes"),
        (_replace(3, lambda text: "7"), "not a multiple of 7"),
        (_replace(3, lambda text: "five"), "num_boxes must be a whole number"),
        (_replace(1, lambda text: "100"), "are width and height exchanged"),
        (_replace(1, lambda text: "0"), "size must be positive"),
        (lambda rows: [rows[0], rows[1][:3], *rows[2:]], "3 of 6 columns"),
    ],
)
def test_a_damaged_row_is_refused_and_its_neighbours_are_kept(
    tsv: Callable[..., Path], tmp_path: Path, change: Any, reason: str
) -> None:
    path = tsv(change)
    manifest = import_format(path, tmp_path / "out", from_="butd-tsv", to="tar")
    assert manifest.counts["samples"] == len(IDS) - 1
    lines = (tmp_path / "out" / "refused.jsonl").read_text().splitlines()
    entry = json.loads(lines[0])
    assert len(lines) == 1
    assert entry["id"] == IDS[1]
    assert entry["file"] == str(path)
    assert reason in entry["reason"]


def test_a_file_cut_short_loses_only_its_last_row(tsv: Callable[..., Path], tmp_path: Path) -> None:
    path = tsv()
    data = path.read_bytes()
    path.write_bytes(data[:-1000])
    manifest = import_format(path, tmp_path / "out", from_="butd-tsv", to="tar")
    assert [refusal.image_id for refusal in manifest.refused] == [IDS[-1]]
    assert manifest.counts["samples"] == len(IDS) - 1


def test_repeated_rows_are_counted_and_left_out(
    tsv: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tsv(lambda rows: [*rows, rows[0], rows[1]])
    with caplog.at_level(logging.WARNING):
        manifest = import_format(path, tmp_path / "out", from_="butd-tsv", to="tar")
    assert manifest.counts == {"samples": 4, "captions": 0, "questions": 0, "errors": 0}
    assert "left out 2 rows" in caplog.text


def test_the_size_is_learnt_behind_a_damaged_first_row(
    tsv: Callable[..., Path], tmp_path: Path
) -> None:
    path = tsv(lambda rows: [[*rows[0][:5], "*"], *rows[1:]])
    manifest = import_format(path, tmp_path / "out", from_="butd-tsv", to="tar")
    assert (manifest.feature_size, manifest.counts["errors"]) == (FEATURE_SIZE, 1)


def test_nothing_readable_is_an_error(tsv: Callable[..., Path], tmp_path: Path) -> None:
    path = tsv(lambda rows: [[*row[:5], "*"] for row in rows])
    with pytest.raises(InputError, match=r"set\.tsv: not one image.*features is damaged"):
        import_format(path, tmp_path / "out", from_="butd-tsv", to="tar")


def test_an_import_that_was_stopped_goes_on(
    tsv: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, convert = tsv(), import_export.to_regions
    seen: list[str] = []

    def stop_at_third(raw: Any, image_id: str, *rest: Any, **named: Any) -> Regions:
        seen.append(image_id)
        if len(seen) == 4:  # the first call only learns the feature size
            raise KeyboardInterrupt
        return convert(raw, image_id, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(import_export, "to_regions", stop_at_third)
        patch.setattr(import_export, "to_regions", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            import_format(path, tmp_path / "out", from_="butd-tsv", to="lmdb")
        seen.clear()
        seen.extend(["x"] * 10)
        manifest = import_format(path, tmp_path / "out", from_="butd-tsv", to="lmdb")
    assert seen[10:] == [IDS[0], IDS[2], IDS[3]]
    assert manifest.counts["samples"] == len(IDS)


def test_sets_of_one_named_source_share_a_profile(tsv: Callable[..., Path], tmp_path: Path) -> None:
    path = tsv()
    other = path.rename(tmp_path / "other.tsv")
    profiles = [
        import_format(
            other, tmp_path / f"{source}{number}", from_="butd-tsv", to="tar", source=source
        ).profile
        for number, source in enumerate(("butd-36", "butd-36", "", "vinvl"))
    ]
    assert profiles[0] == profiles[1]
    assert len(set(profiles)) == 3


def test_a_directory_of_tsvs_is_one_data_set(tsv: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    tsv(lambda rows: rows[:2]).rename(folder / "a.tsv")
    tsv(lambda rows: rows[2:]).rename(folder / "b.tsv")
    import_format(folder, tmp_path / "out", from_="butd-tsv", to="tar")
    with open_store(tmp_path / "out") as store:
        assert tuple(store.image_ids) == IDS


@pytest.mark.parametrize("name", [name for name, kept in KEEPS.items() if "attributes" in kept])
def test_no_attribute_comes_back_as_none(tmp_path: Path, name: str) -> None:
    """The files of others have no word for it; the first attribute would be a wrong one."""
    plan = Plan(
        image_ids=("n1",),
        extractor={},
        object_labels=LABELS,
        attribute_labels=ATTRIBUTES,
        feature_size=FEATURE_SIZE,
        samples_per_shard=1,
    )
    ids = np.array([0, NO_ATTRIBUTE, 1], np.int16)
    confidence = np.array([0.5, 0, 0.25], np.float16)
    regions = replace(_three_regions(plan.profile), attribute_ids=ids, attribute_conf=confidence)
    with open_writer(tmp_path / "store", plan, format="tar") as writer:
        writer.write(Sample(key="n1", regions=regions))
        writer.finish()
    export_format(tmp_path / "store", tmp_path / "out", to=name)
    import_format(tmp_path / "out", tmp_path / "back", from_=name, to="tar")
    with open_store(tmp_path / "back") as back:
        read = back.sample(0).regions.attribute_ids
    # milvlg-npz writes attributes of an image where all its regions have one.
    assert read.tolist() == ([NO_ATTRIBUTE] * 3 if name == "milvlg-npz" else ids.tolist())


def test_mmf_arrays_are_equally_wide_or_left_out(tmp_path: Path) -> None:
    """MMF stacks them: without the names of the classes their number is not known."""
    regions = _three_regions("p")
    for labels in (LABELS, ()):
        folder = tmp_path / str(len(labels))
        assert load_format("mmf-npy").write([regions], folder, object_labels=labels) == 1
        info = load_npy((folder / "n1_info.npy").read_bytes(), "info")
        assert info["objects"].tolist() == [1, 0, 2]
        assert [info["cls_prob"].shape] == [(3, 4)] if labels else "cls_prob" not in info


def _three_regions(profile: str) -> Regions:
    boxes = np.array([[0, 0, 9, 9], [1, 1, 8, 8], [2, 2, 7, 7]], np.float32)
    return Regions(
        image_id="n1",
        width=20,
        height=20,
        boxes=boxes,
        proposals=boxes,
        features=np.ones((3, FEATURE_SIZE), np.float16),
        object_ids=np.array([1, 0, 2], np.int16),
        object_conf=np.array([0.9, 0.5, 0.25], np.float16),
        attribute_ids=np.full(3, NO_ATTRIBUTE, np.int16),
        attribute_conf=np.zeros(3, np.float16),
        profile=profile,
    )
