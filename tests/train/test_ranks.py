"""Several processes do what one does: losses, checkpoints and scores, with DDP and with FSDP2."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from semvlp.train.run.files import METRICS, VALIDATION, read_lines
from semvlp.train.run.state import read_state
from tests.train.processes import finetuning, pretraining, stopping_before, together

SMALL = (
    "model.preset=tiny",
    "model.dropout=0.0",
    "train.device=cpu",
    "train.lr=1e-3",
    "train.log_every=1",
    "train.batch_size=8",
)
NOT_COMPARED = ("mode", "seconds", "seconds_left", "pairs_per_second", "waiting")
# Sums over ranks are taken in another order, and AdamW turns a gradient whose sign is unsure into
# a step of full size.
TOLERANCE = 2e-3
STEP_SIZE = 1e-3
BF16_TOLERANCE = 2e-2

pytestmark = pytest.mark.slow


def check_same_curve(one: Path, other: Path, tolerance: float = TOLERANCE) -> None:
    ours, theirs = read_lines(one / METRICS), read_lines(other / METRICS)
    assert [(line["step"], line["mode"]) for line in ours] == [
        (line["step"], line["mode"]) for line in theirs
    ]
    for mine, yours in zip(ours, theirs, strict=True):
        assert mine.keys() == yours.keys()
        for name in mine.keys() - set(NOT_COMPARED):
            assert yours[name] == pytest.approx(mine[name], rel=tolerance), (name, mine["step"])


@pytest.fixture(scope="module")
def one_process(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that several processes must give again: batches of 8 pairs, 6 steps."""
    out = tmp_path_factory.mktemp("ranks") / "one"
    assert together(1, pretraining(shards, out, [*SMALL, "train.steps=6"])) == [0]
    return out


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(
    "more",
    [
        ["train.parallel=ddp"],
        ["train.parallel=ddp", "train.gradient_accumulation_steps=2"],
        ["train.parallel=fsdp"],
        # Ranks with other numbers of micro-batches must not wait for each other for ever.
        ["train.parallel=fsdp", "train.max_rows_per_micro_batch=16"],
    ],
)
def test_many_processes_give_the_curve_of_one(
    shards: Path, one_process: Path, tmp_path: Path, more: list[str], size: int
) -> None:
    """`size` processes with 8 / `size` pairs each a step."""
    job = pretraining(shards, tmp_path / "run", [*SMALL, "train.steps=6", *more])
    assert together(size, job) == [0] * size
    check_same_curve(one_process, tmp_path / "run")
    last = tmp_path / "run" / "last"
    assert read_state(last).finished
    ours, theirs = (load_file(run / "last/model.safetensors") for run in (one_process, last.parent))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], atol=6 * STEP_SIZE), name
    told = json.loads((last / "config.json").read_text())
    assert told["architectures"] == ["SemVLPForPreTraining"]


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_many_processes_give_the_curve_of_one_in_bf16(
    shards: Path, tmp_path: Path, parallel: str, size: int
) -> None:
    settings = [*SMALL, "train.steps=6", "train.precision=bf16", f"train.parallel={parallel}"]
    for count in (1, size):
        job = pretraining(shards, tmp_path / f"on-{count}", settings)
        assert together(count, job) == [0] * count
    check_same_curve(tmp_path / "on-1", tmp_path / f"on-{size}", tolerance=BF16_TOLERANCE)
    weights = load_file(tmp_path / f"on-{size}/last/model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_checkpoint_of_four_ranks_goes_on_with_fewer(
    shards: Path, one_process: Path, tmp_path: Path, parallel: str, size: int
) -> None:
    settings = [*SMALL, "train.steps=6", "train.save_every=2", "train.ema_decay=0.5"]
    job = pretraining(shards, tmp_path, [*settings, f"train.parallel={parallel}"])
    together(4, stopping_before(5, job))
    assert read_state(tmp_path / "last").step == 4
    assert together(size, job) == [0] * size
    assert read_state(tmp_path / "last").finished
    check_same_curve(one_process, tmp_path)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("task", "more"),
    [
        ("snli-ve", []),
        ("retrieval", []),
        ("retrieval", ["retrieval.negatives=hard", "retrieval.replaced=either"]),
        # A rank whose micro-batch has nothing to choose must not leave the others waiting.
        ("retrieval", ["retrieval.negatives=hard", "train.gradient_accumulation_steps=2"]),
        ("snli-ve", ["train.precision=bf16"]),
    ],
)
def test_every_rank_validates_its_share_and_all_agree(
    shards: Path,
    sample_of: Callable[..., Any],
    tmp_path: Path,
    task: str,
    more: list[str],
    parallel: str,
) -> None:
    samples = [sample_of(number) for number in range(7)]
    told = tmp_path / "examples.json"
    told.write_text(statements(samples) if task == "snli-ve" else json.dumps(captions(samples)))
    settings = [*SMALL, "train.steps=4", "train.save_every=2", *more, f"train.parallel={parallel}"]
    for size in (1, 4):
        job = finetuning(task, told, shards, tmp_path / f"on-{size}", settings)
        assert together(size, job) == [0] * size
    one, four = (tmp_path / name for name in ("on-1", "on-4"))
    scores = read_lines(four / VALIDATION)
    assert [line["step"] for line in scores] == [2, 4]
    assert scores == read_lines(one / VALIDATION)
    check_same_curve(one, four)


def statements(samples: Sequence[Any]) -> str:
    """SNLI-VE: one statement an image."""
    labels = ("entailment", "neutral", "contradiction")
    entries = [
        {
            "pairID": f"{sample.key}#0",
            "Flickr30K_ID": sample.key,
            "sentence2": sample.texts.captions[1],
            "gold_label": labels[number % 3],
        }
        for number, sample in enumerate(samples)
    ]
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def captions(samples: Sequence[Any]) -> dict[str, Any]:
    """COCO captions: two of each image."""
    images = [{"id": n, "file_name": f"{s.key}.jpg"} for n, s in enumerate(samples)]
    told = [(n, text) for n, s in enumerate(samples) for text in s.texts.captions]
    entries = [{"id": i, "image_id": n, "caption": text} for i, (n, text) in enumerate(told)]
    return {"images": images, "annotations": entries}
