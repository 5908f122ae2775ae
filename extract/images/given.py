"""Boxes that are given with images, to be described instead of found.

K given boxes of an image, xyxy in pixels of the photograph.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError
from semvlp.extract.images.boxes_file import ImageBoxes, boxes_sha256, read_boxes
from semvlp.extract.images.file import ImageFile, Refused
from semvlp.shards.record import MAX_REGIONS
from semvlp.shards.texts.image_ids import ImageIds, stem

log = logging.getLogger(__name__)

UNKNOWN_CLASS = -1
# Annotations are rounded: a box that is over the border by less than a pixel is cut there.
_ROUNDING = 1.0


class Given(NamedTuple):
    """The boxes of one image."""

    boxes: NDArray[np.float32]
    """[K, 4]."""
    classes: NDArray[np.int64]
    """[K] object classes of the detector; UNKNOWN_CLASS where it has to say."""
    and_detected: bool
    """Regions that the detector finds come after them."""
    where: str
    """Place in the file, for messages."""

    def inside(self, height: int, width: int) -> "Given":
        """Return the boxes as an image of this size has them.

        Raises:
            Refused: none or too many of them, or one outside of the image or of no area.
        """
        if not len(self.boxes) and not self.and_detected:
            raise Refused(f"{self.where}: it gives no box of this image")
        if len(self.boxes) > MAX_REGIONS:
            raise Refused(
                f"{self.where}: {len(self.boxes)} boxes, and {MAX_REGIONS} at most are stored"
            )
        border = np.array([width, height] * 2, np.float32)
        cut = self.boxes.clip(0, border)
        off = ~(np.abs(cut - self.boxes) <= _ROUNDING).all(1)
        self._refuse(off, f"reaches outside the photograph of {width} x {height} pixels")
        self._refuse(~(cut[:, 2:] > cut[:, :2]).all(1), "has no area")
        return self._replace(boxes=cut)

    def _refuse(self, wrong: np.bool_ | NDArray[np.bool_], problem: str) -> None:
        for row in np.flatnonzero(wrong)[:1]:
            corners = ", ".join(f"{corner:g}" for corner in self.boxes[row])
            raise Refused(f"{self.where}: box {row + 1} ({corners}) {problem}")


@dataclass(frozen=True, kw_only=True)
class GivenBoxes:
    """The boxes of a run."""

    files: tuple[ImageFile, ...]
    """Images to work on, sorted by id; those that only the boxes name cannot be read."""
    left_out: int
    """Photographs that the boxes do not name, and that are not worked on."""
    sha256: str
    and_detected: bool
    named: Mapping[str, ImageBoxes]
    """The file's entry of each image by id."""

    def of_images(self, object_labels: Sequence[str]) -> dict[str, Given]:
        """Return the boxes by image id.

        Classes are the file's where the detector knows all of its names, else the detector's.
        """
        number = {name: index for index, name in enumerate(object_labels)}
        known = self._are_known(object_labels)
        return {
            image: Given(
                boxes=each.boxes,
                classes=np.array([number[name] for name in each.labels], np.int64)
                if known
                else np.full(len(each.boxes), UNKNOWN_CLASS, np.int64),
                and_detected=self.and_detected,
                where=each.where,
            )
            for image, each in self.named.items()
        }

    def _are_known(self, object_labels: Sequence[str]) -> bool:
        every = self.named.values()
        names = {name for each in every for name in each.labels}
        unnamed = any(len(each.labels) != len(each.boxes) for each in every)
        unknown = sorted(names.difference(object_labels))
        if names and (unnamed or unknown):
            why = f"it has no class {unknown[0]!r}" if unknown else "not every box has a label"
            log.warning("labels of the given boxes are left to the detector: %s", why)
        return bool(names) and not unnamed and not unknown


def given_boxes(path: Path, files: Sequence[ImageFile], *, and_detected: bool) -> GivenBoxes:
    """Read the boxes in `path` for the images of a run.

    Images that the file does not name are left out, unless the detector is to look at them too.

    Raises:
        InputError: see `read_boxes`; an image named twice, or none of `files` named.
    """
    ids = ImageIds(file.image_id for file in files)
    named: dict[str, ImageBoxes] = {}
    unknown = []
    for each in read_boxes(path):
        key = ids.find(each.image)
        if key is None:
            unknown.append(_missing(each))
            key = unknown[-1].image_id
        if key in named:
            raise InputError(f"{each.where}: this image's boxes stand in {named[key].where} too")
        named[key] = each
    if len(unknown) == len(named):
        raise InputError(f"{path}: none of the {len(named)} images it names is among the images")
    wanted = [file for file in files if and_detected or file.image_id in named]
    log.info("boxes for %d of %d images", len(named) - len(unknown), len(files))
    return GivenBoxes(
        files=tuple(sorted([*wanted, *unknown], key=lambda file: file.image_id)),
        left_out=len(files) - len(wanted),
        sha256=boxes_sha256(path),
        and_detected=and_detected,
        named=named,
    )


def rule_of(given: Mapping[str, Given]) -> dict[str, Any]:
    """Return what a profile says of given boxes: where they stand and who named their classes."""
    one = next(iter(given.values()))
    by_file = any((each.classes != UNKNOWN_CLASS).any() for each in given.values())
    return {
        "given_boxes": "before the detector's" if one.and_detected else "alone",
        "classes_by": "file" if by_file else "detector",
    }


def _missing(boxes: ImageBoxes) -> ImageFile:
    """Return a file that cannot be read: its line of what was refused says why."""
    reason = f"{boxes.where}: no photograph has its name"
    return ImageFile.named(stem(boxes.image), Path(boxes.image), unread=reason)
