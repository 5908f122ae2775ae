"""A page to look at a store: images, their regions, labels, confidences and texts.

Boxes are xyxy in pixels of the original image.
"""

import base64
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semvlp.errors import ConfigError, InputError
from semvlp.extract.images.find import ImageFile, Refused, images_by_id, load
from semvlp.pages import render, write_page
from semvlp.shards.dataset.manifest import Manifest
from semvlp.shards.record import NO_ATTRIBUTE, Regions, Sample
from semvlp.shards.stores.store import Store

log = logging.getLogger(__name__)

MAX_WIDTH = 900
JPEG_QUALITY = 82
MIN_SHOWN_WIDTH, MAX_SHOWN_HEIGHT = 560, 720
# The slider starts where about so many regions of an image are shown: more are hard to read.
_READABLE = 10
# What float16 holds of a probability: 0.9 comes back as 0.8999.
_FLOAT16_DIGITS = 3
# Hues of neighbouring classes lie far apart.
_GOLDEN_ANGLE = 137.508


def write_preview(
    store: Store, out: Path, *, images: Path | None, count: int, seed: int = 0
) -> Path:
    """Write one self-contained HTML page of `count` images of `store`, drawn by `seed`, to `out`.

    `images` is where the image files are (see `find_images`); an image without its file is a blank
    canvas with its boxes.

    Raises:
        ConfigError: a count that is not positive, or `out` is something else than a page of ours.
        InputError: a store without images.
    """
    if count < 1:
        raise ConfigError(f"a preview needs at least 1 image, got {count}")
    if not len(store):
        raise InputError(f"{store.path} holds no images to look at")
    files = images_by_id(images)
    drawn = np.random.default_rng(seed).permutation(len(store))[:count]
    samples = [store.sample(int(index)) for index in sorted(drawn)]
    cards = [_card(sample, files, store.manifest) for sample in samples]
    page = render(
        Path(__file__).with_name("preview.html"),
        name=store.path.resolve().name,
        cards=cards,
        classes=sorted({region["object"] for card in cards for region in card["regions"]}),
        facts=_facts(store),
        threshold=_first_threshold([sample.regions for sample in samples]),
    )
    write_page(out, page)
    return out


def _facts(store: Store) -> list[tuple[str, str]]:
    """Return name and value of what holds for the whole data set."""
    manifest = store.manifest
    return [
        ("images", f"{len(store):,}"),
        ("refused", f"{manifest.counts['errors']:,}"),
        ("object classes", f"{len(manifest.object_labels):,}"),
        ("attributes", f"{len(manifest.attribute_labels):,}"),
        ("feature size", f"{manifest.feature_size:,}"),
        ("profile", manifest.profile),
    ]


def _card(sample: Sample, files: Mapping[str, ImageFile], manifest: Manifest) -> dict[str, Any]:
    regions, file = sample.regions, files.get(sample.regions.image_id)
    uri, note = _picture(file)
    # In CSS pixels: small images are enlarged so that labels fit, tall ones fit a screen.
    width, height = regions.width, regions.height
    shown_width = round(min(max(width, MIN_SHOWN_WIDTH), MAX_SHOWN_HEIGHT * width / height))
    return {
        "name": sample.name or regions.image_id,
        "width": width,
        "height": height,
        "shown_width": shown_width,
        "picture": {"uri": uri, "view": f"0 0 {width} {height}"},
        "note": note,
        "captions": sample.texts.captions,
        "questions": [
            (question.question, max(question.answers, key=question.answers.__getitem__, default=""))
            for question in sample.texts.questions
        ],
        "regions": [_row(regions, index, manifest) for index in range(len(regions))],
    }


def _row(regions: Regions, index: int, manifest: Manifest) -> dict[str, Any]:
    x1, y1, x2, y2 = map(float, regions.boxes[index])
    object_id, attribute_id = int(regions.object_ids[index]), int(regions.attribute_ids[index])
    attribute = ""
    if attribute_id != NO_ATTRIBUTE:
        attribute = label_of(manifest.attribute_labels, attribute_id)
    return {
        "x": round(x1, 1),
        "y": round(y1, 1),
        "w": round(x2 - x1, 1),
        "h": round(y2 - y1, 1),
        "share": round((x2 - x1) * (y2 - y1) / (regions.width * regions.height), 4),
        "object": label_of(manifest.object_labels, object_id),
        "confidence": round(float(regions.object_conf[index]), _FLOAT16_DIGITS),
        "attribute": attribute,
        "attribute_confidence": round(float(regions.attribute_conf[index]), _FLOAT16_DIGITS),
        "hue": round(object_id * _GOLDEN_ANGLE % 360, 1),
    }


def label_of(labels: Sequence[str], index: int) -> str:
    """Return the name of a class, its number where the vocabulary is shorter."""
    return labels[index] if index < len(labels) else f"class {index}"


def data_uri(file: ImageFile, *, max_width: int, quality: int) -> str:
    """Return the photograph, at most so many pixels wide, as a JPEG within the page.

    Raises:
        Refused: it cannot be read.
    """
    data = jpeg(file, max_width=max_width, quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def jpeg(file: ImageFile, *, max_width: int, quality: int) -> bytes:
    """Return the photograph, at most so many pixels wide, as a JPEG.

    Raises:
        Refused: it cannot be read.
    """
    image = Image.fromarray(load(file))
    image.thumbnail((max_width, 2 * max_width))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def _picture(file: ImageFile | None) -> tuple[str, str]:
    """Return a data URI and an empty note, or an empty URI and why there is none."""
    if file is None:
        return "", "no image file"
    try:
        return data_uri(file, max_width=MAX_WIDTH, quality=JPEG_QUALITY), ""
    except Refused as refused:
        log.warning("%s: %s", file, refused)
        return "", f"{file}: {refused}"


def _first_threshold(shown: Sequence[Regions]) -> float:
    """Return the confidence, in steps of 0.05, that about `_READABLE` regions an image exceed."""
    stored = np.concatenate([regions.object_conf for regions in shown]).astype(float)
    confidences = stored.round(_FLOAT16_DIGITS)
    wanted = _READABLE * len(shown)
    if len(confidences) <= wanted:
        return 0.0
    return float(np.floor(np.sort(confidences)[-wanted] * 20) / 20)
