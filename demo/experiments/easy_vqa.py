"""easy-VQA (Victor Zhou, 2019; vzhou842/easy-VQA) from pictures to a score.

Of the images of the train split a tenth is held out and scored, and another tenth chooses the
checkpoint; the test split is not read. The pictures show one shape each on 64 x 64 pixels and an
even ground, so its box follows from the pixels, and what it is from the answers: from both, of the
images that are learned from, a detector is trained.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semvlp import atomic, settings
from semvlp.demo import recipe
from semvlp.demo.dataset.boxes_file import Boxed, coco_json
from semvlp.demo.experiments import standalone
from semvlp.demo.world.draw import Drawn
from semvlp.documents import from_json
from semvlp.errors import InputError
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

# Image 0, 10, 20, ... is scored, image 1, 11, 21, ... chooses, the others are learned from.
TENTHS = {0: "heldout", 1: "valid"}
PEOPLE = 10
SHAPES = ("circle", "rectangle", "triangle")
COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
# The smallest shapes are some ten pixels wide.
DETECTOR = DetectorTrainConfig(steps=2000, settings=("shorter_side=128", "longer_side=128"))
PRETRAIN = (*recipe.PRETRAIN, "train.steps=1200")
FINETUNE = (*recipe.FINETUNE, "train.epochs=1")

Question = tuple[str, str, int]
"""Question, answer, number of the image."""


def run_easy_vqa(data: Path, out: Path) -> EvalReport:
    """Run every stage; one that an earlier call has finished is not done again.

    Args:
        data: a directory with `train/questions.json` and `train/images/NUMBER.png`.
    """
    out.mkdir(parents=True, exist_ok=True)
    questions = _read(data / "train" / "questions.json")
    files = _write_vqa(questions, out)
    images, regions, shards = data / "train" / "images", out / "regions", out / "shards"
    boxes = coco_json(_boxed(questions, images), SHAPES, COLORS)
    atomic.write_json(out / "boxes.json", boxes, indent=None)
    train_detector(out / "boxes.json", images, out / "detector", DETECTOR)
    chosen = ExtractSettings(detector=str(out / "detector"), min_regions=1, max_regions=4)
    extract(images, regions, chosen)
    join(regions, files["train"], shards, only_matched=True)
    pretrain([shards], out / "pretrain", settings.load(PretrainConfig, None, PRETRAIN))
    task, run = load_task("vqa"), out / "finetune"
    finetune(
        task,
        files["train"],
        regions,
        out / "pretrain" / "last",
        run,
        settings.load(FinetuneConfig, None, FINETUNE),
        valid=files["valid"],
    )
    return evaluate(
        task,
        run / "best",
        files["heldout"],
        regions,
        out / "eval",
        EvalOptions(split="heldout", mode="both", train=files["train"], images=images),
    )


def _boxed(questions: Iterable[Question], images: Path) -> Iterator[Boxed]:
    """Give the images that are learned from whose shape and colour are both answers."""
    told: dict[int, set[str]] = defaultdict(set)
    for _, answer, image in questions:
        told[image].add(answer)
    for image, answers in told.items():
        shapes, colors = answers.intersection(SHAPES), answers.intersection(COLORS)
        if image % 10 not in TENTHS and shapes and colors:
            name = f"{image}.png"
            with Image.open(images / name) as picture:
                box = _shape_box(np.asarray(picture.convert("RGB"), np.int16))
                thing = Drawn(shapes.pop(), colors.pop(), box)
                yield Boxed(name, *picture.size, [thing])


def _shape_box(pixels: NDArray[np.int16]) -> tuple[int, int, int, int]:
    """Return the box xyxy of all pixels [H, W, 3] that differ from those of the edge."""
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    rows, columns = np.nonzero(np.abs(pixels - np.median(edge, axis=0)).max(axis=2) > 12)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _write_vqa(questions: Iterable[Question], out: Path) -> dict[str, list[Path]]:
    """Write questions and annotations files of each part in the form of VQA v2."""
    parts: dict[str, list[Question]] = {"train": [], "valid": [], "heldout": []}
    for text, answer, image in questions:
        parts[TENTHS.get(image % 10, "train")].append((text, answer, image))
    return {part: _write_part(part, asked, out) for part, asked in parts.items()}


def _read(path: Path) -> list[Question]:
    try:
        document = from_json(path.read_text(encoding="utf-8"))
        return [(str(text), str(answer), int(image)) for text, answer, image in document]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: must be easy-VQA's list of questions: {error}") from error


def _write_part(part: str, questions: list[Question], out: Path) -> list[Path]:
    files = [out / f"{part}_questions.json", out / f"{part}_annotations.json"]
    asked = [
        {"question_id": number, "image_id": image, "question": text}
        for number, (text, _, image) in enumerate(questions)
    ]
    answered = [_annotation(number, question) for number, question in enumerate(questions)]
    atomic.write_json(files[0], {"questions": asked}, indent=None)
    atomic.write_json(files[1], {"annotations": answered}, indent=None)
    return files


def _annotation(number: int, question: Question) -> dict[str, Any]:
    """Write one right answer, as ten people would give it who agree."""
    _, answer, image = question
    kind = "yes/no" if answer in ("yes", "no") else "other"
    answers = [
        {"answer_id": person, "answer": answer, "answer_confidence": "yes"}
        for person in range(1, PEOPLE + 1)
    ]
    return {
        "question_id": number,
        "image_id": image,
        "question_type": "none of the above",
        "answer_type": kind,
        "multiple_choice_answer": answer,
        "answers": answers,
    }


if __name__ == "__main__":
    standalone.main(run_easy_vqa, __doc__ or "", Path("runs/easy_vqa"))
