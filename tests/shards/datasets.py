"""Small data sets for the tests of the stores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semvlp.names import StoreFormat
from semvlp.shards.dataset.manifest import Manifest, Plan
from semvlp.shards.record import Question, Regions, Sample, Texts
from semvlp.shards.writer import open_writer

FEATURE_SIZE = 8
EXTRACTOR = {"network": "test", "nms": {"iou": 0.5}, "sizes": [600, 1000]}


def plan_of(count: int = 5, **fields: object) -> Plan:
    """Return a plan for the images img-0, img-1, ...; any field can be replaced."""
    values = {
        "image_ids": tuple(f"img-{number}" for number in range(count)),
        "extractor": EXTRACTOR,
        "object_labels": ("cat", "dog", "tree"),
        "attribute_labels": ("red", "blue"),
        "feature_size": FEATURE_SIZE,
        "samples_per_shard": 2,
    }
    return Plan(**{**values, **fields})  # type: ignore[arg-type]


def sample_of(image_id: str, *, profile: str = "", regions: int | None = None) -> Sample:
    """Return the sample of an image: arrays from its name, 0 to 4 regions, caption and question."""
    generator = np.random.default_rng(list(image_id.encode()))
    count = int(generator.integers(0, 5)) if regions is None else regions
    boxes = generator.uniform(0, 99, (count, 4)).astype(np.float32)
    return Sample(
        key=image_id,
        regions=Regions(
            image_id=image_id,
            width=640,
            height=480,
            boxes=boxes,
            proposals=boxes + 1,
            features=generator.normal(size=(count, FEATURE_SIZE)).astype(np.float16),
            object_ids=generator.integers(0, 3, count).astype(np.int16),
            object_conf=np.linspace(1, 0.5, count).astype(np.float16),
            attribute_ids=generator.integers(-1, 2, count).astype(np.int16),
            attribute_conf=generator.uniform(size=count).astype(np.float16),
            profile=profile or plan_of().profile,
        ),
        texts=Texts(
            captions=(f"a photo of {image_id}, naïve",),
            questions=(
                Question(question=f"is it {image_id}?", answers={"yes": 1.0}, question_id=7),
            ),
        ),
    )


def write_dataset(
    out: Path,
    plan: Plan | None = None,
    *,
    format: StoreFormat = "tar",
    refused: Sequence[str] = (),
) -> Manifest:
    """Write a whole data set; the images in `refused` are refused."""
    with open_writer(out, plan or plan_of(), format=format) as writer:
        for image_id in writer.pending:
            if image_id in refused:
                writer.refuse(image_id, f"{image_id}.jpg", "cannot be decoded")
            else:
                writer.write(sample_of(image_id))
        return writer.finish()


def contents(directory: Path) -> dict[str, bytes]:
    """Return the bytes of every file but the manifest, which holds the time."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
