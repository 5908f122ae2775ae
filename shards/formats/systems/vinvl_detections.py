"""The files beside VinVL's features: image sizes and detected classes by image."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.shards.dataset.refusals import printable
from semvlp.shards.formats.tsv import RowOffset, decode_number, index_rows, read_row

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Detections:
    """Rows of `predictions.tsv`, `*.label.tsv` and `*.hw.tsv`, each possibly absent."""

    predictions: Mapping[str, RowOffset]
    """id -> {"image_h", "image_w", "objects": [{"class", "rect", "conf"}]}; sizes are optional."""
    labels_only: Mapping[str, RowOffset]
    """id -> [{"class", "rect", "conf"}]"""
    sizes: Mapping[str, RowOffset]
    """id -> [{"height", "width"}]"""

    @cached_property
    def has_sizes(self) -> bool:
        """Whether image sizes are known, by the first image whose row is whole."""
        for image_id in self.sizes or self.predictions:
            with suppress(InputError):
                return self.size(image_id) is not None
        return False

    @cached_property
    def object_labels(self) -> tuple[str, ...]:
        """Every class that occurs, in the order of the alphabet; one pass over the rows."""
        names: set[str] = set()
        for image_id in self.predictions or self.labels_only:
            try:
                names.update(name for name, _ in self._objects(image_id))
            except InputError:
                # The image is refused with this reason when it is read.
                continue
        return tuple(sorted(names))

    def size(self, image_id: str) -> tuple[int, int] | None:
        """Return width and height in pixels, None where no file has them.

        Raises:
            InputError: the row is damaged.
        """
        if image_id in self.sizes:
            entry = parse_json(read_row(self.sizes[image_id])[-1])
            first = entry[0] if isinstance(entry, list) and entry else entry
            return _size(first, "width", "height")
        if image_id in self.predictions:
            return _size(parse_json(read_row(self.predictions[image_id])[-1]), "image_w", "image_h")
        return None

    def labels(
        self, image_id: str, count: int
    ) -> tuple[NDArray[np.int64] | None, NDArray[np.float32] | None]:
        """Return class and confidence of each region, None if the file has another number of them.

        Raises:
            InputError: the row is damaged.
        """
        if image_id not in (self.predictions or self.labels_only):
            return None, None
        objects = self._objects(image_id)
        if len(objects) != count:
            log.warning(
                "image %s: %d detections for %d features; its labels are left out",
                image_id,
                len(objects),
                count,
            )
            return None, None
        ids = np.array([self._label_ids[name] for name, _ in objects], np.int64)
        return ids, np.array([conf for _, conf in objects], np.float32)

    @cached_property
    def _label_ids(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.object_labels)}

    def _objects(self, image_id: str) -> list[tuple[str, float]]:
        offset = (self.predictions or self.labels_only)[image_id]
        entry = parse_json(read_row(offset)[-1])
        try:
            objects = entry["objects"] if isinstance(entry, dict) else entry
            return [(printable(str(item["class"])), float(item.get("conf", 0))) for item in objects]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(
                f"{offset.path}: the detections of image {image_id} are damaged: {error!r}"
            ) from error


def find_beside(features: Path) -> Detections:
    """Find the companions of a feature file, which may be its own `predictions.tsv`."""
    folder = features.parent
    predictions = folder / "predictions.tsv"
    return Detections(
        predictions=index_rows([predictions]).offsets if predictions.is_file() else {},
        labels_only=_index_one(folder, "*label.tsv"),
        sizes=_index_one(folder, "*hw.tsv"),
    )


def parse_json(text: bytes | memoryview) -> Any:
    """Return the value of a JSON column.

    Raises:
        InputError: it is damaged.
    """
    try:
        return from_json(bytes(text))
    except ValueError as error:
        raise InputError(f"its JSON is damaged: {error}") from error


def _index_one(folder: Path, pattern: str) -> Mapping[str, RowOffset]:
    files = sorted(folder.glob(pattern))
    return index_rows(files[:1]).offsets if files else {}


def _size(entry: Any, width: str, height: str) -> tuple[int, int] | None:
    if not isinstance(entry, Mapping) or width not in entry or height not in entry:
        return None
    return decode_number(entry[width], width), decode_number(entry[height], height)
