"""NLVR v1 (Suhr et al. 2017) from pictures to a score: trained on dev, scored on hidden.

Detector from the boxes that `structured_rep` gives, regions of all pictures, pre-training on drawn
pictures and the dev pictures in turn of modes, fine-tuning on dev, the leaderboard file of hidden.
Hidden takes no part in any decision.
"""

import argparse
import json
import logging
from collections import defaultdict
from pathlib import Path

from semvlp import atomic, settings
from semvlp.demo.config import WorldConfig
from semvlp.demo.files import write_world
from semvlp.demo.nlvr_scenes import ORDERS, read_scenes, write_boxes
from semvlp.eval.evaluate import EvalReport, evaluate
from semvlp.eval.tasks import load_task
from semvlp.extract.fit import FitConfig, train_detector
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.shards.convert import join
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.finetune import finetune
from semvlp.train.pretrain import pretrain

SEED = 0
WORLD = WorldConfig(
    square=0, towers=0.5, scatter=0.5, covered=0, pairs=0, nlvr=0, questions=2, statements=10
)
DETECTOR = FitConfig(steps=800)
REGIONS = {"min_regions": 4, "max_regions": 36}
PRETRAIN = (
    "model.preset=tiny",
    "model.vocab_size=3000",
    "data.texts_per_image=4",
    "objectives.on_questions=false",
    "train.steps=6000",
    "train.batch_size=128",
    "train.lr=1e-3",
)
FINETUNE = (
    "train.epochs=4",
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
    detector = _detector(data, out)
    regions = out / "regions"
    chosen = ExtractSettings(detector=str(detector), **REGIONS)
    extract(data, regions, chosen)
    pretrain(
        [_drawn_shards(out, chosen, scenes), _dev_shards(data, out, regions)],
        out / "pretrain",
        settings.load(PretrainConfig, None, PRETRAIN),
    )
    finetune(
        load_task("nlvr"),
        [data / "dev" / "dev.json"],
        regions,
        out / "pretrain" / "last",
        out / "finetune",
        settings.load(FinetuneConfig, None, FINETUNE),
    )
    return evaluate(
        load_task("nlvr"),
        out / "finetune" / "last",
        [data / "hidden" / "hidden.json"],
        regions,
        out / "eval",
        split="hidden",
        mode="both",
    )


def _detector(data: Path, out: Path) -> Path:
    boxes = out / "dev_boxes.json"
    write_boxes(data / "dev" / "dev.json", data / "dev", boxes, split="dev")
    train_detector(boxes, data / "dev", out / "detector", DETECTOR)
    return out / "detector"


def _drawn_shards(out: Path, chosen: ExtractSettings, scenes: int) -> Path:
    """Shards of drawn pictures in the style of NLVR with their texts."""
    world = write_world(out / "world", scenes={"train": scenes}, seed=SEED, config=WORLD)
    plain = out / "drawn-regions"
    extract(world.images("train"), plain, chosen)
    join(plain, [world.texts("train")], out / "drawn-shards")
    return out / "drawn-shards"


def _dev_shards(data: Path, out: Path, regions: Path) -> Path:
    """Shards of the dev pictures, their sentences as questions with the answers true and false."""
    texts = out / "dev_texts.jsonl"
    asked: dict[str, list[dict[str, object]]] = defaultdict(list)
    for record, _ in read_scenes(data / "dev" / "dev.json"):
        for k in range(len(ORDERS)):
            entry = {"question": record["sentence"], "answers": {record["label"]: 1.0}}
            asked[f"dev-{record['identifier']}-{k}"].append(entry)
    lines = (json.dumps({"image_id": name, "questions": found}) for name, found in asked.items())
    atomic.write_text(texts, "".join(f"{line}\n" for line in lines))
    join(regions, [texts], out / "dev-shards", only_matched=True)
    return out / "dev-shards"


def main() -> None:
    """`python -m semvlp.demo.nlvr DATA --out runs/nlvr`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/nlvr"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    report = run_nlvr(arguments.data, arguments.out)
    logging.getLogger(__name__).info("%s", json.dumps(report.scores, indent=1))


if __name__ == "__main__":
    main()
