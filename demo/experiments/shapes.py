"""SHAPES (Andreas et al. 2016) from pictures to a score: trained on `train.small`, scored on `val`.

The detector learns from the pictures of `train.small`, whose boxes follow from their pixels. Most
of what is learned about questions comes from pictures that are put together from cells of these,
and questions of the same language about them; those of `val` are never asked. The test split is not
read, and `val` takes no part in any decision.
"""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from semvlp import atomic, settings
from semvlp.demo import recipe
from semvlp.demo.dataset.boxes_file import Boxed, coco_json
from semvlp.demo.dataset.shapes_world import (
    COLORS,
    FORMS,
    SIZE,
    Picture,
    Question,
    Split,
    compose_pictures,
    every_question,
    read_split,
    things_of,
)
from semvlp.demo.experiments import standalone
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
PICTURES = 4000
"""Put together from cells."""
EACH = 3
"""Questions about each of them, of every number of steps and with either answer."""
CELLS = 9
DETECTOR = DetectorTrainConfig(steps=2000, settings=("shorter_side=64", "longer_side=64"))
PRETRAIN = (*recipe.PRETRAIN, f"data.max_regions={CELLS}", "train.steps=8000")
FINETUNE = (*recipe.FINETUNE, f"data.max_regions={CELLS}", "train.epochs=1")


def run_shapes(data: Path, out: Path) -> EvalReport:
    """Run every stage; one that an earlier call has finished is not done again.

    Args:
        data: a directory with `train.small.input.npy`, `val.input.npy` and what lies beside them.
    """
    train, val = read_split(data, "train.small"), read_split(data, "val")
    images = out / "images"
    for name, split in (("train", train), ("val", val)):
        _write_images(name, split.pictures, images)
        _write_table(out / f"{name}.csv", name, split)
    boxed = (
        Boxed(f"train-{number}.png", SIZE, SIZE, [*things_of(picture).values()])
        for number, picture in enumerate(train.pictures)
    )
    atomic.write_json(out / "boxes.json", coco_json(boxed, FORMS, COLORS), indent=None)
    train_detector(out / "boxes.json", images / "train", out / "detector", DETECTOR)

    rng = Random(SEED)
    composed = [*compose_pictures(train.pictures, PICTURES, rng)]
    _write_images("composed", composed, images)
    texts = _texts(composed, set(val.questions), rng)
    atomic.write_text(out / "texts.jsonl", "".join(json.dumps(line) + "\n" for line in texts))
    regions, shards = out / "regions", out / "shards"
    extract(
        images,
        regions,
        ExtractSettings(detector=str(out / "detector"), min_regions=1, max_regions=CELLS),
    )
    join(regions, [out / "texts.jsonl"], shards, only_matched=True)
    pretrain([shards], out / "pretrain", settings.load(PretrainConfig, None, PRETRAIN))
    task = load_task("table")
    finetune(
        task,
        [out / "train.csv"],
        regions,
        out / "pretrain" / "last",
        out / "finetune",
        settings.load(FinetuneConfig, None, FINETUNE),
    )
    return evaluate(
        task,
        out / "finetune" / "last",
        [out / "val.csv"],
        regions,
        out / "eval",
        EvalOptions(split="val", mode="both", train=[out / "train.csv"], images=images),
    )


def _write_images(name: str, pictures: Sequence[Picture], images: Path) -> None:
    """Write `NAME/NAME-0.png` and so on, but for those that an earlier call has written."""
    (images / name).mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        path = images / name / f"{name}-{number}.png"
        if not path.exists():
            png = io.BytesIO()
            Image.fromarray(picture).save(png, "PNG")
            atomic.write_bytes(path, png.getvalue())


def _write_table(path: Path, name: str, split: Split) -> None:
    """Write one row for each picture in the form of `--task table`."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["image", "question", "label"])
    asked = enumerate(zip(split.questions, split.answers, strict=True))
    rows.writerows(
        [f"{name}-{n}", question.text, _label(answer)] for n, (question, answer) in asked
    )
    atomic.write_text(path, text.getvalue())


def _texts(pictures: Sequence[Picture], unasked: set[Question], rng: Random) -> Iterator[Any]:
    """Ask about every picture, of each number of steps and with either answer EACH questions.

    Three in four questions of the language have two steps, which are learned after one.
    """
    questions = [question for question in every_question() if question not in unasked]
    for number, picture in enumerate(pictures):
        things = things_of(picture)
        kinds = defaultdict(list)
        for question in questions:
            kinds[len(question.relations), question.answer(things)].append(question)
        yield {
            "image_id": f"composed-{number}",
            "questions": [
                {"question": question.text, "answers": {_label(answer): 1.0}}
                for (_, answer), known in kinds.items()
                for question in rng.sample(known, min(EACH, len(known)))
            ],
        }


def _label(answer: bool) -> str:
    return "true" if answer else "false"


if __name__ == "__main__":
    standalone.main(run_shapes, __doc__ or "", Path("runs/shapes"))
