"""Boxes with classes and attributes in COCO's JSON format.

Beside COCO's own fields a box may have `"attribute_ids": [...]`, with `"attributes"` (entries of id
and name) at the top level. An empty list says that the object has none of the attributes; a box
without the field says nothing about them. Boxes lie in the upright photograph, as they do for
detectron2: a file whose sizes are those before its EXIF orientation is applied is an error.
"""

import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semvlp.errors import InputError
from semvlp.extract.images.find import ImageFile, Refused, load
from semvlp.extract.weights.checkpoint import read_object

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Annotated:
    """One object of an image."""

    box: Box
    """xyxy in pixels, clipped to the image."""
    label: int
    """Index into `Annotations.object_labels`."""
    attributes: tuple[int, ...] | None
    """Indices into `Annotations.attribute_labels`; None where nothing is said of them."""
    area: float
    """Of its shape in square pixels, as the file says; that of its box where it says none."""


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image with its objects; an image without any teaches what background is."""

    file: ImageFile
    width: int
    height: int
    objects: tuple[Annotated, ...]
    crowds: tuple[Annotated, ...] = ()
    """Boxes around crowds (`iscrowd`): they name no single object, so nothing is learned from them,
    and a detection on one is neither right nor wrong."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """A COCO file: labels in the order of their ids, images in the order of the file."""

    object_labels: tuple[str, ...]
    attribute_labels: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]
    empty: int
    """Boxes without area inside their image, which are left out."""

    @property
    def num_crowds(self) -> int:
        """Return how many boxes are around crowds."""
        return sum(len(image.crowds) for image in self.images)


def read_annotations(path: Path, images: Path) -> Annotations:
    """Read the COCO file `path` whose `file_name`s lie under the directory `images`.

    Raises:
        InputError: no JSON, or a field that is missing or wrong; names the file and the id of the
            annotation or image.
    """
    tree = read_object(path, "COCO-format annotations")
    classes = _Labels(path, "categories", tree.get("categories", ()))
    attributes = _Labels(path, "attributes", tree.get("attributes", ()))
    if not classes.names:
        raise InputError(f"{path}: `categories` must name at least one object class")
    records = _image_records(path, tree)
    objects: dict[Any, list[Annotated]] = {image_id: [] for image_id in records}
    crowds: dict[Any, list[Annotated]] = {image_id: [] for image_id in records}
    empty = 0
    for entry in _entries(path, "annotations", tree.get("annotations", ())):
        record = records.get(entry.get("image_id"))
        if record is None:
            raise _wrong(path, entry, f"its image_id {entry.get('image_id')!r} is not in `images`")
        annotated = _annotated(path, entry, record, classes, attributes)
        x1, y1, x2, y2 = annotated.box
        if x2 > x1 and y2 > y1:
            kind = crowds if entry.get("iscrowd") else objects
            kind[entry["image_id"]].append(annotated)
        else:
            empty += 1
    listed = tuple(
        _image(path, images, record, objects[image_id], crowds[image_id])
        for image_id, record in records.items()
    )
    return Annotations(classes.names, attributes.names, listed, empty)


def read_pixels(image: AnnotatedImage) -> NDArray[np.uint8]:
    """Return the RGB image [H, W, 3], upright, in which its boxes are.

    Raises:
        InputError: it cannot be decoded, or has another size than its annotations say.
    """
    try:
        pixels = load(image.file)
    except Refused as reason:
        raise InputError(f"{image.file}: {reason}") from reason
    height, width = pixels.shape[:2]
    if (width, height) == (image.width, image.height):
        return pixels
    turned = ""
    with Image.open(io.BytesIO(image.file.read())) as stored:
        if stored.size == (image.width, image.height):
            turned = (
                " once it is turned as its EXIF orientation says; annotate it upright, as it is "
                "learned and detected in, or take the orientation out of the file"
            )
    raise InputError(
        f"{image.file}: must have the {image.width}x{image.height} pixels of its annotations, "
        f"found {width}x{height}{turned}"
    )


class _Labels:
    """The names of a list in the file, and the index from 0 that each id stands for."""

    def __init__(self, path: Path, field: str, entries: Any) -> None:
        by_id: dict[Any, str] = {}
        for entry in _entries(path, field, entries):
            if not isinstance(entry.get("id"), int) or not isinstance(entry.get("name"), str):
                raise InputError(f"{path}: every entry of `{field}` needs an integer id and a name")
            if entry["id"] in by_id:
                raise InputError(f"{path}: id {entry['id']} stands twice in `{field}`")
            by_id[entry["id"]] = entry["name"]
        ordered = sorted(by_id)
        self.field = field
        self.names = tuple(by_id[key] for key in ordered)
        self.index = {key: index for index, key in enumerate(ordered)}


def _annotated(
    path: Path, entry: Any, record: Mapping[str, Any], classes: _Labels, attributes: _Labels
) -> Annotated:
    label = _index(path, entry, classes, entry.get("category_id"))
    box = _box(path, entry, record["width"], record["height"])
    x1, y1, x2, y2 = box
    area = entry.get("area", max(x2 - x1, 0.0) * max(y2 - y1, 0.0))
    if not isinstance(area, int | float) or not 0 <= area < math.inf:
        raise _wrong(path, entry, f"area must be a number of square pixels, found {area!r}")
    ids = entry.get("attribute_ids")
    if ids is None:
        return Annotated(box, label, None, area)
    if not isinstance(ids, list):
        raise _wrong(path, entry, f"attribute_ids must be a list of ids, found {ids!r}")
    named = tuple(_index(path, entry, attributes, each) for each in ids)
    return Annotated(box, label, named, area)


def _index(path: Path, entry: Any, labels: _Labels, key: Any) -> int:
    if not isinstance(key, int) or key not in labels.index:
        raise _wrong(path, entry, f"its id {key!r} is not in `{labels.field}`")
    return labels.index[key]


def _box(path: Path, entry: Any, width: int, height: int) -> Box:
    """Return COCO's [x, y, w, h] as xyxy, cut at the border of the image."""
    values = entry.get("bbox")
    if (
        not isinstance(values, list)
        or len(values) != 4
        or not all(isinstance(value, int | float) and math.isfinite(value) for value in values)
        or min(values[2:]) < 0
    ):
        raise _wrong(
            path, entry, f"bbox must be four numbers [x, y, w, h], no side negative, found {values}"
        )
    x, y, w, h = values
    return (max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height)))


def _image_records(path: Path, tree: Mapping[str, Any]) -> dict[Any, Any]:
    records: dict[Any, Any] = {}
    for record in _entries(path, "images", tree.get("images", ())):
        sizes = (record.get("width"), record.get("height"))
        if not isinstance(record.get("file_name"), str) or not all(
            isinstance(size, int) and size > 0 for size in sizes
        ):
            raise InputError(
                f"{path}: image {record.get('id')!r} needs a file_name, a width and a height"
            )
        if record.get("id") in records:
            raise InputError(f"{path}: image id {record['id']!r} stands twice in `images`")
        records[record.get("id")] = record
    if not records:
        raise InputError(f"{path}: `images` must list at least one image")
    return records


def _image(
    path: Path,
    images: Path,
    record: Mapping[str, Any],
    objects: Iterable[Annotated],
    crowds: Iterable[Annotated],
) -> AnnotatedImage:
    file = images / record["file_name"]
    if not file.is_file():
        raise InputError(f"{path}: image {record['id']!r} must be at {file}, which does not exist")
    named = ImageFile(str(record["id"]), file)
    width, height = record["width"], record["height"]
    return AnnotatedImage(named, width, height, tuple(objects), tuple(crowds))


def _entries(path: Path, field: str, entries: Any) -> list[Any]:
    if not isinstance(entries, list | tuple) or not all(isinstance(e, dict) for e in entries):
        raise InputError(f"{path}: `{field}` must be a list of objects")
    return list(entries)


def _wrong(path: Path, entry: Mapping[str, Any], problem: str) -> InputError:
    return InputError(f"{path}: annotation {entry.get('id')!r}: {problem}")
