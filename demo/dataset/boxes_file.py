"""Object boxes of drawn pictures as COCO detection JSON with colours as attributes."""

from collections.abc import Iterable
from typing import Any

from semvlp.demo.world.draw import ATTRIBUTE_LABELS, OBJECT_LABELS, objects
from semvlp.demo.world.scene import Scene


def coco_boxes(pictures: Iterable[tuple[str, Scene]]) -> dict[str, Any]:
    """Return COCO JSON of (file name, scene): boxes xywh in pixels, `attribute_ids` per box.

    Categories and attributes are numbered from 1 as COCO numbers its categories.
    """
    categories = {label: index for index, label in enumerate(OBJECT_LABELS, start=1)}
    attributes = {label: index for index, label in enumerate(ATTRIBUTE_LABELS, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (file_name, scene) in enumerate(pictures, start=1):
        size = {"width": scene.width, "height": scene.side}
        images.append({"id": image_id, "file_name": file_name, **size})
        for thing in objects(scene):
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
