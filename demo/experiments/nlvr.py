"""NLVR v1 (Suhr et al. 2017) from pictures to a score: trained on dev, scored on hidden.

Detector from the boxes that `structured_rep` gives, regions of all pictures, pre-training on drawn
pictures and the dev pictures with drawn statements, fine-tuning on dev, the leaderboard file of
hidden. Hidden takes no part in any decision.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from semvlp import atomic, settings
from semvlp.demo import recipe
from semvlp.demo.dataset.annotations import texts
from semvlp.demo.dataset.compose import compose, describe
from semvlp.demo.dataset.files import write_world
from semvlp.demo.dataset.nlvr_scenes import ORDERS, read_scenes, write_boxes
from semvlp.demo.dataset.split_world import Picture, SplitWorld
from semvlp.demo.experiments import standalone
from semvlp.demo.world.config import WorldConfig
from semvlp.eval.eval_report import EvalReport
from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.eval.tasks.table import load_task
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.shards.maintenance.convert import join
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.detector.config import DetectorTrainConfig
from semvlp.train.detector.train import train_detector
from semvlp.train.finetune import finetune
from semvlp.train.pretrain import pretrain

SEED = 0
# First what is said tells pictures with different things apart, which a fresh network learns soon.
# Then, as in NLVR v1, most of it tells apart pictures with the same things in other places.
PLAIN = WorldConfig(
    square=0,
    towers=0.5,
    scatter=0.5,
    covered=0,
    pairs=0,
    nlvr=0,
    captions=2,
    questions=4,
    statements=34,
)
ALIKE = replace(PLAIN, statements=10, alike_statements=24)
DETECTOR = DetectorTrainConfig(steps=2000)
REGIONS = "data.max_regions=36"
PRETRAIN = (*recipe.PRETRAIN, REGIONS, "model.vocab_size=3000", "data.texts_per_image=2")
# One schedule over both: the rate stays where it is, then falls to zero. The second has a tenth of
# PLAIN besides ALIKE, drawn and of dev, so that nothing is forgotten.
FIRST = ("train.steps=3000", "train.lr_schedule=constant")
THEN = ("train.steps=13000", "train.warmup_ratio=0.0", "data.weights=[0.6, 0.3, 0.1]")
# Dev's sentences are too few to choose among checkpoints by: a moving average needs no choice.
FINETUNE = (
    "model.dropout=0.1",
    "train.epochs=4",
    "train.ema_decay=0.99",
    "train.batch_size=64",
    "train.lr=3e-4",
    "data.cache_images=20000",
)


def run_nlvr(data: Path, out: Path, *, scenes: int = 16_000) -> EvalReport:
    """Run every stage; one that an earlier call has finished is not done again.

    Args:
        data: a directory with `dev/dev.json`, `hidden/hidden.json` and the pictures beside them.
        scenes: pictures drawn for pre-training besides those of dev.
    """
    out.mkdir(parents=True, exist_ok=True)
    dev = data / "dev" / "dev.json"
    write_boxes(dev, data / "dev", out / "boxes.json", split="dev")
    train_detector(out / "boxes.json", data / "dev", out / "detector", DETECTOR)
    chosen = ExtractSettings(detector=str(out / "detector"), min_regions=4, max_regions=36)
    regions, drawn = out / "regions", out / "drawn-regions"
    extract(data, regions, chosen)
    files = write_world(out / "world", scenes={"train": scenes}, seed=SEED, config=PLAIN)
    extract(files.images("train"), drawn, chosen)
    plain, alike = (
        [_drawn_shards(name, world, drawn, scenes), _dev_shards(name, world, dev, regions, out)]
        for name, world in (("plain", PLAIN), ("alike", ALIKE))
    )
    start = _pretrain(plain, out / "pretrain-plain", FIRST)
    end = _pretrain([*alike, plain[0]], out / "pretrain", (*THEN, *_going_on(start)))
    finetune(
        load_task("nlvr"),
        [dev],
        regions,
        end,
        out / "finetune",
        settings.load(FinetuneConfig, None, FINETUNE),
    )
    return evaluate(
        load_task("nlvr"),
        out / "finetune" / "last",
        [data / "hidden" / "hidden.json"],
        regions,
        out / "eval",
        EvalOptions(split="hidden", mode="both", train=[dev], images=data / "hidden"),
    )


def _going_on(start: Path) -> tuple[str, ...]:
    return f"model.pretrained={start}", f"model.tokenizer={start}"


def _drawn_shards(name: str, config: WorldConfig, regions: Path, scenes: int) -> Path:
    """Make shards of the drawn pictures with the texts of `config`; it draws the same pictures."""
    (world,) = compose({"train": scenes}, seed=SEED, config=config)
    return _joined(regions, world, regions.parent / f"drawn-{name}")


def _dev_shards(
    name: str, config: WorldConfig, annotations: Path, regions: Path, out: Path
) -> Path:
    """Make shards of dev pictures; their texts are made from their scenes, not by people."""
    pictures = [
        Picture(f"dev-{record['identifier']}-{k}", scene.permuted(order))
        for record, scene in read_scenes(annotations)
        for k, order in enumerate(ORDERS)
    ]
    world = describe("dev", pictures, seed=SEED, config=config)
    return _joined(regions, world, out / f"dev-{name}")


def _joined(regions: Path, world: SplitWorld, out: Path) -> Path:
    """Make shards of those pictures that the world speaks of."""
    file = out.with_suffix(".jsonl")
    atomic.write_text(file, "".join(json.dumps(line) + "\n" for line in texts(world)))
    join(regions, [file], out, only_matched=True)
    return out


def _pretrain(shards: list[Path], run: Path, overrides: Sequence[str]) -> Path:
    pretrain(shards, run, settings.load(PretrainConfig, None, (*PRETRAIN, *overrides)))
    return run / "last"


if __name__ == "__main__":
    standalone.main(run_nlvr, __doc__ or "", Path("runs/nlvr"))
