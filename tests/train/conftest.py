"""A small world to train on: 24 images of coloured things, with captions and questions."""

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from semvlp import settings
from semvlp.eval.task import Task
from semvlp.model.tokenizer import train_wordpiece
from semvlp.shards.dataset.plan import Plan
from semvlp.shards.open import open_store
from semvlp.shards.record import NO_ATTRIBUTE, Question, Regions, Sample, Texts
from semvlp.shards.stores.store import Store
from semvlp.shards.writer import open_writer
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.data.texts import read_sample, sentences
from semvlp.train.finetune import finetune
from semvlp.train.pretrain import pretrain
from semvlp.train.run.report import RunReport
from tests.train.finetuning import task_of

NUM_IMAGES = 24
FEATURE_SIZE = 16
THINGS = ("circle", "square", "triangle", "star")
COLOURS = ("red", "green", "blue")
SMALL = (
    "model.preset=tiny",
    "train.device=cpu",
    "train.precision=fp32",
    "train.lr=1e-3",
    "train.log_every=1",
    "train.batch_size=8",
)


def _sample_of(number: int, *, with_texts: bool = True, profile: str = "") -> Sample:
    """Image `number`: its regions and what is said of the first two."""
    random = np.random.default_rng(number)
    count = int(random.integers(2, 6))
    things = random.integers(0, len(THINGS), count)
    colours = random.integers(0, len(COLOURS), count)
    low = random.uniform(0, 60, (count, 2))
    boxes = np.concatenate([low, low + random.uniform(10, 39, (count, 2))], axis=1)
    features = np.zeros((count, FEATURE_SIZE))
    features[np.arange(count), things] = 1
    features[np.arange(count), 8 + colours] = 1
    names = [f"{COLOURS[c]} {THINGS[t]}" for c, t in zip(colours, things, strict=True)]
    texts = Texts(
        captions=(f"a {names[0]} and a {names[1]} in picture {number}", f"there is a {names[0]}"),
        questions=(
            Question(
                question=f"what colour is the {THINGS[things[0]]}?",
                answers={COLOURS[colours[0]]: 1.0, "grey": 0.3},
                question_id=number,
            ),
        ),
    )
    return Sample(
        key=f"image-{number}",
        regions=Regions(
            image_id=f"image-{number}",
            width=100,
            height=100,
            boxes=boxes.astype(np.float32),
            proposals=boxes.astype(np.float32),
            features=features.astype(np.float16),
            object_ids=things.astype(np.int16),
            object_conf=np.linspace(1, 0.5, count).astype(np.float16),
            attribute_ids=np.where(np.arange(count) % 3 == 2, NO_ATTRIBUTE, colours).astype(
                np.int16
            ),
            attribute_conf=np.full(count, 0.5, np.float16),
            profile=profile,
        ),
        texts=texts if with_texts else Texts(),
    )


def _write_store(
    path: Path, numbers: Sequence[int], *, with_texts: bool = True, **extractor: Any
) -> Path:
    plan = Plan(
        image_ids=tuple(f"image-{number}" for number in numbers),
        extractor={"network": "drawn", **extractor},
        object_labels=THINGS,
        attribute_labels=COLOURS,
        feature_size=FEATURE_SIZE,
        samples_per_shard=10,
    )
    with open_writer(path, plan, format="tar") as writer:
        for number in numbers:
            writer.write(_sample_of(number, with_texts=with_texts, profile=plan.profile))
        writer.finish()
    return path


@pytest.fixture(scope="session")
def sample_of() -> Callable[..., Sample]:
    """(number) -> the sample of an image."""
    return _sample_of


@pytest.fixture(scope="session")
def write_store() -> Callable[..., Path]:
    """(path, numbers, with_texts=True, ...) -> tar shards of those images; the rest is profile."""
    return _write_store


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the whole small world."""
    return _write_store(tmp_path_factory.mktemp("train") / "shards", range(NUM_IMAGES))


@pytest.fixture(scope="session")
def small() -> Callable[..., PretrainConfig]:
    """A config of pre-training that runs in a second, with `a.b=c` settings on top."""

    def build(*overrides: str) -> PretrainConfig:
        return settings.load(
            PretrainConfig, None, [*SMALL, "train.steps=8", "train.save_every=100", *overrides]
        )

    return build


@pytest.fixture(scope="session")
def small_task() -> Callable[..., FinetuneConfig]:
    """A config of fine-tuning that runs in a second, with `a.b=c` settings on top."""

    def build(*overrides: str) -> FinetuneConfig:
        return settings.load(FinetuneConfig, None, [*SMALL, "train.steps=8", *overrides])

    return build


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def init(
    shards: Path,
    small: Callable[..., PretrainConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A pre-training checkpoint."""
    run = tmp_path_factory.mktemp("init")
    pretrain([shards], run, small("train.steps=2"))
    return run / "last"


@pytest.fixture
def finetuned(
    annotations: Path, shards: Path, small_task: Callable[..., FinetuneConfig], tmp_path: Path
) -> Callable[..., RunReport]:
    """(settings, init=None, out=tmp_path, ...) -> the report of a fine-tuning of colours."""

    def run(
        *overrides: str,
        init: Path | str | None = None,
        out: Path = tmp_path,
        task: Task | None = None,
        given: Sequence[Path] = (annotations,),
        validated: bool = False,
        valid: Sequence[Path] = (),
        **more: Any,
    ) -> RunReport:
        valid, config = [annotations] if validated else valid, small_task(*overrides)
        return finetune(task or task_of(), given, shards, init, out, config, valid=valid, **more)

    return run


@pytest.fixture(scope="module", autouse=True)
def no_report() -> Iterator[None]:
    """Runs without their page: drawing curves takes longer than the trainings here."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("pretrain", "finetune", "detector.train"):
            patch.setattr(f"semvlp.train.{module}.write_report", lambda run: run)
        yield


@pytest.fixture(scope="session")
def store(shards: Path) -> Iterator[Store]:
    with open_store(shards) as opened:
        yield opened


@pytest.fixture(scope="session")
def tokenizer(store: Store) -> PreTrainedTokenizerFast:
    return train_wordpiece(sentences(read_sample([store])), 300)


@pytest.fixture
def dispositions() -> Iterator[None]:
    """Set what Python does with both signals, whatever the tests were started with."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
