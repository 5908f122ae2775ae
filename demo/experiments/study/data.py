"""The data of the study: one world of texts, its regions ideal or extracted from pictures."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from semvlp import atomic, settings
from semvlp.demo import recipe
from semvlp.demo.dataset.annotations import gqa_statements, texts
from semvlp.demo.dataset.compose import compose, facts_of
from semvlp.demo.dataset.files import write_world
from semvlp.demo.dataset.ideal_regions import write_ideal_regions
from semvlp.demo.dataset.split_world import SplitWorld
from semvlp.demo.experiments.study.cells import Part
from semvlp.demo.language.claims import spread
from semvlp.demo.language.kinds import TOPICS, statement_of
from semvlp.demo.world.config import SQUARE_SCENES
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.shards.maintenance.convert import join
from semvlp.shards.open import open_store
from semvlp.train.config import PretrainConfig
from semvlp.train.data.texts import read_sample, sentences
from semvlp.train.initial_model import make_tokenizer

SEED = 0
WORLD = replace(SQUARE_SCENES, most_items=4, variety=4)
# Many a statement makes sense of few scenes.
_TRIES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The amount of everything in one size of the study."""

    scenes: dict[str, int]
    """Scenes to pre-train on (`train`), to fine-tune on (`tune`), to be scored on (`test`)."""
    statements: dict[str, int]
    """Statements of each kind about each scene, likewise."""
    steps: int
    seeds: int

    def made_of(self) -> dict[str, Any]:
        """Return what results have to have in common: all but the number of seeds."""
        return {name: value for name, value in asdict(self).items() if name != "seeds"}


FULL = Size(
    scenes={"train": 8000, "tune": 1000, "test": 600},
    statements={"train": 4, "tune": 4, "test": 2},
    # The base cell then has learned the high level, and is not yet at the ceiling.
    steps=3000,
    seeds=5,
)
QUICK = Size(
    scenes={"train": 600, "tune": 100, "test": 100},
    statements={"train": 4, "tune": 4, "test": 2},
    steps=300,
    seeds=2,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The data of one part."""

    shards: Path
    """Regions and texts to pre-train on."""
    regions: Path
    """Regions of all pictures."""
    tune: Path
    """Statements to fine-tune on, in the form of GQA; of other pictures than `test`."""
    test: Path
    """Statements to be scored on."""
    tokenizer: Path
    """The vocabulary of all trainings: to make it takes as long as hundreds of steps."""


def prepare(part: Part, out: Path, size: Size) -> Data:
    """Make the data of a part under `out`; what an earlier call has made is left as it is."""
    folder = out / part
    folder.mkdir(parents=True, exist_ok=True)
    with atomic.locked(folder):
        if not (out / "test.json").exists():
            _write_texts(out, size)
        regions = folder / "regions"
        if part == "ideal":
            worlds = compose(size.scenes, seed=SEED, config=WORLD)
            write_ideal_regions(regions, [picture for world in worlds for picture in world.scenes])
        else:
            world = write_world(folder / "world", scenes=size.scenes, seed=SEED, config=WORLD)
            chosen = ExtractSettings(
                detector="demo", min_regions=1, max_regions=36, precision="auto"
            )
            extract(world.root / "images", regions, chosen)
        join(regions, [out / "train.jsonl"], folder / "shards", only_matched=True)
        if not (folder / "tokenizer").exists():
            _write_tokenizer(folder / "tokenizer", folder / "shards")
    return Data(
        shards=folder / "shards",
        regions=regions,
        tune=out / "tune.json",
        test=out / "test.json",
        tokenizer=folder / "tokenizer",
    )


def worlds_of(size: Size) -> Iterator[SplitWorld]:
    """Yield the splits with their statements, as many of each kind as of any other."""
    for world in compose(size.scenes, seed=SEED, config=WORLD):
        scenes, rng = [picture.scene for picture in world.scenes], Random(f"{SEED}-{world.split}")
        each = size.statements[world.split]
        asked = (
            spread(partial(statement_of, topic), scenes, each=each, rng=rng, tries=_TRIES)
            for topic in TOPICS
        )
        yield replace(
            world, statements=[fact for one in asked for fact in facts_of(world.scenes, one)]
        )


def _write_texts(out: Path, size: Size) -> None:
    """Write what is told of the scenes of `train`, and the statements of the others."""
    for world in worlds_of(size):
        if world.split == "train":
            lines = (json.dumps(line) + "\n" for line in texts(world))
            atomic.write_text(out / "train.jsonl", "".join(lines))
        else:
            atomic.write_json(out / f"{world.split}.json", gqa_statements(world), indent=None)


def _write_tokenizer(folder: Path, shards: Path) -> None:
    with open_store(shards) as store:
        config = settings.load(PretrainConfig, None, recipe.PRETRAIN).model
        tokenizer = make_tokenizer(config, sentences(read_sample([store])))
    aside = folder.with_suffix(".part")
    tokenizer.save_pretrained(aside)
    aside.rename(folder)
