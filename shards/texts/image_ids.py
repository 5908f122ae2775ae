"""Finding an image under the different names that annotation files give it."""

import json
import re
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError
from semvlp.shards.keys import KeyCollector, Keys
from semvlp.shards.record import DERIVED_KEY, former_key, key_of
from semvlp.shards.texts.annotation_files import ID, listed, require

IMAGE_EXTENSIONS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
        *(".avif", ".heic", ".heif", ".npy", ".npz"),
    )
)
# A number counts as the image's number only where it stands alone or behind a separator: GQA's
# `n54424` is another photograph than Visual Genome's `54424`.
_NUMBERED = re.compile(r"(?P<prefix>|.*[_-])(?P<number>[0-9]+)")
# `dev-1572-0-1` is not image 1: behind a prefix only a long number is an image's name by itself.
_LONG = 6
_MORE = re.compile(r"[./\\]")


class ImageIds:
    """The known images of a data set, found by any usual spelling of their names."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids = Keys.of(ids)
        """As they were given."""
        self._former: dict[str, str] = {}

    def find(self, name: str | int) -> str | None:
        """Return the id of the image that `name` speaks of, or None.

        Tried in this order: the name as it stands; without directory and image extension; either
        by the key that is made of it, see `key_of`; by its number, so that 150367, `000000150367`
        and `COCO_train2014_000000150367` are one image; by the key that version 0.1 made of it.
        Two numbered names with different prefixes are different images.

        Raises:
            InputError: several images fit equally well.
        """
        text = str(name)
        if text in self.ids:
            return text
        return (
            self._find_stem(text)
            or next((key for key in map(key_of, (text, stem(text))) if key in self.ids), None)
            or self._find_numbered(text)
            or self._find_former(text)
        )

    def row(self, name: str | int) -> int | None:
        """Return where the image stands among the ids; see `find`."""
        image_id = self.find(name)
        return None if image_id is None else self.ids.find(image_id)

    def _find_stem(self, name: str) -> str | None:
        short = stem(name)
        rows = set(self._shortened.get(short, ()))
        row = self.ids.find(short)
        # An id that is its own stem, as nearly all are.
        if row is not None and stem(short) == short:
            rows.add(row)
        return _only(name, list(dict.fromkeys(self.ids[row] for row in sorted(rows))))

    def _find_numbered(self, name: str) -> str | None:
        prefix, number = _split(stem(name))
        if number is None:
            return None
        candidates = self._numbered(number)
        same = [image_id for image_id, other in candidates if other == prefix]
        bare = not prefix or len(stem(name)) - len(prefix) >= _LONG
        loose = [image_id for image_id, other in candidates if not prefix or (bare and not other)]
        return _only(name, same) or _only(name, loose)

    def _find_former(self, name: str) -> str | None:
        """Find it in a data set of version 0.1, whose keys several names might share."""
        key = former_key(stem(name))
        if key not in self.ids or self._has_derived:
            return None
        first = self._former.setdefault(key, stem(name))
        if first != stem(name):
            raise InputError(
                f"image {key!r} was extracted by an earlier version, which told the names "
                f"{first!r} and {stem(name)!r} not apart; extract the images again, or spell "
                "the name as the image's id"
            )
        return key

    @cached_property
    def _has_derived(self) -> bool:
        return any(map(DERIVED_KEY.fullmatch, self.ids))

    @cached_property
    def _shortened(self) -> dict[str, list[int]]:
        """Return the rows of ids that have a directory or an extension, by what is left of them."""
        groups: dict[str, list[int]] = {}
        for row, image_id in enumerate(self.ids):
            if _MORE.search(image_id) and stem(image_id) != image_id:
                groups.setdefault(stem(image_id), []).append(row)
        return groups

    def _numbered(self, number: int) -> list[tuple[str, str]]:
        """Return the ids of a number, each with what stands before it."""
        hashes, rows = self._numbers
        first = np.searchsorted(hashes, hash(number), "left")
        last = np.searchsorted(hashes, hash(number), "right")
        found = dict.fromkeys(self.ids[row] for row in rows[first:last].tolist())
        split = ((image_id, *_split(stem(image_id))) for image_id in found)
        return [(image_id, prefix) for image_id, prefix, own in split if own == number]

    @cached_property
    def _numbers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the hash of every id's number in rising order, and the row of each."""
        numbered = (_split(stem(image_id))[1] for image_id in self.ids)
        # No number hashes to -1.
        every = (-1 if number is None else hash(number) for number in numbered)
        hashes = np.fromiter(every, np.int64, len(self.ids))
        rows = np.argsort(hashes, kind="stable")
        rows = rows[np.searchsorted(hashes, 0, sorter=rows) :]
        return hashes[rows], rows


def stem(name: str) -> str:
    """Return the name without directory and image extension; other dots belong to the name."""
    if not _MORE.search(name):
        return name
    path = PurePosixPath(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in IMAGE_EXTENSIONS else path.name


def _split(name: str) -> tuple[str, int | None]:
    """Split `COCO_train2014_000000000139` into ("coco_train2014_", 139); no number gives None."""
    match = _NUMBERED.fullmatch(name)
    return (match["prefix"].lower(), int(match["number"])) if match else (name, None)


def _only(name: str, candidates: list[str]) -> str | None:
    if len(candidates) > 1:
        shown = ", ".join(candidates[:4])
        raise InputError(
            f"image name {name!r} must fit one image, but {len(candidates)} images fit it: "
            f"{shown}; spell it exactly as one of them"
        )
    return candidates[0] if candidates else None


def file_names(document: Any, path: Path) -> Callable[[int | str], str]:
    """Return the function from the id of an image to its file name, or to itself."""
    ids, files = KeyCollector(), KeyCollector()
    for where, image in listed(document, "images", path):
        require(image, {"id": ID, "file_name": str}, where)
        ids.add(json.dumps(image["id"]))
        files.add(image["file_name"])
    # The last one first: of an id that comes twice it is the one that counts, as in a dict.
    rows, names = ids.keys()[::-1], files.keys()[::-1]

    @lru_cache(maxsize=1 << 16)
    def name_of(image_id: int | str) -> str:
        row = rows.find(json.dumps(image_id))
        return str(image_id) if row is None else names[row]

    return name_of
