"""Directories of `.npz` files, one an image: found, read without pickle, written."""

import io
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from semvlp.archives import open_archive, read_member
from semvlp.errors import InputError
from semvlp.shards.formats.community import CommunityDataset
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.formats.safe_pickle import dump_npy, load_npy
from semvlp.shards.texts.image_ids import stem

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip member can have: equal content gives equal bytes."""
MOST_UNPACKED = 2**28
"""Bytes that the arrays of one image may have; 100 regions of 2048 numbers have one million."""


class Npz:
    """The members of one `.npz`, each read when it is asked for.

    Raises:
        InputError: it is no zip file, or one that unpacks to more than an image has.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = open_archive(io.BytesIO(data), most=MOST_UNPACKED)
        except ValueError as error:
            raise InputError(f"not an .npz file: {error}") from error
        self._members = {name.removesuffix(".npy"): name for name in self._zip.namelist()}

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __getitem__(self, name: str) -> Any:
        """Return the array `name`; a single pickled object goes through the restricted reader.

        Raises:
            InputError: there is none, or it is damaged.
        """
        if name not in self._members:
            raise InputError(f"the array {name!r} is missing; found {', '.join(self._members)}")
        try:
            data = read_member(self._zip, self._members[name])
        except ValueError as error:
            raise InputError(f"the array {name!r} is damaged: {error}") from error
        return load_npy(data, name)


def npz_bytes(arrays: Mapping[str, Any], *, compress: bool) -> bytes:
    """Return an `.npz` file; values that are no arrays are pickled as single objects."""
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, value in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = method
            archive.writestr(info, dump_npy(value))
    return stream.getvalue()


def image_files(path: Path, pattern: str) -> list[Path]:
    """Return the files of a directory and its subdirectories, in the order of their paths.

    Raises:
        InputError: there is none.
    """
    files = sorted(path.rglob(pattern)) if path.is_dir() else []
    if not files:
        raise InputError(f"{path}: a directory with {pattern} files was expected")
    return files


def by_image(files: Iterable[Path], image_id_of: Callable[[str], str] = stem) -> dict[str, Path]:
    """Return the files by image id.

    Raises:
        InputError: two files are of one image.
    """
    by_id: dict[str, Path] = {}
    for file in files:
        image_id = image_id_of(file.name)
        if image_id in by_id:
            raise InputError(f"{by_id[image_id]} and {file} are both image {image_id!r}")
        by_id[image_id] = file
    return by_id


def files_dataset(
    files: Mapping[str, Path],
    decode: Callable[[bytes], RawRegions],
    facts: Mapping[str, Any],
) -> CommunityDataset:
    """Make a data set of one file an image."""
    return CommunityDataset(
        image_ids=tuple(files),
        read=lambda image_id: decode(files[image_id].read_bytes()),
        file_of=lambda image_id: str(files[image_id]),
        facts=facts,
    )
