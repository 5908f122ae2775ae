"""Object boxes of drawn pictures as COCO detection JSON with colours as attributes."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from semvlp.demo.world.draw import ATTRIBUTE_LABELS, OBJECT_LABELS, Drawn, objects
from semvlp.demo.world.scene import Scene


class Boxed(NamedTuple):
    """A picture and what is to be found in it."""

    file_name: str
    width: int
    height: int
    things: Sequence[Drawn]


def coco_boxes(pictures: Iterable[tuple[str, Scene]]) -> dict[str, Any]:
    """Return the COCO JSON of drawn scenes, each with its file name."""
    boxed = (Boxed(name, scene.width, scene.side, objects(scene)) for name, scene in pictures)
    return coco_json(boxed, OBJECT_LABELS, ATTRIBUTE_LABELS)


def coco_json(
    pictures: Iterable[Boxed], object_labels: Sequence[str], attribute_labels: Sequence[str]
) -> dict[str, Any]:
    """Return COCO JSON of pictures: boxes xywh in pixels, `attribute_ids` per box.

    Categories and attributes are numbered from 1 as COCO numbers its categories.
    """
    categories = {label: index for index, label in enumerate(object_labels, start=1)}
    attributes = {label: index for index, label in enumerate(attribute_labels, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (file_name, width, height, things) in enumerate(pictures, start=1):
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for thing in things:
            left, top, right, bottom = thing.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": categories[thing.label],
                    "attribute_ids": [attributes[thing.attribute]],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": index, "name": label} for label, index in categories.items()],
        "attributes": [{"id": index, "name": label} for label, index in attributes.items()],
    }
