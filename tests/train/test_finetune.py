"""Fine-tuning: every head through the one loop, validation, early stop, exact resume."""

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from semvlp.errors import ConfigError, InputError, Interrupted, TooManyRefused
from semvlp.eval.files.inputs import left_out_of
from semvlp.eval.network import Network
from semvlp.model.layers.heads import label_loss
from semvlp.model.semvlp import SemVLPForPreTraining, SemVLPForTask
from semvlp.train import loop
from semvlp.train.config import FinetuneConfig
from semvlp.train.finetune import steps_per_epoch, total_steps
from semvlp.train.run.files import METRICS, VALIDATION, read_lines, read_run
from semvlp.train.run.report import RunReport, check_left_out, facts
from semvlp.train.run.state import read_state
from semvlp.train.step import train_step
from semvlp.train.train_config import FinetuneTrainConfig
from tests.train.finetuning import check_resume, hashes, task_of

Config = Callable[..., FinetuneConfig]
Run = Callable[..., RunReport]
NUM_EXAMPLES = 24


@pytest.fixture
def held_out(annotations: Path, tmp_path: Path) -> Path:
    """The first three examples as a file of their own."""
    path = tmp_path / "three.jsonl"
    path.write_text("".join(annotations.read_text().splitlines(keepends=True)[:3]))
    return path


def test_it_learns_validates_and_keeps_the_best(finetuned: Run, init: Path, tmp_path: Path) -> None:
    settings = ("train.steps=36", "train.save_every=12", "train.warmup_ratio=0.3", "train.lr=2e-3")
    report = finetuned(*settings, init=init, validated=True)
    scores = {line["step"]: line["accuracy"] for line in read_lines(tmp_path / VALIDATION)}
    assert list(scores) == [12, 24, 36]
    assert scores[36] == report.scores["accuracy"] > 80
    state = read_state(tmp_path / "last")
    assert state.best_score == max(scores.values())
    assert read_state(tmp_path / "best").step == state.best_step
    assert scores[state.best_step or 0] == state.best_score
    assert {line["mode"] for line in read_lines(tmp_path / METRICS)} == {"single", "two"}
    assert SemVLPForTask.from_pretrained(tmp_path / "best").config.labels == [
        "blue",
        "green",
        "red",
    ]


def test_what_the_run_read_is_written_down(
    finetuned: Run, annotations: Path, shards: Path, init: Path, tmp_path: Path
) -> None:
    finetuned("train.steps=1", init=init, validated=True)
    assert json.loads((tmp_path / "inputs.json").read_text()) == {
        "task": "colours",
        "init": str(init),
        "annotations": [str(annotations)],
        "valid": [str(annotations)],
        "shards": str(shards),
    }
    with pytest.raises(ConfigError, match="init must be"):
        finetuned("train.steps=1")


def test_a_stopped_run_goes_on_with_the_same_losses(
    annotations: Path,
    shards: Path,
    init: Path,
    small_task: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = small_task("train.steps=6", "train.save_every=4", "data.cache_images=10")
    check_resume(task_of(), annotations, shards, init, config, tmp_path, monkeypatch)


@pytest.mark.parametrize("cut_at", [4, 8])
def test_a_validation_that_is_cut_short_is_made_up_for(
    cut_at: int, finetuned: Run, init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM between two batches of it ends the run, which goes on as if nothing had been."""
    settings = ("train.steps=8", "train.save_every=4")

    def run(out: Path) -> None:
        finetuned(*settings, init=init, validated=True, out=out)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(whole)
    logits, batches = Network.logits, 0

    def terminated(self: Network, *arguments: Any) -> torch.Tensor:
        nonlocal batches
        batches += 1
        if len(read_lines(cut / METRICS)) == cut_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return logits(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Network, "logits", terminated)
        with pytest.raises(Interrupted, match=f"stopped after step {cut_at} of 8"):
            run(cut)
        of_a_validation = 2 * math.ceil(NUM_EXAMPLES / 8)
        assert batches == (cut_at == 8) * of_a_validation + 1
    state = read_state(cut / "last")
    assert (state.step, state.unjudged, state.finished) == (cut_at, True, False)
    run(cut)
    assert read_lines(cut / VALIDATION) == read_lines(whole / VALIDATION)
    before, after = read_state(whole / "last"), read_state(cut / "last")
    assert replace(after, seconds=before.seconds) == before
    assert hashes(cut) == hashes(whole)


def test_validating_on_what_is_trained_on_is_remarked_upon(
    finetuned: Run,
    annotations: Path,
    init: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    held_out: Path,
) -> None:
    """Another file with some of the same examples is told as well, one that is held out not."""
    finetuned("train.steps=1", init=init, validated=True, out=tmp_path / "same")
    assert f"{NUM_EXAMPLES} of the {NUM_EXAMPLES} examples of --valid are trained on" in caplog.text
    caplog.clear()
    finetuned(
        "train.steps=1", init=init, given=[held_out], valid=[annotations], out=tmp_path / "some"
    )
    assert f"3 of the {NUM_EXAMPLES} examples of --valid are trained on" in caplog.text
    caplog.clear()
    others = tmp_path / "others.jsonl"
    others.write_text("".join(annotations.read_text().splitlines(keepends=True)[3:]))
    finetuned("train.steps=1", init=init, given=[held_out], valid=[others], out=tmp_path / "none")
    assert "are trained on" not in caplog.text


def test_a_step_larger_than_the_data_is_told(
    finetuned: Run, init: Path, held_out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finetuned("train.steps=1", init=init, given=[held_out], out=tmp_path / "few")
    assert "a step takes 8 examples, but the data hold 3" in caplog.text
    caplog.clear()
    finetuned("train.steps=1", init=init, out=tmp_path / "many")
    assert "but the data hold" not in caplog.text


def test_early_stop(finetuned: Run, init: Path) -> None:
    settings = ("train.steps=9", "train.save_every=1", "train.patience=2", "train.lr=0.0")
    report = finetuned(*settings, init=init, validated=True)
    # Nothing changes at a learning rate of zero: the first checkpoint stays the best.
    assert (report.steps, report.best_step) == (3, 1)
    again = finetuned(*settings, init=init, validated=True)
    assert again.new_steps == 0


def test_soft_labels_and_two_images(finetuned: Run, init: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    entry = {
        "text": "two things",
        "images": ["image-1", "image-2"],
        "target": {"red": 0.3, "blue": 0.9},
    }
    pairs.write_text((json.dumps(entry) + "\n") * 4)
    task = task_of(head="pair", loss="binary_cross_entropy")
    report = finetuned("train.steps=2", init=init, task=task, given=[pairs], out=tmp_path / "run")
    assert report.loss is not None
    # Eight examples of two labels each, near the loss of a coin.
    assert report.loss == pytest.approx(2 * math.log(2), rel=0.3)


def test_missing_images_are_named(finetuned: Run, annotations: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text(annotations.read_text().replace("image-7.png", "nowhere.png"))
    with pytest.raises(InputError, match=r"nowhere\.png"):
        finetuned(given=[broken], out=tmp_path / "run")


def test_examples_without_labels_are_refused(
    finetuned: Run, annotations: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.jsonl"
    bare.write_text(annotations.read_text() + '{"text": "?", "images": ["image-1"], "target": {}}')
    with pytest.raises(InputError, match="1 of 25 have none, first 24"):
        finetuned(given=[bare], out=tmp_path / "run")


def test_other_annotations_are_refused_on_resume(
    finetuned: Run, annotations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", lambda *a, **k: train_step(*a, **{**k, "stop": True}))
        with pytest.raises(Interrupted):
            finetuned()
    with pytest.raises(InputError, match="24 examples"):
        finetuned(given=[annotations, annotations])


def test_the_batch_must_divide(finetuned: Run) -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size \(8\)"):
        finetuned("train.gradient_accumulation_steps=3")


@pytest.mark.parametrize("exclusive", [True, False])
def test_an_example_of_weight_two_counts_as_two(exclusive: bool) -> None:
    scores, logits = torch.eye(2), torch.tensor([[0.3, 1.0], [2.0, -1.0]])
    twice, weights = torch.tensor([0, 1, 1]), torch.tensor([1.0, 2.0])
    weighted = label_loss(logits, scores, exclusive=exclusive, weights=weights)
    repeated = label_loss(logits[twice], scores[twice], exclusive=exclusive)
    assert weighted.item() == pytest.approx(repeated.item())


def test_steps_follow_from_epochs() -> None:
    config = FinetuneTrainConfig(batch_size=8, epochs=2.0)
    assert (total_steps(config, 20), steps_per_epoch(config, 20)) == (5, 3)
    assert total_steps(FinetuneTrainConfig(batch_size=8, steps=7), 20) == 7
    assert total_steps(config, 1) == 1


def test_layer_decay_and_head_rate_reach_the_optimiser(
    finetuned: Run, init: Path, tmp_path: Path
) -> None:
    settings = ("train.steps=1", "train.layer_decay=0.0", "train.head_lr_multiplier=3.0")
    finetuned(*settings, init=init)
    # The power of zero is one for what lies right under the head: only the pooler learns.
    model = SemVLPForTask.from_pretrained(tmp_path / "last")
    before = SemVLPForPreTraining.from_pretrained(init).semvlp.state_dict()
    changed = {n for n, t in model.semvlp.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {"pooler.weight", "pooler.bias"}


def test_examples_without_images_are_left_out_where_asked(
    finetuned: Callable[..., RunReport], annotations: Path, tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in annotations.read_text().splitlines()]
    for line in lines[:3]:
        line["images"] = ["nowhere.jpg"]
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=r"lacks 1 of 22.*--skip-missing trains without"):
        finetuned("train.steps=1", given=[more], out=tmp_path / "none")
    report = finetuned("train.steps=1", given=[more], out=tmp_path / "run", skip_missing=True)
    assert (report.examples, report.left_out) == (24, 3)
    assert "without 3 of 24 examples, whose images are missing" in report.sentence()
    assert facts(read_run(tmp_path / "run"))["left out"] == "3 examples, whose images are missing"
    assert left_out_of(tmp_path / "run" / "last") == 3
    check_left_out(report, 0.2)
    with pytest.raises(TooManyRefused, match=r"--max-bad allows 5\.0%"):
        check_left_out(report, 0.05)
    # The same command again says it too; and nothing is left out of what is scored.
    again = finetuned("train.steps=1", given=[more], out=tmp_path / "run", skip_missing=True)
    assert (again.new_steps, again.left_out) == (0, 3)
    with pytest.raises(InputError, match="must hold the images of all 24 examples"):
        finetuned(
            "train.steps=1", given=[more], valid=[more], out=tmp_path / "valid", skip_missing=True
        )
