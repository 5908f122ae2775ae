"""SHAPES from pictures to a score: every stage on a handful of pictures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semvlp.demo.dataset.shapes_world import every_question
from semvlp.demo.experiments import shapes

SMALL = (
    "model.preset=tiny",
    "train.device=cpu",
    "train.threads=1",
    "train.batch_size=8",
    "train.steps=1",
    "data.max_regions=9",
)
ASKED = {"train.small": "(is red (left_of green))", "val": "(is green (right_of red))"}


def write_split(folder: Path, name: str, count: int) -> None:
    """Write pictures with a red square, and every other time a green one to its right."""
    pixels = np.zeros((count, 30, 30, 3), np.uint8)
    pixels[:, 12:18, 12:18, 2] = 255  # BGR
    pixels[::2, 12:18, 22:28, 1] = 255
    np.save(folder / f"{name}.input.npy", pixels)
    (folder / f"{name}.query").write_text(f"{ASKED[name]}\n" * count)
    answers = ("true", "false")
    (folder / f"{name}.output").write_text("".join(f"{answers[n % 2]}\n" for n in range(count)))


@pytest.mark.slow
def test_every_stage_and_what_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "PICTURES", 12)
    monkeypatch.setattr(shapes, "DETECTOR", replace(shapes.DETECTOR, steps=1))
    monkeypatch.setattr(shapes, "PRETRAIN", (*SMALL, "model.vocab_size=200"))
    monkeypatch.setattr(shapes, "FINETUNE", SMALL)
    data, out = tmp_path / "shapes", tmp_path / "out"
    data.mkdir()
    write_split(data, "train.small", 8)
    write_split(data, "val", 6)
    report = shapes.run_shapes(data, out)
    assert report.scores is not None
    assert set(report.scores["modes"]) == {"single", "two", "both"}
    assert report.count == 6
    composed = [json.loads(line) for line in (out / "texts.jsonl").read_text().splitlines()]
    assert len(composed) == 12
    questions = [question for entry in composed for question in entry["questions"]]
    asked = {question["question"] for question in questions}
    assert len(asked) > 50
    assert asked < {q.text for q in every_question()} - {"is a green shape right of a red shape"}
    assert sum(question["answers"] == {"true": 1.0} for question in questions) > len(questions) / 4
    assert (out / "train.csv").read_text().splitlines()[1] == (
        "train-0,is a red shape left of a green shape,true"
    )
