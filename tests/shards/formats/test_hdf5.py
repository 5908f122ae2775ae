"""HDF5 files as bottom-up-attention-vqa's converter writes them, in both of its layouts."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semvlp.errors import InputError
from semvlp.shards.formats.raw import to_regions
from semvlp.shards.formats.table import load_format
from semvlp.shards.record import Regions

h5py = pytest.importorskip("h5py")
BOXES = np.array([[[1, 2, 19, 9], [0, 0, 5, 5]], [[0, 0, 33, 40], [2, 2, 3, 3]]], np.float32)
SIZES = np.array([[20, 10], [33, 50]])


def write(folder: Path, *, adaptive: bool = False, **changes: Any) -> Path:
    """As tools/detection_features_converter.py: COCO's numbers as keys, sizes in no array."""
    scale = np.tile(SIZES, 2)[:, None]
    relative = BOXES / scale
    spatial = np.concatenate([relative, relative[..., 2:] - relative[..., :2]], axis=2)
    arrays = {
        "image_features": np.arange(12, dtype=np.float32).reshape(2, 2, 3),
        "image_bb": BOXES,
        "spatial_features": spatial.astype(np.float32),
    }
    if adaptive:
        arrays = {name: array.reshape(4, -1) for name, array in arrays.items()}
        arrays["pos_boxes"] = np.array([[0, 2], [2, 4]], np.int32)
    with h5py.File(folder / "train36.hdf5", "w") as file:
        for name, array in {**arrays, **changes}.items():
            if array is not None:
                file[name] = array
    index = {262148: 1, 393225: 0}
    (folder / "train36_imgid2idx.pkl").write_bytes(pickle.dumps(index, 2))
    return folder / "train36.hdf5"


def read(path: Path, image_id: str) -> Regions:
    dataset = load_format("butd-hdf5").open(path)
    try:
        return to_regions(dataset.read(image_id), image_id, profile="p")
    finally:
        dataset.close()


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_both_layouts_are_read_by_file_and_by_folder(
    tmp_path: Path, adaptive: bool, whole: bool
) -> None:
    file = write(tmp_path, adaptive=adaptive)
    path = tmp_path if whole else file
    first, second = read(path, "393225"), read(path, "262148")
    assert (first.width, first.height) == (20, 10)
    assert (second.width, second.height) == (33, 50)
    assert second.boxes.tolist() == BOXES[1].tolist()
    assert second.features.tolist() == [[6, 7, 8], [9, 10, 11]]


def test_a_file_without_its_index_or_arrays_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, image_bb=None)
    with pytest.raises(InputError, match=r"train36\.hdf5 must hold .*, but it holds 'image_feat"):
        load_format("butd-hdf5").open(file)
    (tmp_path / "train36_imgid2idx.pkl").unlink()
    with pytest.raises(InputError, match=r"train36_imgid2idx\.pkl is missing"):
        load_format("butd-hdf5").open(file)
    file.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    (tmp_path / "train36_imgid2idx.pkl").write_bytes(pickle.dumps({1: 0}))
    with pytest.raises(InputError, match=r"train36\.hdf5 cannot be read as an HDF5 file"):
        load_format("butd-hdf5").open(file)


def test_no_other_file_is_read_for_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(24)) * 4)
    for kind in ("external", "soft", "virtual"):
        (tmp_path / kind).mkdir()
        file = write(tmp_path / kind, image_features=None)
        with h5py.File(file, "r+") as opened:
            if kind == "external":
                opened.create_dataset(
                    "image_features", (2, 2, 3), np.float32, external=[(str(secret), 0, 48)]
                )
            elif kind == "soft":
                opened["image_features"] = h5py.ExternalLink(str(tmp_path / "x.hdf5"), "/a")
            else:
                layout = h5py.VirtualLayout((2, 2, 3), np.float32)
                layout[:] = h5py.VirtualSource(str(tmp_path / "x.hdf5"), "a", (2, 2, 3))
                opened.create_virtual_dataset("image_features", layout)
        with pytest.raises(InputError, match="image_features is no array of its own"):
            load_format("butd-hdf5").open(file)


def test_boxes_that_tell_two_sizes_are_refused(tmp_path: Path) -> None:
    spatial = np.full((2, 2, 6), 0.5, np.float32)
    with pytest.raises(InputError, match="its boxes tell sizes from 10 to 38"):
        read(write(tmp_path, spatial_features=spatial), "393225")
