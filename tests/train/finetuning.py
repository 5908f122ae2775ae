"""What the tests of fine-tuning share: a task of our own, and the check of a stopped run."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from semvlp.errors import Interrupted
from semvlp.eval.files.forms import JsonArray
from semvlp.eval.task import Answer, Example, ExampleId, Head, Loss, Task
from semvlp.eval.tasks.base import BaseTask
from semvlp.train import loop
from semvlp.train.config import FinetuneConfig
from semvlp.train.finetune import finetune
from semvlp.train.run.files import METRICS, VALIDATION, read_lines
from semvlp.train.step import StepSums, train_step

Config = Callable[..., FinetuneConfig]


@dataclass
class Colours(BaseTask):
    """What colour the first thing of a picture has: a task of our own, read from JSON lines."""

    name = "colours"
    head: Head = "pooled"
    loss: Loss = "cross_entropy"
    metric = "accuracy"
    form = JsonArray(id_field="number", answer_field="colour", id_type=int)

    def read(self, paths: Sequence[Path], *, split: str = "train") -> list[Example]:
        lines = [line for path in paths for line in path.read_text().splitlines()]
        return [
            Example(
                example_id=number,
                text=entry["text"],
                images=tuple(entry["images"]),
                target=entry["target"],
            )
            for number, entry in enumerate(map(json.loads, lines))
        ]

    def labels(self, examples: Sequence[Example]) -> list[str]:
        return sorted({label for example in examples for label in example.target})

    def score(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, float]:
        right = [answers[example.example_id] in example.target for example in examples]
        return {"accuracy": 100 * sum(right) / len(right)}


def task_of(**fields: Any) -> Task:
    return Colours(**fields)


def losses(run: Path) -> list[tuple[Any, ...]]:
    kept = ("step", "mode", "loss", "loss_task", "lr", "grad_norm")
    return [tuple(entry[name] for name in kept) for entry in read_lines(run / METRICS)]


def check_resume(
    task: Task,
    annotations: Path,
    shards: Path,
    init: Path | None,
    config: FinetuneConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that is stopped after step 5 gives the losses and weights of one that is not."""

    def run(out: Path) -> None:
        finetune(task, [annotations], shards, init, out, config, valid=[annotations])

    done = 0

    def stopped(*args: Any, **kwargs: Any) -> StepSums:
        nonlocal done
        done += 1
        return train_step(*args, **{**kwargs, "stop": done == 5})

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(whole)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stopped)
        with pytest.raises(Interrupted):
            run(cut)
    run(cut)
    assert losses(cut) == losses(whole)
    assert read_lines(cut / VALIDATION) == read_lines(whole / VALIDATION)
    assert hashes(cut) == hashes(whole)


def hashes(run: Path) -> list[str]:
    weights = load_file(run / "last" / "model.safetensors")
    return [sha256(tensor.numpy().tobytes()).hexdigest() for tensor in weights.values()]
