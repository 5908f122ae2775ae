"""Fine-tuning: every head through the one loop, validation, early stop, exact resume."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, GPT2Config

from semvlp.errors import ConfigError, InputError, Interrupted
from semvlp.eval.task import Answer, Example, ExampleId, Head, Loss, Task
from semvlp.eval.tasks import load_task
from semvlp.model.semvlp import SemVLPForPreTraining, SemVLPForTask
from semvlp.model.tokenizer import load_tokenizer
from semvlp.train import loop
from semvlp.train.checkpoint import read_state
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.finetune import finetune, steps_per_epoch, task_loss, total_steps
from semvlp.train.log import METRICS, VALIDATION, read_lines
from semvlp.train.pretrain import pretrain
from semvlp.train.seeds import finetune_seeds
from semvlp.train.step import StepFound, train_step
from semvlp.train.task_examples import TaskTargets
from semvlp.train.train_config import FinetuneTrainConfig

Config = Callable[..., FinetuneConfig]
COLOURS = ["blue", "green", "red"]


@dataclass
class Colours:
    """What colour the first thing of a picture has: a task of our own, read from JSON lines."""

    name = "colours"
    head: Head = "pooled"
    loss: Loss = "cross_entropy"
    metric = "accuracy"

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
    return Colours(**fields)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory, sample_of: Callable[..., Any]) -> Path:
    """A sentence that tells the colour for each of the 24 images, spelt with an extension."""
    path = tmp_path_factory.mktemp("finetune") / "colours.jsonl"
    entries = []
    for number in range(24):
        texts = sample_of(number).texts
        answers = texts.questions[0].answers
        target = {max(answers, key=answers.get): 1.0}
        images = [f"image-{number}.png"]
        entries.append({"text": texts.captions[1], "images": images, "target": target})
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


@pytest.fixture(scope="module")
def init(
    shards: Path,
    small: Callable[..., PretrainConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A pre-training checkpoint."""
    run = tmp_path_factory.mktemp("init")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semvlp.train.pretrain.write_report", lambda run: None)
        pretrain([shards], run, small("train.steps=2"))
    return run / "last"


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semvlp.train.finetune.write_report", lambda run: None)


def losses(run: Path) -> list[tuple[Any, ...]]:
    kept = ("step", "mode", "loss", "loss_task", "lr", "grad_norm")
    return [tuple(entry[name] for name in kept) for entry in read_lines(run / METRICS)]


def test_it_learns_validates_and_keeps_the_best(
    annotations: Path, shards: Path, init: Path, small_task: Config, tmp_path: Path
) -> None:
    config = small_task("train.steps=60", "train.save_every=20", "train.warmup=0.3")
    report = finetune(task_of(), [annotations], shards, init, tmp_path, config, valid=[annotations])
    scores = {line["step"]: line["accuracy"] for line in read_lines(tmp_path / VALIDATION)}
    assert list(scores) == [20, 40, 60]
    assert scores[60] == report.scores["accuracy"] > 80
    state = read_state(tmp_path / "last")
    assert state.best_score == max(scores.values())
    assert read_state(tmp_path / "best").step == state.best_step
    assert scores[state.best_step or 0] == state.best_score
    assert {line["mode"] for line in read_lines(tmp_path / METRICS)} == {"single", "two"}
    assert SemVLPForTask.from_pretrained(tmp_path / "best").config.labels == COLOURS


def test_the_encoder_comes_from_the_checkpoint(
    annotations: Path, shards: Path, init: Path, small_task: Config, tmp_path: Path
) -> None:
    config = small_task("train.steps=1", "train.lr=0.0", "model.dropout=0.25")
    finetune(task_of(), [annotations], shards, init, tmp_path, config)
    model = SemVLPForTask.from_pretrained(tmp_path / "last")
    before = SemVLPForPreTraining.from_pretrained(init)
    for name, tensor in before.semvlp.state_dict().items():
        assert torch.equal(model.semvlp.state_dict()[name], tensor), name
    assert model.config.hidden_dropout_prob == 0.25


def test_from_nothing(annotations: Path, shards: Path, small_task: Config, tmp_path: Path) -> None:
    report = finetune(task_of(), [annotations], shards, None, tmp_path, small_task("train.steps=2"))
    assert (report.steps, report.pairs) == (2, 16)
    assert SemVLPForTask.from_pretrained(tmp_path / "last").config.num_hidden_layers == 3


def test_what_the_run_read_is_written_down(
    annotations: Path, shards: Path, init: Path, small_task: Config, tmp_path: Path
) -> None:
    config = small_task("train.steps=1")
    finetune(task_of(), [annotations], shards, init, tmp_path, config, valid=[annotations])
    assert json.loads((tmp_path / "inputs.json").read_text()) == {
        "task": "colours",
        "init": str(init),
        "annotations": [str(annotations)],
        "valid": [str(annotations)],
        "shards": str(shards),
    }
    with pytest.raises(ConfigError, match="init must be"):
        finetune(task_of(), [annotations], shards, None, tmp_path, config)


def test_a_stopped_run_goes_on_with_the_same_losses(
    annotations: Path,
    shards: Path,
    init: Path,
    small_task: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = small_task("train.save_every=4", "data.cache_images=10")
    check_resume(task_of(), annotations, shards, init, config, tmp_path, monkeypatch)


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

    def stopped(*args: Any, **kwargs: Any) -> StepFound:
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


def test_early_stop(
    annotations: Path,
    shards: Path,
    init: Path,
    small_task: Config,
    tmp_path: Path,
) -> None:
    config = small_task("train.steps=9", "train.save_every=1", "train.patience=2", "train.lr=0.0")
    report = finetune(task_of(), [annotations], shards, init, tmp_path, config, valid=[annotations])
    # Nothing changes at a learning rate of zero: the first checkpoint stays the best.
    assert (report.steps, report.best_step) == (3, 1)
    again = finetune(task_of(), [annotations], shards, init, tmp_path, config, valid=[annotations])
    assert again.new_steps == 0


def test_soft_labels_and_two_images(
    annotations: Path, shards: Path, init: Path, small_task: Config, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    entry = {
        "text": "two things",
        "images": ["image-1", "image-2"],
        "target": {"red": 0.3, "blue": 0.9},
    }
    pairs.write_text((json.dumps(entry) + "\n") * 4)
    task = task_of(head="pair", loss="binary_cross_entropy")
    report = finetune(task, [pairs], shards, init, tmp_path / "run", small_task("train.steps=2"))
    assert report.loss is not None
    # Eight examples of two labels each, near the loss of a coin.
    assert report.loss == pytest.approx(2 * math.log(2), rel=0.3)


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
        "train.save_every=4", f"retrieval.negatives={negatives}", "retrieval.replaced=either"
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


def test_missing_images_are_named(
    annotations: Path, shards: Path, small_task: Config, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text(annotations.read_text().replace("image-7.png", "nowhere.png"))
    with pytest.raises(InputError, match=r"nowhere\.png"):
        finetune(task_of(), [broken], shards, None, tmp_path / "run", small_task())


def test_examples_without_labels_are_refused(
    annotations: Path, shards: Path, small_task: Config, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.jsonl"
    bare.write_text(annotations.read_text() + '{"text": "?", "images": ["image-1"], "target": {}}')
    with pytest.raises(InputError, match="1 of 25 have none, first 24"):
        finetune(task_of(), [bare], shards, None, tmp_path / "run", small_task())


def test_other_annotations_are_refused_on_resume(
    annotations: Path,
    shards: Path,
    small_task: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", lambda *a, **k: train_step(*a, **{**k, "stop": True}))
        with pytest.raises(Interrupted):
            finetune(task_of(), [annotations], shards, None, tmp_path, small_task())
    twice = [annotations, annotations]
    with pytest.raises(InputError, match="24 examples"):
        finetune(task_of(), twice, shards, None, tmp_path, small_task())


def test_the_batch_must_divide(
    annotations: Path, shards: Path, small_task: Config, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size \(8\)"):
        finetune(task_of(), [annotations], shards, None, tmp_path, small_task("train.accumulate=3"))


def test_cross_entropy_leaves_unknown_labels_out() -> None:
    scores = torch.tensor([[0.5, 0.5], [0.0, 0.0]])
    loss = task_loss(torch.zeros(2, 2), TaskTargets(scores=scores, loss="cross_entropy"))
    assert loss.item() == pytest.approx(math.log(2))


def test_binary_cross_entropy_is_summed_over_labels() -> None:
    scores = torch.tensor([[0.3, 0.0, 1.0]])
    loss = task_loss(torch.zeros(1, 3), TaskTargets(scores=scores, loss="binary_cross_entropy"))
    assert loss.item() == pytest.approx(3 * math.log(2))


def test_steps_follow_from_epochs() -> None:
    config = FinetuneTrainConfig(batch_size=8, epochs=2.0)
    assert (total_steps(config, 20), steps_per_epoch(config, 20)) == (5, 3)
    assert total_steps(FinetuneTrainConfig(batch_size=8, steps=7), 20) == 7
    assert total_steps(config, 1) == 1


def test_layer_decay_and_head_rate_reach_the_optimiser(
    annotations: Path, shards: Path, init: Path, small_task: Config, tmp_path: Path
) -> None:
    config = small_task("train.steps=1", "train.layer_decay=0.0", "train.head_lr=3.0")
    finetune(task_of(), [annotations], shards, init, tmp_path, config)
    # The power of zero is one for what lies right under the head: only the pooler learns.
    model = SemVLPForTask.from_pretrained(tmp_path / "last")
    before = SemVLPForPreTraining.from_pretrained(init).semvlp.state_dict()
    changed = {n for n, t in model.semvlp.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {"pooler.weight", "pooler.bias"}


def test_a_bert_may_be_the_start(
    annotations: Path, shards: Path, init: Path, small_task: Config, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(str(init))
    bert = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=512,
        )
    )
    bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    config = small_task("train.steps=1", "train.lr=0.0")
    finetune(task_of(), [annotations], shards, str(tmp_path / "bert"), tmp_path / "run", config)
    model = SemVLPForTask.from_pretrained(tmp_path / "run" / "last")
    ours = model.semvlp.text_embeddings.word_embeddings.weight
    assert torch.equal(ours, bert.embeddings.word_embeddings.weight)
    told = json.loads((tmp_path / "run" / "inputs.json").read_text())
    assert told["init"] == str(tmp_path / "bert")


def test_a_name_on_the_hub_is_fetched(
    annotations: Path,
    shards: Path,
    init: Path,
    small_task: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        assert not any("bin" in pattern or "pt" in pattern for pattern in allow_patterns)
        asked.append(name)
        return str(init)

    monkeypatch.setattr("semvlp.train.task_model.snapshot_download", fetch)
    config = small_task("train.steps=1", "train.lr=0.0")
    finetune(task_of(), [annotations], shards, "someone/semvlp", tmp_path, config)
    assert asked == ["someone/semvlp"]
    assert json.loads((tmp_path / "inputs.json").read_text())["init"] == "someone/semvlp"


def test_what_is_no_start_says_so(
    annotations: Path,
    shards: Path,
    small_task: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(name: str, **options: Any) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("semvlp.train.task_model.snapshot_download", refuse)
    config = small_task("train.steps=1")
    with pytest.raises(InputError, match="no folder here, and the Hub says: no connection"):
        finetune(task_of(), [annotations], shards, "some/name", tmp_path / "a", config)
    GPT2Config().save_pretrained(tmp_path / "gpt")
    with pytest.raises(ConfigError, match="gpt2 model"):
        finetune(task_of(), [annotations], shards, tmp_path / "gpt", tmp_path / "b", config)


def test_several_seeds_give_mean_and_deviation(
    annotations: Path, shards: Path, init: Path, small_task: Config, tmp_path: Path
) -> None:
    config = small_task("train.steps=8", "train.save_every=4", "train.seed=5")

    def one(seeded: FinetuneConfig, folder: Path) -> Any:
        task, files = task_of(), [annotations]
        return finetune(task, files, shards, init, folder, seeded, valid=files)

    report = finetune_seeds(one, config, tmp_path, count=3, metric="accuracy")
    found = []
    for seed in (5, 6, 7):
        lines = read_lines(tmp_path / f"seed-{seed}" / VALIDATION)
        found.append(max(line["accuracy"] for line in lines))
    spread = report.scores["accuracy"]
    assert spread.values == pytest.approx(tuple(found))
    assert spread.mean == pytest.approx(sum(found) / 3)
    variance = sum((value - spread.mean) ** 2 for value in found) / 2
    assert spread.deviation == pytest.approx(math.sqrt(variance))
    assert (tmp_path / "best").resolve().parts[-3] == f"seed-{5 + found.index(max(found))}"
    told = json.loads((tmp_path / "seeds.json").read_text())
    assert told["scores"]["accuracy"]["mean"] == pytest.approx(spread.mean)
    assert "±" in report.sentence()
    # The same command again has nothing left to do and says the same.
    assert finetune_seeds(one, config, tmp_path, count=3, metric="accuracy") == report


def test_one_seed_is_no_spread(small_task: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        finetune_seeds(lambda *_: None, small_task(), tmp_path, count=1, metric="accuracy")  # type: ignore[arg-type, return-value]
