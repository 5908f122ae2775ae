"""Every community format is written from a store and read back; damaged images are refused."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semvlp.errors import ConfigError, InputError
from semvlp.shards.dataset.manifest import Plan
from semvlp.shards.formats.import_export import export_format, import_format
from semvlp.shards.formats.safe_pickle import load_npy
from semvlp.shards.formats.table import FORMATS, PARQUET, load_format
from semvlp.shards.open import open_store
from semvlp.shards.record import NO_ATTRIBUTE, Regions, Sample
from semvlp.shards.stores.store import Store
from semvlp.shards.writer import open_writer
from tests.shards.formats.conftest import ATTRIBUTES, FEATURE_SIZE, IDS, LABELS

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
