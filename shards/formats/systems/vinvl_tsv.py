"""VinVL's TSVs: features with relative boxes appended, and detections in files beside them.

Three layouts, told apart by their first row: `features.tsv` (id, count, base64) and the captioning
set's `*.feature.tsv` (id, JSON with `num_boxes` and `features`) of microsoft/Oscar, and
`predictions.tsv` with a feature in every object of microsoft/scene_graph_benchmark. Image sizes and
classes stand in `predictions.tsv`, `*.hw.tsv` or `*.label.tsv` beside the features.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.shards.formats.community import CommunityDataset, CommunityFormat
from semvlp.shards.formats.foreign_lmdb import community_key
from semvlp.shards.formats.raw import RawRegions
from semvlp.shards.formats.systems.uniter import UNIT, UNIT_FACTS
from semvlp.shards.formats.systems.vinvl_detections import Detections, find_beside, parse_json
from semvlp.shards.formats.tsv import (
    RowWriter,
    decode_array,
    decode_number,
    encode_array,
    first_rows,
    index_rows,
    read_row,
)
from semvlp.shards.record import Regions
from semvlp.shards.texts.annotation_files import first_has

FEATURE_SIZE = 2048
RELATIVE_BOX = 6
"""x1/W, y1/H, x2/W, y2/H, w/W, h/H, behind the features."""

NAMES = ("features.tsv", "*.feature.tsv", "*.features.tsv", "predictions.tsv")


def open_vinvl_tsv(path: Path) -> CommunityDataset:
    """Open the feature file, or the one in a directory.

    Raises:
        InputError: there is none, its layout is unknown, or boxes in pixels have no image sizes.
    """
    file = _find(path)
    layout = _layout(file)
    rows = index_rows([file])
    beside = find_beside(file)
    if layout == "objects" and not beside.has_sizes:
        raise InputError(f"{file}: its boxes are in pixels, so image sizes are needed in *.hw.tsv")

    def read(image_id: str) -> RawRegions:
        row = read_row(rows.offsets[image_id])
        if layout == "objects":
            return _read_objects(row, beside, image_id)
        return _read_features(row, beside, image_id)

    return CommunityDataset(
        image_ids=tuple(rows.offsets),
        read=read,
        file_of=lambda image_id: str(file),
        unreadable=rows.unreadable,
        last_rows=rows.last,
        object_labels=beside.object_labels,
        facts={} if beside.has_sizes else UNIT_FACTS,
    )


def write_vinvl_tsv(
    regions: Iterable[Regions], path: Path, *, object_labels: tuple[str, ...]
) -> int:
    """Write `features.tsv`, `predictions.tsv`, their `.lineidx`, and `imageid2idx.json`.

    COCO's images are called by their numbers, by which Oscar looks them up.
    """
    path.mkdir()
    lines: dict[str, int] = {}
    with (
        RowWriter(path / "features.tsv") as features,
        RowWriter(path / "predictions.tsv") as predictions,
    ):
        for image in regions:
            key = community_key(image.image_id)
            lines[key] = len(lines)
            features.write([key, len(image), encode_array(_with_boxes(image), "<f4")])
            predictions.write([key, _prediction(image, object_labels)])
    for name, writer in (("features", features), ("predictions", predictions)):
        index = "".join(f"{offset}\n" for offset in writer.offsets)
        (path / f"{name}.lineidx").write_text(index, encoding="ascii")
    (path / "imageid2idx.json").write_text(json.dumps(lines), encoding="utf-8")
    return len(lines)


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    for pattern in NAMES:
        for file in sorted(path.glob(pattern)):
            return file
    raise InputError(f"{path}: a VinVL feature file was expected: {', '.join(NAMES)}")


def _layout(file: Path) -> str:
    rows = list(first_rows(file)) or [[b""]]
    layout = next(filter(None, map(_layout_of, rows)), None)
    if layout is None:
        raise InputError(
            f"{file}: no VinVL features: rows must be (id, count, base64), (id, JSON with "
            "features) or (id, JSON with a feature in each object); the first row has "
            f"{len(rows[0])} columns and starts with {b' '.join(rows[0])[:60]!r}"
        )
    return layout


def _layout_of(row: list[bytes]) -> str | None:
    if len(row) == 3 and row[1].isdigit():
        return "columns"
    entry = None
    if len(row) == 2:
        with suppress(ValueError):
            entry = from_json(row[1])
    if isinstance(entry, dict) and "features" in entry:
        return "json"
    objects = entry.get("objects") if isinstance(entry, dict) else None
    if first_has(objects, "feature"):
        return "objects"
    return None


def _read_features(row: list[bytes | memoryview], beside: Detections, image_id: str) -> RawRegions:
    """Read features with relative boxes behind them."""
    count, text = _columns(row)
    values = _decode_values(text, count)
    size = beside.size(image_id)
    if size is None and beside.has_sizes:
        raise InputError("the files beside do not give its size")
    size = size or (UNIT, UNIT)
    boxes = values[:, -RELATIVE_BOX:-2].astype(np.float32)
    ids, conf = beside.labels(image_id, count)
    return RawRegions(
        width=size[0],
        height=size[1],
        count=count,
        boxes=boxes * np.array(size * 2, np.float32),
        features=values[:, :-RELATIVE_BOX],
        object_ids=ids,
        object_conf=conf,
    )


def _columns(row: list[bytes | memoryview]) -> tuple[int, Any]:
    """Return the stated count and the base64 text of either layout."""
    if len(row) == 3:
        return decode_number(row[1], "num_boxes"), row[2]
    if len(row) != 2:
        raise InputError(f"its row has {len(row)} columns: the file is cut short")
    entry = parse_json(row[1])
    try:
        return decode_number(entry["num_boxes"], "num_boxes"), entry["features"]
    except (KeyError, TypeError) as error:
        raise InputError(f"its JSON lacks {error}") from error


def _decode_values(text: Any, count: int) -> Any:
    """Decode [count, F + 6]: float16 if only that gives VinVL's width, as in the captioning set."""
    data = decode_array(text, np.uint8, "features")
    half = len(data) == 2 * count * (FEATURE_SIZE + RELATIVE_BOX)
    size = 2 if half else 4
    if count < 0 or (len(data) % (size * count) if count else len(data)):
        raise InputError(f"the features have {len(data)} bytes, which {count} regions do not share")
    width = len(data) // (size * count) if count else FEATURE_SIZE + RELATIVE_BOX
    if width <= RELATIVE_BOX:
        raise InputError(f"{width} numbers a region are too few for features and a box")
    return data.view(np.float16 if half else np.float32).reshape(count, width)


def _read_objects(row: list[bytes | memoryview], beside: Detections, image_id: str) -> RawRegions:
    """Read one JSON of objects, each with its own box in pixels and its feature."""
    entry = parse_json(row[-1])
    size = beside.size(image_id)
    if size is None:
        raise InputError("the files beside do not give its size")
    try:
        objects = entry["objects"]
        features = [decode_array(item["feature"], np.float32, "feature") for item in objects]
        boxes = np.array([item["rect"] for item in objects], np.float32).reshape(-1, 4)
        matrix = np.stack(features) if features else np.empty((0, FEATURE_SIZE), np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"its objects are damaged: {error!r}") from error
    ids, conf = beside.labels(image_id, len(objects))
    return RawRegions(
        width=size[0],
        height=size[1],
        boxes=boxes,
        features=matrix,
        object_ids=ids,
        object_conf=conf,
    )


def _with_boxes(regions: Regions) -> Any:
    boxes = regions.boxes / np.array([regions.width, regions.height] * 2, np.float32)
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([regions.features.astype(np.float32), boxes, sides], axis=1)


def _prediction(regions: Regions, object_labels: tuple[str, ...]) -> str:
    objects = [
        {
            "class": object_labels[index] if object_labels else f"object {index}",
            "conf": round(float(conf), 4),
            "rect": [round(float(side), 2) for side in box],
        }
        for index, conf, box in zip(
            regions.object_ids.tolist(), regions.object_conf, regions.boxes, strict=True
        )
    ]
    entry = {"image_h": regions.height, "image_w": regions.width, "objects": objects}
    return json.dumps(entry, ensure_ascii=False)


VINVL_TSV = CommunityFormat(
    what="TSV of Oscar and VinVL: features with relative boxes, detections beside them",
    open=open_vinvl_tsv,
    write=write_vinvl_tsv,
)
