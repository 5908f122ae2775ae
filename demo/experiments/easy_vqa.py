"""easy-VQA (Victor Zhou, 2019; vzhou842/easy-VQA) from pictures to a score.

Of the images of the train split a tenth is held out and scored, and another tenth chooses the
checkpoint; the test split is not read. The pictures show one shape each on 64 x 64 pixels: the
detector of the drawn world finds it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from semvlp import atomic, settings
from semvlp.demo import recipe
from semvlp.demo.experiments import standalone
from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.eval.eval_report import EvalReport
from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.eval.tasks.table import load_task
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.shards.maintenance.convert import join
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.finetune import finetune
from semvlp.train.pretrain import pretrain

# Image 0, 10, 20, ... is scored, image 1, 11, 21, ... chooses, the others are learned from.
TENTHS = {0: "heldout", 1: "valid"}
PEOPLE = 10
# The smallest shapes are some ten pixels wide, and a grey square of them looks like a disc.
ENLARGED = ("shorter_side=128", "longer_side=128")
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
    files = _write_vqa(data / "train" / "questions.json", out)
    regions, shards = out / "regions", out / "shards"
    chosen = ExtractSettings(
        detector="demo", settings=ENLARGED, min_regions=1, max_regions=36, precision="auto"
    )
    extract(data / "train" / "images", regions, chosen)
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
        EvalOptions(
            split="heldout", mode="both", train=files["train"], images=data / "train" / "images"
        ),
    )


def _write_vqa(questions: Path, out: Path) -> dict[str, list[Path]]:
    """Write questions and annotations files of each part in the form of VQA v2."""
    parts: dict[str, list[Question]] = {"train": [], "valid": [], "heldout": []}
    for text, answer, image in _read(questions):
        parts[TENTHS.get(image % 10, "train")].append((text, answer, image))
    return {part: _write_part(part, asked, out) for part, asked in parts.items()}


def _read(path: Path) -> Iterable[Question]:
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
