"""The agreement of two extractions of the same images: features at same boxes, selection.

G golden regions, E extracted regions. Boxes are xyxy in pixels of the original image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semvlp.errors import InputError
from semvlp.shards.dataset.manifest import MANIFEST_NAME
from semvlp.shards.formats.raw import to_regions
from semvlp.shards.formats.table import load_format
from semvlp.shards.formats.tsv import first_row
from semvlp.shards.open import open_store
from semvlp.shards.record import Regions
from semvlp.shards.texts.image_ids import ImageIds

SAME_BOX_IOU = 0.9
"""Two regions with more overlap than this are the same box."""

BoxKind = Literal["boxes", "proposals"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Agreement:
    """One image, golden against extracted."""

    image_id: str
    overlaps: NDArray[np.float32]
    """[G] IoU of each golden region with the extracted region that overlaps it most."""
    cosines: NDArray[np.float32]
    """Cosine of the features of each golden region that has a same-box partner."""


@dataclass(frozen=True, slots=True)
class _Extraction:
    image_ids: Sequence[str]
    read: Callable[[str], Regions]
    close: Callable[[], None]


def parity(golden: Path, extracted: Path) -> dict[str, Any]:
    """Compare all images both have; returns plain JSON values, shares in 0..1.

    Either side is a store or an LXMERT or bottom-up-attention TSV. Published files hold either the
    proposals or the regressed boxes; of an extraction that has both, the kind that overlaps more is
    compared, and named in `compared`.

    Raises:
        InputError: a path is neither, features have different sizes, or no image is in both.
    """
    theirs, ours = _open(golden), _open(extracted)
    try:
        return {"golden": str(golden), "extracted": str(extracted), **_compare_all(theirs, ours)}
    finally:
        theirs.close()
        ours.close()


def agreement(golden: Regions, extracted: Regions, kind: BoxKind = "boxes") -> Agreement:
    """Compare one image; `kind` names the boxes of `extracted` to compare with the golden ones.

    Raises:
        InputError: the features have different sizes.
    """
    if golden.features.shape[1] != extracted.features.shape[1]:
        raise InputError(
            f"image {golden.image_id}: features must have the same size, got "
            f"{golden.features.shape[1]} (golden) and {extracted.features.shape[1]} (extracted)"
        )
    if not len(golden) or not len(extracted):
        overlaps = np.zeros(len(golden), np.float32)
        return Agreement(image_id=golden.image_id, overlaps=overlaps, cosines=overlaps[:0])
    table = box_iou(golden.boxes, getattr(extracted, kind))
    partner, overlaps = table.argmax(axis=1), table.max(axis=1)
    same = overlaps > SAME_BOX_IOU
    cosines = _cosine(golden.features[same], extracted.features[partner[same]])
    return Agreement(image_id=golden.image_id, overlaps=overlaps, cosines=cosines)


def box_iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return [A, B] intersection over union of [A, 4] and [B, 4] xyxy boxes."""
    corners = np.minimum(first[:, None, 2:], second[None, :, 2:])
    corners -= np.maximum(first[:, None, :2], second[None, :, :2])
    shared = corners.clip(min=0).prod(axis=2)
    union = _area(first)[:, None] + _area(second)[None, :] - shared
    return np.asarray(shared / np.maximum(union, np.finfo(np.float32).tiny), np.float32)


def summarise(images: Sequence[Agreement]) -> dict[str, Any]:
    """Return the figures over all regions of the images; None where nothing was compared."""
    overlaps = np.concatenate([image.overlaps for image in images])
    cosines = np.concatenate([image.cosines for image in images])
    return {
        "regions": len(overlaps),
        "selection_overlap": _mean(overlaps),
        "same_box_share": _mean(overlaps > SAME_BOX_IOU),
        "same_box_cosine": _mean(cosines),
        "same_box_cosine_above_0.95": _mean(cosines > 0.95),
        "same_box_cosine_above_0.99": _mean(cosines > 0.99),
    }


def _compare_all(golden: _Extraction, extracted: _Extraction) -> dict[str, Any]:
    names = ImageIds(extracted.image_ids)
    pairs = [(image_id, names.find(image_id)) for image_id in golden.image_ids]
    compared: dict[BoxKind, list[Agreement]] = {"boxes": [], "proposals": []}
    for image_id, found in pairs:
        if found is not None:
            theirs, ours = golden.read(image_id), extracted.read(found)
            for kind, agreements in compared.items():
                agreements.append(agreement(theirs, ours, kind))
    if not compared["boxes"]:
        raise InputError(
            f"no image is in both: golden has {', '.join(golden.image_ids[:3])}, ..., "
            f"extracted has {', '.join(extracted.image_ids[:3])}, ..."
        )
    kind = max(compared, key=lambda kind: summarise(compared[kind])["selection_overlap"] or 0)
    return {
        "images": len(compared[kind]),
        "missing": [image_id for image_id, found in pairs if found is None],
        "compared": kind,
        **summarise(compared[kind]),
        "per_image": [{"image_id": a.image_id, **summarise([a])} for a in compared[kind]],
    }


def _open(path: Path) -> _Extraction:
    if (path / MANIFEST_NAME).is_file():
        store = open_store(path)
        return _Extraction(
            store.image_ids,
            store.regions,
            store.close,
        )
    columns = len(first_row(path)) if path.is_file() else 0
    name = "butd-tsv" if columns == 6 else "lxmert-tsv" if columns >= 10 else None
    if name is None:
        raise InputError(
            f"{path}: a directory with {MANIFEST_NAME} or a TSV of LXMERT (10 columns) or "
            f"bottom-up-attention (6 columns) was expected, found {columns} columns"
        )
    dataset = load_format(name).open(path)
    return _Extraction(
        dataset.image_ids,
        lambda image_id: to_regions(dataset.read(image_id), image_id, profile=""),
        dataset.close,
    )


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def _cosine(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float32]:
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = (first * second).sum(axis=1)
    return np.asarray(products / np.maximum(lengths, np.finfo(np.float64).tiny), np.float32)


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None
