"""Small annotation files in the official layouts, regions for them and tiny networks."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semvlp.eval.network import Network
from semvlp.eval.tasks.table import load_task
from semvlp.model.config import SemVLPConfig
from semvlp.model.semvlp import SemVLPForTask
from semvlp.model.tokenizer import train_wordpiece
from semvlp.shards.dataset.manifest import Plan
from semvlp.shards.record import Regions, Sample
from semvlp.shards.writer import open_writer


class Make:
    """Documents and lines of annotation files."""

    @staticmethod
    def vqa(answers: dict[int, list[str]], kinds: dict[int, str] | None = None) -> dict[str, Any]:
        """Question id -> its ten answers, as one document that holds questions and annotations."""
        return {
            "questions": [
                {"question_id": key, "image_id": key // 1000, "question": f"what is {key}?"}
                for key in answers
            ],
            "annotations": [
                {
                    "question_id": key,
                    "image_id": key // 1000,
                    "question_type": "what",
                    "answer_type": (kinds or {}).get(key, "other"),
                    "multiple_choice_answer": max(given, key=given.count),
                    "answers": [
                        {"answer": text, "answer_id": n} for n, text in enumerate(given, 1)
                    ],
                }
                for key, given in answers.items()
            ],
        }

    @staticmethod
    def gqa(answer: str, **changes: Any) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "question": "what is it?",
            "imageId": "n1",
            "isBalanced": True,
            "answer": answer,
            "types": {"structural": "query", "semantic": "attr", "detailed": "attr"},
            "groups": {"global": "thing", "local": None},
            "entailed": [],
        }
        return {**entry, **changes}

    @staticmethod
    def nlvr2(identifier: str, label: str | None = "True", urls: str = "ab") -> dict[str, Any]:
        record = {
            "identifier": identifier,
            "sentence": "There are two dogs.",
            "left_url": urls[0],
            "right_url": urls[1],
        }
        return record if label is None else {**record, "label": label}

    @staticmethod
    def nlvr(identifier: str, label: str = "true") -> dict[str, Any]:
        return {"identifier": identifier, "sentence": "There is a box.", "label": label}

    @staticmethod
    def snli_ve(pair: str, label: str = "neutral", field: str = "Flickr30K_ID") -> dict[str, Any]:
        return {"pairID": pair, "sentence2": f"{pair[0]} dog.", "gold_label": label, field: "1.jpg"}

    @staticmethod
    def row(image: str, label: str) -> dict[str, Any]:
        return {"id": image, "image": image, "text": "what is it?", "label": label}

    @staticmethod
    def grounding(image: str, text: str = "a b dog") -> dict[str, Any]:
        return {"img_path": image, "expression": text, "bbox": [10, 10, 40, 40]}

    @staticmethod
    def karpathy(captions: dict[str, int], splits: dict[str, str] | None = None) -> dict[str, Any]:
        """File name -> number of its captions; caption ids count up from 0 over all images."""
        images, next_id = [], 0
        for name, count in captions.items():
            ids = range(next_id, next_id + count)
            sentences = [{"sentid": n, "raw": f"caption {n}", "tokens": []} for n in ids]
            split = (splits or {}).get(name, "test")
            images.append({"filename": name, "split": split, "sentences": sentences})
            next_id += count
        return {"images": images, "dataset": "toy"}


@pytest.fixture(scope="session")
def make() -> type[Make]:
    return Make


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """`save("dev.json", value)` writes JSON, or JSON lines where `value` is a list."""

    def _save(name: str, value: Any) -> Path:
        path = tmp_path / name
        if isinstance(value, list):
            path.write_text("".join(f"{json.dumps(line)}\n" for line in value))
        else:
            path.write_text(json.dumps(value))
        return path

    return _save


@pytest.fixture
def official(save: Callable[..., Path]) -> dict[str, Path]:
    """A small labelled file of every task, by task name."""
    pairs = ["dev-1-0-0", "dev-1-1-0", "dev-2-0-0"]
    return {
        "vqa": save("vqa.json", Make.vqa({1000: ["yes"] * 10, 2000: ["2"] * 6 + ["3"] * 4})),
        "gqa": save("gqa.json", {"01": Make.gqa("red"), "1": Make.gqa("blue", imageId="a")}),
        "nlvr2": save("nlvr2.json", [Make.nlvr2(pair) for pair in pairs]),
        "nlvr": save("dev.json", [Make.nlvr(sentence) for sentence in ("1-0", "1-1", "2-0")]),
        "snli-ve": save("ve.jsonl", [Make.snli_ve(pair) for pair in ("a.jpg#0r1n", "b.jpg#0r1n")]),
        "retrieval": save("karpathy.json", Make.karpathy({"a.jpg": 2, "b.jpg": 2})),
        "refcoco": save("refcoco.jsonl", [Make.grounding(name) for name in ("a.jpg", "b.jpg")]),
        "table": save("table.jsonl", [Make.row("a.jpg", "yes"), Make.row("b.jpg", "no")]),
    }


FEATURE_SIZE = 8
SENTENCES = ["what is it?", "There are two dogs.", "There is a box.", "a b dog.", "caption 0123"]


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Regions of every image that `official` speaks of, and of more."""
    sentences = [f"dev-{n}-{k}" for n in ("1-0", "1-1", "2-0") for k in range(6)]
    pairs = [f"dev-{n}-img{k}" for n in ("1-0", "1-1", "2-0") for k in range(2)]
    names = ["1", "2", "n1", "a", "b", *sentences, *pairs]
    return _write_shards(tmp_path_factory.mktemp("shards"), names)


@pytest.fixture(scope="session")
def write_shards() -> Callable[[Path, Sequence[str]], Path]:
    """(directory, image names) -> shards with a few random regions of each."""
    return _write_shards


def _write_shards(out: Path, names: Sequence[str]) -> Path:
    plan = Plan(
        image_ids=tuple(names),
        extractor={"detector": "random numbers"},
        object_labels=("thing",),
        attribute_labels=(),
        feature_size=FEATURE_SIZE,
        samples_per_shard=1000,
    )
    with open_writer(out, plan, format="tar") as writer:
        for seed, name in enumerate(names):
            writer.write(_sample(name, plan.profile, np.random.default_rng(seed)))
        writer.finish()
    return out


def _sample(name: str, profile: str, random: np.random.Generator) -> Sample:
    count = int(random.integers(2, 7))
    corners = random.uniform(0, 50, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(1, 50, (count, 2))], 1)
    regions = Regions(
        image_id=name,
        width=100,
        height=100,
        boxes=boxes.astype(np.float32),
        proposals=boxes.astype(np.float32),
        features=random.normal(size=(count, FEATURE_SIZE)).astype(np.float16),
        object_ids=np.zeros(count, np.int16),
        object_conf=np.ones(count, np.float16),
        attribute_ids=np.full(count, -1, np.int16),
        attribute_conf=np.zeros(count, np.float16),
        profile=profile,
    )
    return Sample(key=name, regions=regions)


@pytest.fixture
def network(official: dict[str, Path]) -> Callable[..., Network]:
    """`network("nlvr2", batch_size=4)` is a tiny random network with the head of that task."""

    def _network(
        name: str,
        *,
        batch_size: int = 4,
        feature_size: int = FEATURE_SIZE,
        annotations: Sequence[Path] = (),
        **fields: Any,
    ) -> Network:
        task = load_task(name)
        labels = task.labels(task.read(annotations or [official[name]], split="test"))
        tokenizer = train_wordpiece(SENTENCES, 100)
        # Large initial weights, so that answers differ between examples and between passes; through
        # more blocks that cross, they would be as good as certain.
        config = SemVLPConfig.preset(
            "tiny",
            vocab_size=len(tokenizer),
            region_feature_size=feature_size,
            hidden_size=16,
            intermediate_size=32,
            initializer_range=0.5,
            num_objects=0,
            num_attributes=0,
            **{"cross_layers": 1, **fields},
        ).for_task(task.head, labels)
        torch.manual_seed(0)
        return Network(
            model=SemVLPForTask(config), tokenizer=tokenizer, device="cpu", batch_size=batch_size
        )

    return _network


@pytest.fixture
def checkpoint(network: Callable[..., Network], tmp_path: Path) -> Callable[..., Path]:
    """`checkpoint("nlvr2")` saves a tiny random network and returns its directory."""

    def _save(name: str, **options: Any) -> Path:
        path = tmp_path / f"checkpoint-{name}"
        net = network(name, **options)
        net.model.save_pretrained(path)
        net.tokenizer.save_pretrained(path)
        return path

    return _save
