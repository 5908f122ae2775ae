"""How long a run of `semvlp pretrain` waits for data, of which `train.py` tells the share.

    python benchmarks/train_waiting.py --batch-size 256 --workers 0 1 2

tells how many pairs a second could be had at most: made into batches where nobody trains.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from train_networks import (
    ATTRIBUTES,
    FEATURES,
    OBJECTS,
    REGIONS,
    TOKENS,
    Setting,
)

from semvlp.shards.dataset.plan import Plan
from semvlp.shards.open import open_store
from semvlp.shards.record import Question, Regions, Sample, Texts
from semvlp.shards.stream.reader import Reader
from semvlp.shards.stream.stream import Stream
from semvlp.shards.writer import open_writer
from semvlp.train.config import DataConfig, ModelConfig, PretrainConfig
from semvlp.train.data.pretraining import PretrainingCollator
from semvlp.train.data.source import PretrainingBatches
from semvlp.train.data.texts import most_frequent_answers, read_sample, sentences
from semvlp.train.initial_model import make_tokenizer
from semvlp.train.pretrain import pretrain
from semvlp.train.run.files import METRICS, read_lines
from semvlp.train.train_config import TrainConfig

SIDE = 640
"""Pixels of an image."""
WORDS = 2000
"""Different words of the texts."""
IMAGES_PER_SHARD = 1000
EPOCHS = 2
"""Passes over the images in a run."""


def share_waited(setting: Setting, steps: int, threads: int, workers: int = 0) -> float:
    """Share, 0..1, of the time of a step that a run of `steps` waits for data: the median.

    The first step is left out: it waits for the reading process to start.
    """
    with tempfile.TemporaryDirectory() as folder:
        shards, run = Path(folder) / "shards", Path(folder) / "run"
        write_shards(shards, setting.batch_size * max(steps // EPOCHS, 1), setting.seed)
        pretrain([shards], run, config_of(setting, steps, threads, workers))
        return statistics.median(line["waiting"] for line in read_lines(run / METRICS)[1:])


def built_per_second(setting: Setting, steps: int, workers: int) -> float:
    """Measure the pairs a second made into batches where nobody trains: the most a GPU is fed.

    The first steps are left out: in them processes start, and texts are cut into word pieces.
    """
    config = config_of(setting, steps, threads=1)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        shards = Path(folder) / "shards"
        write_shards(shards, IMAGES_PER_SHARD, setting.seed)
        store = stack.enter_context(open_store(shards))
        tokenizer = make_tokenizer(config.model, sentences(read_sample([store])))
        answers = most_frequent_answers(read_sample([store]), config.data.max_answers)
        collator = PretrainingCollator(config, tokenizer, answers)
        stream = Stream([store], seed=setting.seed, batch_size=setting.batch_size)
        pinned = setting.device == "cuda"
        reader = stack.enter_context(Reader(stream))
        source = stack.enter_context(
            PretrainingBatches(reader, collator, workers=workers, pinned=pinned)
        )
        for _ in range(workers + -(-EPOCHS * IMAGES_PER_SHARD // setting.batch_size)):
            source.next_step()
        start = time.perf_counter()
        for _ in range(steps):
            source.next_step()
        return steps * setting.batch_size / (time.perf_counter() - start)


def config_of(setting: Setting, steps: int, threads: int, workers: int = 0) -> PretrainConfig:
    """The settings of such a run; one text an image, so that every pair is read."""
    return PretrainConfig(
        model=ModelConfig(preset=setting.preset, attention_dropout=setting.attention_dropout),
        data=DataConfig(texts_per_image=1, max_text_length=TOKENS[1], workers=workers),
        train=TrainConfig(
            steps=steps,
            save_every=steps,
            log_every=1,
            batch_size=setting.batch_size,
            precision=setting.precision,
            device=setting.device,
            threads=threads,
            compile=setting.compiled,
            seed=setting.seed,
        ),
    )


def write_shards(path: Path, count: int, seed: int) -> None:
    """Tar shards of `count` drawn images, each with a caption and a question."""
    random = np.random.default_rng(seed)
    plan = Plan(
        image_ids=tuple(f"image-{number}" for number in range(count)),
        extractor={"network": "drawn"},
        object_labels=tuple(f"object {number}" for number in range(OBJECTS)),
        attribute_labels=tuple(f"attribute {number}" for number in range(ATTRIBUTES)),
        feature_size=FEATURES,
        samples_per_shard=IMAGES_PER_SHARD,
    )
    with open_writer(path, plan, format="tar") as writer:
        for image_id in plan.image_ids:
            regions = draw_regions(image_id, plan.profile, random)
            writer.write(Sample(key=image_id, regions=regions, texts=draw_texts(random)))
        writer.finish()


def draw_regions(image_id: str, profile: str, random: np.random.Generator) -> Regions:
    """Draw 36-100 regions, as many as the pairs of the comparison have."""
    count = int(random.integers(REGIONS[0], REGIONS[1] + 1))
    corners = random.random((count, 2, 2)) * SIDE
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
    conf = np.sort(random.random(count))[::-1].astype(np.float16)
    return Regions(
        image_id=image_id,
        width=SIDE,
        height=SIDE,
        boxes=boxes,
        proposals=boxes,
        features=random.random((count, FEATURES), np.float32).astype(np.float16),
        object_ids=random.integers(0, OBJECTS, count).astype(np.int16),
        object_conf=conf,
        attribute_ids=random.integers(0, ATTRIBUTES, count).astype(np.int16),
        attribute_conf=conf,
        profile=profile,
    )


def draw_texts(random: np.random.Generator) -> Texts:
    """A caption and a question of 8-24 tokens, [CLS] and [SEP] included."""
    caption, question = (
        " ".join(f"word{number}" for number in random.integers(0, WORDS, length - 2))
        for length in random.integers(TOKENS[0], TOKENS[1] + 1, 2)
    )
    answer = f"word{int(random.integers(0, WORDS))}"
    return Texts(
        captions=(caption,), questions=(Question(question=question, answers={answer: 1.0}),)
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given = parser.parse_args()
    setting = Setting(
        preset="tiny",
        device=given.device,
        precision="fp32",
        batch_size=given.batch_size,
        attention_dropout=0.0,
        compiled=False,
        seed=0,
    )
    for workers in given.workers:
        pace = built_per_second(setting, given.steps, workers)
        print(f"data.workers = {workers}: {pace:,.0f} pairs/s made into batches")


if __name__ == "__main__":
    main()
