"""Files of boxes that somebody else has found: COCO JSON, JSON lines, proposals, stores of regions.

K boxes of an image, xyxy in pixels of the photograph.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError, shown
from semvlp.shards.dataset.hashes import file_sha256
from semvlp.shards.open import open_store
from semvlp.shards.texts.annotation_files import Line, parse, read_text, require

Boxes = NDArray[np.float32]
_KINDS = (
    "COCO annotations (.json), JSON lines of {image, boxes, labels}, proposals of detectron2 "
    "(.pkl), or a data set of regions"
)
# detectron2's BoxMode; `indexes` and `scores` are what Detectron called the same.
_XYXY, _XYWH = 0, 1
_FORMERLY = {"indexes": "ids"}


class ImageBoxes(NamedTuple):
    """The boxes of one image, in the order of the file."""

    image: str
    """Name of the image as the file spells it."""
    where: str
    """Place in the file, for messages."""
    boxes: Boxes
    """[K, 4]."""
    labels: tuple[str, ...]
    """Names of their K classes; none where the file does not say."""


def read_boxes(path: Path) -> list[ImageBoxes]:
    """Return the boxes of every image that a file names.

    Raises:
        InputError: a file of another kind, damaged, or with an entry that is no box of an image.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file of boxes")
    if path.is_dir() or path.suffix == ".tar":
        return _in_store(path)
    if path.suffix in (".pkl", ".pickle"):
        return _in_pickle(path)
    content = parse(read_text(path), path)
    if isinstance(content, dict) and isinstance(content.get("boxes"), list):
        content = [Line(1, content)]
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _in_coco(path, content)
    if isinstance(content, list) and content:
        if all(isinstance(line, Line) for line in content):
            return [_in_line(path, line) for line in content]
        # The results of a detector in COCO's form: annotations alone, images by their numbers.
        return _in_coco(path, {"annotations": content})
    raise InputError(f"{path}: boxes are given as {_KINDS}")


def boxes_sha256(path: Path) -> str:
    """Return the hash of what `read_boxes` reads there."""
    if path.is_file() and path.suffix != ".tar":
        return file_sha256(path)
    with open_store(path) as store:
        return store.manifest.dataset_sha256


def _in_line(path: Path, line: Line) -> ImageBoxes:
    where = f"{path}, line {line.number}"
    require(line.value, {"image": (str, int), "boxes": list}, where)
    boxes = _boxes(line.value["boxes"], where)
    labels = line.value.get("labels") or []
    if not isinstance(labels, list) or (labels and len(labels) != len(boxes)):
        raise InputError(f"{where}: `labels` must be {len(boxes)} names, one for each box")
    return ImageBoxes(str(line.value["image"]), where, boxes, tuple(map(str, labels)))


def _in_coco(path: Path, content: Mapping[str, Any]) -> list[ImageBoxes]:
    names = dict(_named(content.get("images", []), "file_name", f"{path}, images"))
    classes = dict(_named(content.get("categories", []), "name", f"{path}, categories"))
    boxes: dict[Any, list[Any]] = {image: [] for image in names}
    labels: dict[Any, list[str]] = {image: [] for image in names}
    for number, entry in enumerate(content["annotations"], start=1):
        where = f"{path}, annotation {number}"
        require(entry, {"image_id": (int, str), "bbox": list}, where)
        image = entry["image_id"]
        if names and image not in names:
            raise InputError(f"{where}: image_id {shown(image)} is not among the file's `images`")
        (box,) = _boxes([entry["bbox"]], where, mode=_XYWH)
        boxes.setdefault(image, []).append(box)
        labels.setdefault(image, []).append(classes.get(entry.get("category_id"), ""))
    return [
        ImageBoxes(
            image=str(names.get(image, image)),
            where=f"{path}, image {image}",
            boxes=np.array(each, np.float32).reshape(-1, 4),
            labels=tuple(labels[image]) if all(labels[image]) else (),
        )
        for image, each in boxes.items()
    ]


def _named(entries: Any, field: str, where: str) -> Iterator[tuple[Any, str]]:
    """Yield the id and the name of COCO's images or categories."""
    for number, entry in enumerate(entries, start=1):
        require(entry, {"id": (int, str), field: str}, f"{where}, entry {number}")
        yield entry["id"], entry[field]


def _in_pickle(path: Path) -> list[ImageBoxes]:
    """Read what detectron2's `load_proposals_into_dataset` does; no code of the pickle runs."""
    from semvlp.shards.formats import safe_pickle

    content = safe_pickle.loads(path.read_bytes(), str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be proposals of detectron2, a dict of `ids` and `boxes`")
    content = {_FORMERLY.get(name, name): value for name, value in content.items()}
    ids, boxes = content.get("ids"), content.get("boxes")
    if not _is_list(ids) or not _is_list(boxes) or len(ids) != len(boxes):
        raise InputError(f"{path}: `ids` and `boxes` must be lists with an entry for each image")
    mode = content.get("bbox_mode", _XYXY)
    if not isinstance(mode, int) or mode not in (_XYXY, _XYWH):
        raise InputError(f"{path}: bbox_mode must be {_XYXY} or {_XYWH}, got {shown(mode)}")
    places = [f"{path}, image {image}" for image in ids]
    return [
        ImageBoxes(str(image), where, _boxes(each, where, mode), ())
        for image, where, each in zip(ids, places, boxes, strict=True)
    ]


def _in_store(path: Path) -> list[ImageBoxes]:
    with open_store(path) as store:
        names = store.manifest.object_labels
        every = (store.sample(index).regions for index in range(len(store)))
        return [
            ImageBoxes(
                image=regions.image_id,
                where=f"{path}, image {regions.image_id}",
                boxes=regions.boxes,
                labels=tuple(names[label] for label in regions.object_ids) if names else (),
            )
            for regions in every
        ]


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple | np.ndarray)


def _boxes(rows: Sequence[Any], where: str, mode: int = _XYXY) -> Boxes:
    """Return boxes [K, 4] as xyxy; those of another mode have width and height."""
    try:
        boxes = np.array(rows, np.float64).reshape(len(rows), 4)
    except (TypeError, ValueError):
        raise InputError(f"{where}: a box must be four numbers, found {shown(rows)}") from None
    if mode == _XYWH:
        boxes[:, 2:] += boxes[:, :2]
    with np.errstate(over="ignore"):
        return boxes.astype(np.float32)
