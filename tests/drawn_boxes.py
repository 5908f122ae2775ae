"""A drawn set to learn a detector from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

COLOURS = {"red": (220, 30, 40), "blue": (0, 120, 250)}


def draw(folder: Path, count: int) -> dict[str, Any]:
    """Small pictures of two shapes in two colours, and their COCO tree."""
    rng = np.random.default_rng(7)
    tree: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3, "name": "square"}, {"id": 8, "name": "circle"}],
        "attributes": [{"id": index, "name": name} for index, name in enumerate(COLOURS, 1)],
    }
    for image_id in range(count):
        picture = Image.new("RGB", (64, 48), (200, 200, 200))
        for column in range(2):
            category, colour = int(rng.choice([3, 8])), int(rng.integers(1, 3))
            x, y, side = 32 * column + int(rng.integers(2, 10)), int(rng.integers(2, 20)), 18
            paint = ImageDraw.Draw(picture)
            shape = paint.rectangle if category == 3 else paint.ellipse
            shape((x, y, x + side - 1, y + side - 1), fill=list(COLOURS.values())[colour - 1])
            tree["annotations"].append(
                {
                    "id": len(tree["annotations"]) + 100,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [x, y, side, side],
                    "attribute_ids": [colour],
                }
            )
        picture.save(folder / f"{image_id}.png")
        size = {"width": 64, "height": 48}
        tree["images"].append({"id": image_id, "file_name": f"{image_id}.png", **size})
    return tree


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "boxes.json").write_text(json.dumps(draw(folder, 8)))
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Two threads may add in another order; runs are equal to the bit on the same number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
