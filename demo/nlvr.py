"""NLVR v1 (Suhr et al. 2017) from pictures to a score: trained on dev, scored on hidden.

Detector from the boxes that `structured_rep` gives, regions of all pictures, pre-training on drawn
pictures and the dev pictures in turn of modes, fine-tuning on dev, the leaderboard file of hidden.
Hidden takes no part in any decision.
"""

import json
from pathlib import Path

from semvlp import atomic, settings
from semvlp.demo import recipe, standalone
from semvlp.demo.annotations import texts
from semvlp.demo.compose import describe
from semvlp.demo.config import WorldConfig
from semvlp.demo.files import write_world
from semvlp.demo.nlvr_scenes import ORDERS, read_scenes, write_boxes
from semvlp.demo.split_world import Picture
from semvlp.eval.evaluate import evaluate
from semvlp.eval.outcome import EvalReport
from semvlp.eval.tasks import load_task
from semvlp.extract.fit import train_detector
from semvlp.extract.fit_config import FitConfig
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.shards.convert import join
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.finetune import finetune
from semvlp.train.pretrain import pretrain

SEED = 0
# One sentence in so many of dev is held out to choose the best checkpoint by.
HELD_OUT = 7
WORLD = WorldConfig(
    square=0,
    towers=0.5,
    scatter=0.5,
    covered=0,
    pairs=0,
    nlvr=0,
    captions=4,
    questions=6,
    statements=10,
)
DETECTOR = FitConfig(steps=800)
PRETRAIN = (
    *recipe.PRETRAIN,
    "model.vocab_size=3000",
    "train.steps=9000",
    recipe.first_single(3500),
    "train.save_every=1000",
)
FINETUNE = (
    "train.epochs=6",
    "train.batch_size=64",
    "train.lr=3e-4",
    "data.cache_images=20000",
)


def run_nlvr(data: Path, out: Path, *, scenes: int = 6000) -> EvalReport:
    """The whole run; a stage that an earlier call has finished is not done again.

    Args:
        data: a directory with `dev/dev.json`, `hidden/hidden.json` and the pictures beside them.
        scenes: pictures drawn for pre-training besides those of dev.
    """
    out.mkdir(parents=True, exist_ok=True)
    train, valid = _split_dev(data / "dev" / "dev.json", out)
    chosen = ExtractSettings(
        detector=str(_detector(train, data / "dev", out)), min_regions=4, max_regions=36
    )
    regions = out / "regions"
    extract(data, regions, chosen)
    shards = [_drawn_shards(out, chosen, scenes), _dev_shards(train, out, regions)]
    pretrain(shards, out / "pretrain", settings.load(PretrainConfig, None, PRETRAIN))
    finetune(
        load_task("nlvr"),
        [train],
        regions,
        out / "pretrain" / "last",
        out / "finetune",
        settings.load(FinetuneConfig, None, FINETUNE),
        valid=[valid],
    )
    return evaluate(
        load_task("nlvr"),
        out / "finetune" / "best",
        [data / "hidden" / "hidden.json"],
        regions,
        out / "eval",
        split="hidden",
        mode="both",
        train=[train],
        images=data / "hidden",
    )


def _split_dev(dev: Path, out: Path) -> tuple[Path, Path]:
    """Two files of dev's records; what is said of one family of scenes stays together."""
    parts: dict[str, list[str]] = {"train": [], "valid": []}
    for record, _ in read_scenes(dev):
        family = int(record["identifier"].partition("-")[0])
        part = "train" if family % HELD_OUT else "valid"
        parts[part].append(json.dumps({**record, "split": "dev"}) + "\n")
    for part, lines in parts.items():
        atomic.write_text(out / f"{part}.json", "".join(lines))
    return out / "train.json", out / "valid.json"


def _detector(annotations: Path, images: Path, out: Path) -> Path:
    boxes = out / "boxes.json"
    write_boxes(annotations, images, boxes, split="dev")
    train_detector(boxes, images, out / "detector", DETECTOR)
    return out / "detector"


def _drawn_shards(out: Path, chosen: ExtractSettings, scenes: int) -> Path:
    """Shards of drawn pictures in the style of NLVR with their texts."""
    world = write_world(out / "world", scenes={"train": scenes}, seed=SEED, config=WORLD)
    extract(world.images("train"), out / "drawn-regions", chosen)
    join(out / "drawn-regions", [world.texts("train")], out / "drawn-shards")
    return out / "drawn-shards"


def _dev_shards(annotations: Path, out: Path, regions: Path) -> Path:
    """Shards of dev pictures; what is said of them is made from their scenes, not by people."""
    pictures = [
        Picture(f"dev-{record['identifier']}-{k}", scene.permuted(order))
        for record, scene in read_scenes(annotations)
        for k, order in enumerate(ORDERS)
    ]
    lines = texts(describe("dev", pictures, seed=SEED, config=WORLD))
    file = out / "dev_texts.jsonl"
    atomic.write_text(file, "".join(json.dumps(line) + "\n" for line in lines))
    join(regions, [file], out / "dev-shards", only_matched=True)
    return out / "dev-shards"


if __name__ == "__main__":
    standalone.main(run_nlvr, __doc__ or "", Path("runs/nlvr"))
