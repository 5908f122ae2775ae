"""Fine-tuning on retrieval: which wrong pairs it learns from."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semvlp.errors import ConfigError
from semvlp.eval.tasks.table import load_task
from semvlp.train.config import FinetuneConfig
from semvlp.train.finetune import finetune
from tests.train.finetuning import check_resume

Config = Callable[..., FinetuneConfig]


@pytest.fixture
def captions(tmp_path: Path, sample_of: Callable[..., Any]) -> Path:
    """COCO captions of six images, two each."""
    captions = [
        {"id": 10 * number + k, "image_id": number, "caption": caption}
        for number in range(6)
        for k, caption in enumerate(sample_of(number).texts.captions)
    ]
    images = [{"id": number, "file_name": f"image-{number}.jpg"} for number in range(6)]
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"images": images, "annotations": captions}))
    return path


@pytest.mark.parametrize("negatives", ["random", "batch", "hard"])
def test_retrieval_learns_from_wrong_pairs(
    shards: Path, small_task: Config, tmp_path: Path, captions: Path, negatives: str
) -> None:
    # A network that knows nothing yet: its loss is that of a coin.
    config = small_task("train.steps=2", "train.lr=1e-5", f"retrieval.negatives={negatives}")
    report = finetune(
        load_task("retrieval"), [captions], shards, None, tmp_path / "run", config, valid=[captions]
    )
    assert {"ir_r1", "tr_r1", "rsum"} <= report.scores.keys()
    assert report.loss == pytest.approx(math.log(2), rel=0.5)


@pytest.mark.parametrize("negatives", ["batch", "hard"])
def test_a_stopped_retrieval_run_chooses_the_same_wrong_pairs(
    shards: Path,
    small_task: Config,
    tmp_path: Path,
    captions: Path,
    monkeypatch: pytest.MonkeyPatch,
    negatives: str,
) -> None:
    config = small_task(
        "train.steps=6",
        "train.save_every=4",
        f"retrieval.negatives={negatives}",
        "retrieval.replaced=either",
    )
    task = load_task("retrieval")
    check_resume(task, captions, shards, None, config, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("task", "setting", "message"),
    [
        ("retrieval", "train.batch_size=1", "train.batch_size must be at least 2, but is 1"),
        ("snli-ve", "retrieval.pool=2", "but the task is snli-ve"),
    ],
)
def test_wrong_pairs_that_cannot_be(
    shards: Path,
    small_task: Config,
    tmp_path: Path,
    captions: Path,
    task: str,
    setting: str,
    message: str,
) -> None:
    config = small_task("retrieval.negatives=batch", setting)
    with pytest.raises(ConfigError, match=message):
        finetune(load_task(task), [captions], shards, None, tmp_path / "run", config)
