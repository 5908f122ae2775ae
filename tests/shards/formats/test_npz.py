"""UNITER, MILVLG and MMF: files as the original scripts write them, with NumPy itself."""

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semvlp.errors import InputError
from semvlp.shards.formats.npz import npz_bytes
from semvlp.shards.formats.raw import to_regions
from semvlp.shards.formats.systems.uniter import image_id_of, uniter_name
from semvlp.shards.formats.table import load_format
from semvlp.shards.record import Regions


def read_one(path: Path, name: str, image_id: str) -> Regions:
    dataset = load_format(name).open(path)
    return to_regions(dataset.read(image_id), image_id, profile="p")


def uniter_arrays(classes: int = 5) -> dict[str, Any]:
    labels = np.zeros((2, classes), np.float16)
    labels[0, [0, 3]] = 0.7, 0.3  # the background wins, but is no object
    labels[1, 1] = 0.9
    return {
        "norm_bb": np.array([[0.1, 0.2, 0.5, 0.6, 0.4, 0.4], [0, 0, 1, 1, 1, 1]], np.float16),
        "features": np.arange(6, dtype=np.float16).reshape(2, 3),
        "conf": np.array([[0.3], [0.9]], np.float16),
        "soft_labels": labels,
    }


def test_a_uniter_file_as_its_script_writes_it(tmp_path: Path) -> None:
    # scripts/convert_imgdir.py leaves a member named allow_pickle behind.
    arrays = uniter_arrays()
    data = npz_bytes({**arrays, "allow_pickle": np.array(True)}, compress=True)
    (tmp_path / "nlvr2_dev-0-1-img0.npz").write_bytes(data)
    dataset = load_format("uniter-npz").open(tmp_path)
    assert dataset.image_ids == ("dev-0-1-img0",)
    assert "1000 x 1000" in dataset.facts["boxes"]
    regions = read_one(tmp_path, "uniter-npz", "dev-0-1-img0")
    assert regions.object_ids.tolist() == [0, 2]
    np.testing.assert_allclose(regions.object_conf, [0.9, 0.3], atol=1e-3)
    np.testing.assert_allclose(regions.boxes, [[0, 0, 1000, 1000], [100, 200, 500, 600]], atol=0.3)
    assert regions.features.tolist() == [[3, 4, 5], [0, 1, 2]]


@pytest.mark.parametrize(
    ("file", "image_id"),
    [
        ("coco_train2014_000000000009.npz", "COCO_train2014_000000000009"),
        ("coco_val2014_000000000042.npz", "COCO_val2014_000000000042"),
        ("nlvr2_test1-0-1-img1.npz", "test1-0-1-img1"),
        ("vg_2354786.npz", "vg_2354786"),
        ("flickr30k_000000000036979.npz", "flickr30k_000000000036979"),
    ],
)
def test_uniter_names_are_those_of_the_data_sets(file: str, image_id: str) -> None:
    assert image_id_of(file) == image_id
    assert uniter_name(image_id) == file


@pytest.mark.parametrize("missing", ["norm_bb", "features", "conf", "soft_labels"])
def test_a_missing_array_is_named(tmp_path: Path, missing: str) -> None:
    arrays = uniter_arrays()
    del arrays[missing]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=f"'{missing}' is missing"):
        read_one(tmp_path, "uniter-npz", "a")


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{**uniter_arrays(), "conf": np.ones((3, 1), np.float16)})
    with pytest.raises(InputError, match=r"do not fit.*conf \(3, 1\)"):
        read_one(tmp_path, "uniter-npz", "a")


@pytest.mark.parametrize("name", ["uniter-npz", "milvlg-npz"])
def test_damaged_files_are_refused(tmp_path: Path, name: str) -> None:
    np.savez_compressed(tmp_path / "a.npz", **uniter_arrays())
    data = (tmp_path / "a.npz").read_bytes()
    for spoilt in (data[: len(data) // 2], b"", data[:60] + b"\xff" * 40 + data[100:]):
        (tmp_path / "a.npz").write_bytes(spoilt)
        with pytest.raises(InputError):
            read_one(tmp_path, name, "a")


def test_no_files_and_two_files_of_one_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\*\.npz files was expected"):
        load_format("uniter-npz").open(tmp_path)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "a.npz", **uniter_arrays())
    with pytest.raises(InputError, match="are both image 'a'"):
        load_format("uniter-npz").open(tmp_path)


def milvlg_file(path: Path, **changes: Any) -> None:
    """As MILVLG's `save_roi_features` writes it."""
    info = {
        "image_id": path.stem,
        "image_h": np.size(np.empty((10, 20)), 0),
        "image_w": 20,
        "num_boxes": 2,
        "objects_id": np.array([5, 7]),
        "objects_conf": np.array([0.25, 0.5], np.float32),
        "attrs_id": np.array([1, 2]),
        "attrs_conf": np.array([0.75, 0.125], np.float32),
    }
    arrays: dict[str, Any] = {
        "x": np.array([[1, 2], [3, 4]], np.float32),
        "bbox": np.array([[1, 2, 19, 9], [0, 0, 5, 5]], np.float32),
        "num_bbox": 2,
        "image_h": 10,
        "image_w": 20,
        "info": info,
        **changes,
    }
    kept = {name: value for name, value in arrays.items() if value is not None}
    np.savez_compressed(path, **kept)


def test_a_milvlg_file_as_its_script_writes_it(tmp_path: Path) -> None:
    milvlg_file(tmp_path / "a.npz")
    regions = read_one(tmp_path, "milvlg-npz", "a")
    assert (regions.width, regions.height) == (20, 10)
    assert regions.object_ids.tolist() == [7, 5]
    assert regions.attribute_ids.tolist() == [2, 1]
    assert regions.attribute_conf.tolist() == [0.125, 0.75]
    assert regions.features.tolist() == [[3, 4], [1, 2]]
    assert regions.boxes.tolist() == [[0, 0, 5, 5], [1, 2, 19, 9]]


def test_milvlg_labels_are_optional(tmp_path: Path) -> None:
    milvlg_file(tmp_path / "a.npz", info=None)
    assert read_one(tmp_path, "milvlg-npz", "a").features.tolist() == [[1, 2], [3, 4]]


def test_milvlg_labels_of_foreign_classes_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Any class will do for the torch tensors in files of the detectron2 mode.
    milvlg_file(tmp_path / "a.npz", info={"objects": Fraction(1, 2)})
    with caplog.at_level(logging.WARNING):
        dataset = load_format("milvlg-npz").open(tmp_path)
    assert "fractions.Fraction" in caplog.text
    assert dataset.facts == {"labels": "left out"}
    assert len(to_regions(dataset.read("a"), "a", profile="p")) == 2


def test_milvlg_boxes_without_features_are_refused(tmp_path: Path) -> None:
    milvlg_file(tmp_path / "a.npz", x=None, info=None)
    with pytest.raises(InputError, match="'x' is missing"):
        read_one(tmp_path, "milvlg-npz", "a")


def mmf_files(folder: Path, features: Any = None, **changes: Any) -> None:
    """As MMF's `_save_feature` writes them."""
    info = {
        "bbox": np.array([[1, 2, 19, 9], [0, 0, 5, 5]], np.float32),
        "num_boxes": 2,
        "objects": np.array([2, 0]),
        "cls_prob": np.array([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]], np.float32),
        "image_width": 20,
        "image_height": 10,
        **changes,
    }
    default = np.array([[1, 2], [3, 4]], np.float32)
    np.save(folder / "a.npy", default if features is None else features)
    np.save(folder / "a_info.npy", {k: v for k, v in info.items() if v is not None})  # type: ignore[arg-type]


def test_an_mmf_pair_as_its_script_writes_it(tmp_path: Path) -> None:
    mmf_files(tmp_path)
    regions = read_one(tmp_path, "mmf-npy", "a")
    assert (regions.width, regions.height) == (20, 10)
    assert regions.object_ids.tolist() == [0, 2]
    np.testing.assert_allclose(regions.object_conf, [0.8, 0.7], atol=1e-3)
    assert regions.features.tolist() == [[3, 4], [1, 2]]


@pytest.mark.parametrize(("stated", "kept"), [(1, 1), (100, 2), (0, 0)])
def test_mmf_counts_are_no_lengths(tmp_path: Path, stated: int, kept: int) -> None:
    mmf_files(tmp_path, num_boxes=stated)
    dataset = load_format("mmf-npy").open(tmp_path)
    assert len(to_regions(dataset.read("a"), "a", profile="p", feature_size=2)) == kept


def test_mmf_vinvl_pairs_hold_relative_boxes_twice(tmp_path: Path) -> None:
    box = [0.25, 0.5, 0.75, 1, 0.5, 0.5]
    mmf_files(
        tmp_path,
        features=np.array([[7, 8, 9, *box]], np.float32),
        bbox=np.array([box], np.float32),
        objects=None,
        cls_prob=None,
        num_boxes=None,
        labels=np.array([4]),
        scores=np.array([0.5], np.float32),
    )
    regions = read_one(tmp_path, "mmf-npy", "a")
    assert regions.boxes.tolist() == [[5, 5, 15, 10]]
    assert regions.features.tolist() == [[7, 8, 9]]
    assert (regions.object_ids.tolist(), regions.object_conf.tolist()) == ([3], [0.5])


def test_an_mmf_feature_without_its_info_is_refused(tmp_path: Path) -> None:
    mmf_files(tmp_path)
    (tmp_path / "a_info.npy").unlink()
    with pytest.raises(InputError, match=r"a_info\.npy is missing"):
        read_one(tmp_path, "mmf-npy", "a")


def test_numpy_reads_the_files_we_write(tmp_path: Path) -> None:
    arrays = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "info": {"ids": np.arange(2)}}
    (tmp_path / "a.npz").write_bytes(npz_bytes(arrays, compress=True))
    with np.load(tmp_path / "a.npz", allow_pickle=True) as archive:
        np.testing.assert_array_equal(archive["x"], arrays["x"])
        np.testing.assert_array_equal(archive["info"].item()["ids"], [0, 1])
    assert npz_bytes(arrays, compress=False) == npz_bytes(arrays, compress=False)
