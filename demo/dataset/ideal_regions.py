"""Regions of drawn pictures as an ideal detector would give them: no picture, no error.

A feature is one-hot by shape, by colour and by size; a box is the square of its item, xyxy pixels.
R items, F = shapes + colours + sizes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semvlp.demo.dataset.split_world import Picture
from semvlp.demo.world.scene import COLORS, SIZE_WORDS
from semvlp.demo.world.shapes import SHAPES
from semvlp.progress import Progress
from semvlp.shards.dataset.plan import Plan
from semvlp.shards.record import Regions, Sample
from semvlp.shards.writer import open_writer

# The blocks of a feature, one after another.
_TRAITS = (SHAPES, tuple(COLORS), SIZE_WORDS)


def write_ideal_regions(out: Path, pictures: Sequence[Picture]) -> Path:
    """Write a store with the regions of `square` scenes; one that is there is left as it is.

    Raises:
        ConfigError: `out` holds another one.
    """
    plan = Plan(
        image_ids=tuple(picture.image_id for picture in pictures),
        extractor={"detector": "ideal", "features": [list(names) for names in _TRAITS]},
        object_labels=SHAPES,
        attribute_labels=tuple(COLORS),
        feature_size=sum(map(len, _TRAITS)),
        samples_per_shard=1000,
    )
    by_id = {picture.image_id: picture for picture in pictures}
    with open_writer(out, plan, format="tar") as writer:
        pending = writer.pending
        with Progress("writing ideal regions", total=len(pending), unit="pictures") as bar:
            for image_id in pending:
                regions = ideal_regions(by_id[image_id], plan.profile)
                writer.write(Sample(key=image_id, regions=regions))
                bar.advance()
        writer.finish()
    return out


def ideal_regions(picture: Picture, profile: str) -> Regions:
    """Return one region for each item, all with full confidence."""
    scene = picture.scene
    boxes = np.array([(i.x, i.y, i.right, i.bottom) for i in scene.items], np.float32)
    classes = np.array(
        [
            (SHAPES.index(i.shape), tuple(COLORS).index(i.color), SIZE_WORDS.index(i.size_word))
            for i in scene.items
        ],
        np.int16,
    )
    sure = np.ones(len(boxes), np.float16)
    blocks = [
        np.eye(len(names), dtype=np.float16)[classes[:, column]]
        for column, names in enumerate(_TRAITS)
    ]
    return Regions(
        image_id=picture.image_id,
        width=scene.width,
        height=scene.side,
        boxes=boxes,
        proposals=boxes,
        features=np.concatenate(blocks, axis=1),
        object_ids=np.ascontiguousarray(classes[:, 0]),
        object_conf=sure,
        attribute_ids=np.ascontiguousarray(classes[:, 1]),
        attribute_conf=sure,
        profile=profile,
    )
