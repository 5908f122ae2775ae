"""Images with their numbers in them, and extractions of them by a detector that is none."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semvlp.extract.pipeline import ExtractReport, ExtractSettings, extract
from semvlp.shards.codec import encode
from semvlp.shards.open import open_store
from tests.extract.fake_detector import FakeDetector

SETTINGS = ExtractSettings(workers=2, samples_per_shard=4)


def draw(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        image = np.random.default_rng(number).integers(0, 256, (12 + number % 3, 16, 3))
        image[0, 0, 0] = number
        Image.fromarray(image.astype(np.uint8)).save(folder / f"im{number:03d}.png")
    return folder


def damage(images: Path, *numbers: int) -> None:
    for number in numbers:
        (images / f"im{number:03d}.png").write_bytes(b"not an image")


def stored(out: Path) -> list[tuple[bytes, bytes]]:
    """Both members of every sample."""
    with open_store(out) as store:
        return [encode(store.sample(index)) for index in range(len(store))]


def shard_bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("shard-*"))}


def refusals(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / "refused.jsonl").read_text().splitlines()]


def run(
    images: Path, out: Path, detector: FakeDetector | None = None, **options: Any
) -> ExtractReport:
    return extract(images, out, replace(SETTINGS, **options), detector=detector or FakeDetector())
