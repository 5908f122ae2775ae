"""What version 0.1 has written is read, goes on and gives the same numbers.

`fixtures/written_by_0_1/` holds its stores, a pre-training stopped after step 5 of 8, a fine-tuned
checkpoint and an evaluation; nothing in it may be changed, for it stands for the files that people
have. What may change is what reads them.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.model.config import PRESETS

WRITTEN = Path(__file__).parent / "fixtures" / "written_by_0_1"
NUMBERS = ("lr", "grad_norm", "loss")
# The kind of processor that wrote them gives the very same numbers; another kind sums in another
# order, which was seen to change them by up to 2e-7.
SAME = {"rel": 1e-6, "abs": 1e-9}
QUESTIONS = ("vqa_questions_train.json", "vqa_annotations_train.json")
VALID = ("vqa_questions_valid.json", "vqa_annotations_valid.json")

# A file that is read by an old name may say so by a warning; other tests count any as an error.
pytestmark = pytest.mark.filterwarnings("default")

Semvlp = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old files, which is the working directory: their paths are relative."""
    copy = tmp_path / "old"
    shutil.copytree(WRITTEN, copy, symlinks=True)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The old runs had one thread, and its number shapes the last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def semvlp(capsys: pytest.CaptureFixture) -> Semvlp:
    """Run a command that must succeed; returns the object on stdout."""

    def call(*arguments: object) -> dict[str, Any]:
        code = run(cli, "semvlp", [*map(str, arguments), "--json"])
        streams = capsys.readouterr()
        assert code == 0, streams.err
        return json.loads(streams.out)

    return call


def entries(metrics: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock measured."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k in ("step", "mode") or k.startswith(NUMBERS)}
        for line in lines
    ]


def check_same(now: list[dict[str, Any]], before: list[dict[str, Any]]) -> None:
    """The same steps, modes and objectives, and their numbers but for rounding."""
    assert [(line["step"], line["mode"]) for line in now] == [
        (line["step"], line["mode"]) for line in before
    ]
    for one, other in zip(now, before, strict=True):
        numbers = {k: v for k, v in other.items() if k != "mode"}
        assert {k: v for k, v in one.items() if k != "mode"} == pytest.approx(numbers, **SAME)


@pytest.mark.parametrize("store", ["tar", "lmdb"])
def test_stores_are_whole(semvlp: Semvlp, store: str) -> None:
    assert semvlp("shards", "verify", store) == {"path": store, "findings": []}
    info = semvlp("shards", "info", store)
    assert info["store"] == store
    assert info["counts"] == {"samples": 27, "captions": 54, "questions": 67, "errors": 1}


def test_stores_hold_the_same_samples(semvlp: Semvlp, old: Path) -> None:
    semvlp("shards", "convert", "lmdb", "again", "--to", "tar")
    name = "shard-000000.tar"
    assert (old / "again" / name).read_bytes() == (old / "tar" / name).read_bytes()
    assert (old / "again" / "refused.jsonl").read_bytes() == (
        WRITTEN / "tar" / "refused.jsonl"
    ).read_bytes()


def test_an_interrupted_pretraining_goes_on(semvlp: Semvlp, old: Path) -> None:
    report = semvlp("pretrain", "tar", "--out", "pretrain", "--config", "pretrain/config.toml")
    assert (report["steps"], report["new_steps"]) == (8, 3)
    whole = json.loads((old / "pretrain_whole.json").read_text())
    now = entries(old / "pretrain" / "metrics.jsonl")
    assert now[:5] == whole[:5]
    check_same(now, whole)


def test_a_pretraining_starts_by_old_settings(
    semvlp: Semvlp, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every setting that is lost or misread changes one of these numbers."""
    # The old files are small because their network is: `tiny` was made like this to write them.
    sizes = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 64, "cross_layers": 1}
    for name, size in sizes.items():
        monkeypatch.setitem(PRESETS["tiny"], name, size)
    config = ("--config", "pretrain/config.toml", "--set", "train.clip=0.5")
    semvlp("pretrain", "tar", "--out", "anew", *config)
    whole = json.loads((old / "pretrain_whole.json").read_text())
    check_same(entries(old / "anew" / "metrics.jsonl"), whole)
    # An average of the weights changes no loss, but what is saved.
    assert (old / "anew" / "last" / "training" / "weights.safetensors").exists()


def test_a_finetuning_starts_by_old_settings(semvlp: Semvlp, old: Path) -> None:
    """Every setting that is lost or misread changes one of these numbers."""
    annotations = [word for name in QUESTIONS for word in ("--annotations", name)]
    start = ("--shards", "lmdb", "--init", "start", "--config", "finetune/config.toml")
    semvlp("finetune", "--task", "vqa", *annotations, *start, "--out", "anew")
    now, before = (entries(old / name / "metrics.jsonl") for name in ("anew", "finetune"))
    assert len(now) == len(before)
    # Sixty steps make much of a rounding; ten are enough to tell the settings by.
    check_same(now[:4], before[:4])


@pytest.mark.parametrize("given", [False, True])
def test_a_finetuned_checkpoint_gives_the_same_answers(
    semvlp: Semvlp, old: Path, given: bool
) -> None:
    """Its run names the annotations and the store, which may be given as well."""
    annotations = [word for name in VALID for word in ("--annotations", name)]
    inputs = [*annotations, "--shards", "lmdb", "--split", "val"] if given else []
    semvlp("eval", "--task", "vqa", "--checkpoint", "finetune/best", *inputs, "--out", "again")
    answers, scores = (
        [(old / folder / name).read_bytes() for folder in ("again", "eval")]
        for name in ("vqa_val.json", "scores.json")
    )
    assert answers[0] == answers[1]
    now, before = map(json.loads, scores)
    assert list(now["modes"]) == list(before["modes"])
    assert _known_before(now, before) == before


def _known_before(now: Any, before: Any) -> Any:
    """Leave out what came later, such as intervals."""
    if not isinstance(before, dict):
        return now
    return {name: _known_before(now[name], value) for name, value in before.items()}


def test_old_runs_are_compared(semvlp: Semvlp, old: Path) -> None:
    semvlp("compare", "pretrain", "finetune", "eval", "--out", "page.html")
    page = (old / "page.html").read_text()
    assert all(name in page for name in ("pretrain", "finetune", "eval"))
