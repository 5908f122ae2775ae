"""The HDF5 files that bottom-up attention's TSVs are made into for VQA: `train36.hdf5` and others.

Layout: hengyuan-hu/bottom-up-attention-vqa tools/detection_features_converter.py. `image_features`,
`image_bb` and `spatial_features` are [N, 36, ...]; with 10 to 100 regions they are [T, ...] for the
regions of all images, and `pos_boxes` [N, 2] tells which are whose. Which image is at which place
stands in the pickled dict `<name>_imgid2idx.pkl` beside it.

`spatial_features` are x1, y1, x2, y2, width and height of boxes relative to the image, which so
tells its size. We write `image_w` and `image_h` besides, for images without regions.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import ConfigError, InputError, shown
from semvlp.shards.formats.community import CommunityDataset, CommunityFormat
from semvlp.shards.formats.foreign_lmdb import community_key
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.formats.safe_pickle import dumps, loads
from semvlp.shards.formats.tsv import decode_number
from semvlp.shards.record import Regions
from semvlp.shards.texts.image_ids import stem

INDEX = "_imgid2idx.pkl"
ARRAYS = ("image_features", "image_bb", "spatial_features")
MOST_VALUES = 2**26
"""Numbers that one image may have: 100 regions of 2048 have 200,000."""


def open_butd_hdf5(path: Path) -> CommunityDataset:
    """Open the file, or the only one in a directory.

    Raises:
        InputError: there is none, it is damaged or of another layout, or the index is missing.
        ConfigError: h5py is not installed.
    """
    file = _find(path)
    places = _places(file.with_name(file.stem + INDEX))
    try:
        opened = _h5py().File(file, "r", locking=False)
        arrays = {name: _array(opened, name) for name in (*ARRAYS, "pos_boxes", *_SIZES)}
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"{file} cannot be read as an HDF5 file: {error}") from error
    missing = [name for name in ARRAYS if arrays[name] is None]
    if missing:
        names = ", ".join(map(repr, opened)) or "nothing"
        raise InputError(f"{file} must hold {', '.join(ARRAYS)}, but it holds {names}")
    return CommunityDataset(
        image_ids=tuple(places),
        read=lambda image_id: _read(arrays, decode_number(places[image_id], "its place")),
        file_of=lambda image_id: str(file),
        close=opened.close,
    )


def write_butd_hdf5(
    regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]
) -> int:
    """Write `features.hdf5` in the layout of 10 to 100 regions, and its index; no labels."""
    h5py = _h5py()
    path.mkdir()
    places: dict[int | str, int] = {}
    spans: list[tuple[int, int]] = []
    sizes: list[tuple[int, int]] = []
    with h5py.File(path / "features.hdf5", "w") as file:
        for image in regions:
            key = community_key(image.image_id)
            places[int(key) if key.isdigit() else key] = len(spans)
            start = spans[-1][1] if spans else 0
            spans.append((start, start + len(image)))
            sizes.append((image.width, image.height))
            _append(file, "image_features", image.features.astype(np.float32))
            _append(file, "image_bb", image.boxes)
            _append(file, "spatial_features", _relative(image))
        file["pos_boxes"] = np.array(spans, np.int64).reshape(-1, 2)
        for name, column in zip(_SIZES, np.array(sizes, np.int64).reshape(-1, 2).T, strict=True):
            file[name] = column
    (path / f"features{INDEX}").write_bytes(dumps(places))
    return len(places)


_SIZES = ("image_w", "image_h")


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ConfigError("HDF5 files need h5py: pip install 'semvlp[hdf5]'") from error
    return h5py


def _find(path: Path) -> Path:
    files = sorted([*path.glob("*.hdf5"), *path.glob("*.h5")]) if path.is_dir() else [path]
    if len(files) != 1 or not files[0].is_file():
        names = ", ".join(file.name for file in files[:5]) or "none"
        raise InputError(f"{path}: an HDF5 file or a directory with one was expected, got {names}")
    return files[0]


def _places(index: Path) -> Mapping[str, Any]:
    if not index.is_file():
        raise InputError(f"{index} is missing: it tells which image is where")
    places = loads(index.read_bytes(), str(index))
    if not isinstance(places, Mapping) or not places:
        raise InputError(f"{index} must be a dict of image ids and places, got {shown(places)}")
    return {stem(str(key)): place for key, place in places.items()}


def _array(file: Any, name: str) -> Any:
    """Return an array of the file, None where there is none; no other file is opened for it."""
    h5py = _h5py()
    if name not in file:
        return None
    link, array = file.get(name, getlink=True), None
    if isinstance(link, h5py.HardLink):
        array = file[name]
    if not isinstance(array, h5py.Dataset) or array.external or array.is_virtual:
        raise ValueError(f"{name} is no array of its own")
    return array


def _read(arrays: Mapping[str, Any], place: int) -> RawRegions:
    features, boxes, spatial = (_rows(arrays, name, place) for name in ARRAYS)
    if boxes.shape[1:] != (4,) or spatial.shape != (len(boxes), 6):
        raise InputError(
            f"boxes must be [R, 4] and spatial features [R, 6], got {boxes.shape} {spatial.shape}"
        )
    if all(arrays[name] is not None for name in _SIZES):
        width, height = (decode_number(arrays[name][place], name) for name in _SIZES)
    else:
        width, height = (_side(boxes[:, side], spatial[:, side]) for side in (2, 3))
    return RawRegions(width=width, height=height, boxes=boxes, features=features)


def _rows(arrays: Mapping[str, Any], name: str, place: int) -> NDArray[Any]:
    array, spans = arrays[name], arrays["pos_boxes"]
    images = len(array) if spans is None else len(spans)
    if not 0 <= place < images:
        raise InputError(f"its place is {place}, but the file holds {images} images")
    take: int | slice = place
    if spans is None:
        shape = array.shape[1:]
    else:
        start, end = (decode_number(edge, "pos_boxes") for edge in spans[place])
        if not 0 <= start <= end <= len(array):
            raise InputError(f"its regions are {start}..{end} of {len(array)}")
        shape, take = (end - start, *array.shape[1:]), slice(start, end)
    if len(shape) != 2 or shape[0] * shape[1] > MOST_VALUES:
        raise InputError(f"{name} has the shape {shape} for one image")
    rows: NDArray[Any] = np.asarray(array[take])
    return rows


def _side(ends: NDArray[Any], relative: NDArray[Any]) -> int:
    """Return the width or height by where boxes end in pixels and relative to it."""
    known = (relative > 0) & (ends > 0)
    if not known.any():
        raise InputError("no box tells the size of the image")
    sides = np.rint(ends[known] / relative[known].astype(np.float64))
    if sides.max() - sides.min() > 1:
        raise InputError(f"its boxes tell sizes from {sides.min():.0f} to {sides.max():.0f}")
    return int(np.median(sides))


def _append(file: Any, name: str, rows: NDArray[Any]) -> None:
    if name not in file:
        width = rows.shape[1]
        file.create_dataset(name, (0, width), rows.dtype, maxshape=(None, width))
    array = file[name]
    array.resize(len(array) + len(rows), axis=0)
    if len(rows):
        array[-len(rows) :] = rows


def _relative(image: Regions) -> NDArray[np.float32]:
    boxes = image.boxes / np.array([image.width, image.height] * 2, np.float32)
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes, sides], axis=1, dtype=np.float32)


BUTD_HDF5 = CommunityFormat(
    what="HDF5 of bottom-up-attention-vqa: features, boxes and an index beside them, no labels",
    open=open_butd_hdf5,
    write=write_butd_hdf5,
)
