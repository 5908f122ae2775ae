"""A store of four images that is exported to every format."""

import numpy as np
import pytest

from semvlp.shards.dataset.manifest import Plan
from semvlp.shards.open import open_store
from semvlp.shards.record import Regions, Sample
from semvlp.shards.stores.store import Store
from semvlp.shards.writer import open_writer

LABELS = ("ant", "bee", "cat", "dog")
ATTRIBUTES = ("red", "blue")
IDS = ("COCO_train2014_000000000009", "n54424", "dev-1-0-img0", "2354786")
COUNTS = dict(zip(IDS, (36, 5, 0, 100), strict=True))
FEATURE_SIZE = 12


def make_regions(image_id: str, profile: str) -> Regions:
    generator = np.random.default_rng(list(image_id.encode()))
    count = COUNTS[image_id]
    boxes = np.sort(generator.uniform(0, 400, (count, 2, 2)), axis=1).reshape(count, 4)
    return Regions(
        image_id=image_id,
        width=640,
        height=427,
        boxes=boxes.astype(np.float32),
        proposals=boxes.astype(np.float32) + 2,
        features=generator.uniform(0.1, 30, (count, FEATURE_SIZE)).astype(np.float16),
        object_ids=generator.integers(0, len(LABELS), count).astype(np.int16),
        object_conf=np.sort(generator.uniform(0.1, 1, count))[::-1].astype(np.float16),
        attribute_ids=generator.integers(0, len(ATTRIBUTES), count).astype(np.int16),
        attribute_conf=generator.uniform(0, 1, count).astype(np.float16),
        profile=profile,
    )


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four images with 36, 5, 0 and 100 regions."""
    folder = tmp_path_factory.mktemp("original")
    plan = Plan(
        image_ids=IDS,
        extractor={"network": "test"},
        object_labels=LABELS,
        attribute_labels=ATTRIBUTES,
        feature_size=FEATURE_SIZE,
        samples_per_shard=10,
    )
    with open_writer(folder, plan, format="tar") as writer:
        for image_id in IDS:
            writer.write(Sample(key=image_id, regions=make_regions(image_id, plan.profile)))
        writer.finish()
    return open_store(folder)
