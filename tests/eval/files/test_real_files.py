"""The official annotation files as they are: from them to a leaderboard file and its scores."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.eval.score_table import score
from semvlp.eval.tasks.table import TASKS
from semvlp.shards.texts.image_ids import stem

# Task -> files, number of examples, what else is given.
FILES: dict[str, tuple[list[str], int, dict[str, int]]] = {
    "vqa": (["coco/vqa_questions.json", "coco/vqa_annotations.json"], 39, {}),
    "gqa": (["gqa_ood/ood_testdev_head.json"], 1733, {}),
    "nlvr2": (["nlvr2/test1.json"], 6967, {}),
    "nlvr": (["nlvr/dev/dev.json"], 5934, {}),
    "snli-ve": (["snli_ve/sample_data.jsonl"], 5, {}),
    "retrieval": (["coco/captions.json"], 2441, {"shortlist": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_from_annotations_to_scores(
    name: str,
    real_data: Path,
    checkpoint: Callable[..., Path],
    write_shards: Callable[[Path, Sequence[str]], Path],
    tmp_path: Path,
) -> None:
    files, count, options = FILES[name]
    task, paths = TASKS[name], [real_data / file for file in files]
    examples = task.read(paths, split="test")
    assert len(examples) == count
    names = list(dict.fromkeys(stem(image) for example in examples for image in example.images))
    shards = write_shards(tmp_path / "shards", names)
    weights = checkpoint(name, annotations=paths)
    report = evaluate(
        task, weights, paths, shards, tmp_path / "e", EvalOptions(split="x", mode="both", **options)
    )
    assert report.scores is not None
    assert set(report.scores["modes"]) == {"single", "two", "both"}
    again = score(task, paths, report.file)
    assert again[task.metric] == report.scores[task.metric]
