"""NLVR2 pairs per second through `eval.predict`, lookup and packing included, beside the bare pass.

`python benchmarks/predict.py`: random weights and random regions in an LMDB of their own, each
image once a pair. `forward alone` is the same batches packed beforehand: the ratio is what reading,
packing and gathering leave of the network's speed.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from semvlp.eval.lookup import RegionLookup
from semvlp.eval.network import Network, Pass
from semvlp.eval.predict import probabilities
from semvlp.eval.task import Example
from semvlp.eval.tasks import load_task
from semvlp.model.config import SemVLPConfig
from semvlp.model.packing import PackedBatch, pack
from semvlp.model.semvlp import SemVLPForTask
from semvlp.model.tokenizer import train_wordpiece
from semvlp.shards.plan import Plan
from semvlp.shards.record import NO_ATTRIBUTE, Regions, Sample
from semvlp.shards.store import open_store
from semvlp.shards.writer import open_writer

FEATURES = 2048
SENTENCE = "the left image contains twice as many dogs as the right image , and at least two run"
PASSES: tuple[Pass, ...] = ("single", "two")


def main() -> None:
    arguments = _arguments()
    task, network = load_task("nlvr2"), _network(arguments)
    examples = [
        Example(example_id=str(n), text=SENTENCE, images=(f"i{n}-img0", f"i{n}-img1"))
        for n in range(arguments.pairs)
    ]
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / "lmdb", examples, arguments.regions)
        with open_store(Path(folder) / "lmdb") as store:
            lookup = RegionLookup(store, examples, max_regions=100)
            batches = _packed(network, examples, lookup)
            found: dict[str, list[float]] = {}
            for _ in range(arguments.repeats + 1):  # the first round warms up
                for mode in PASSES:
                    start = time.perf_counter()
                    probabilities(network, task, examples, lookup, mode)
                    found.setdefault(f"predict, {mode}", []).append(time.perf_counter() - start)
                    seconds = _forward(network, batches, mode)
                    found.setdefault(f"forward alone, {mode}", []).append(seconds)
    print(
        f"{arguments.pairs} pairs, 2 x {arguments.regions} regions, {arguments.preset}, "
        f"{arguments.device}, batch {arguments.batch_size}, {torch.get_num_threads()} threads, "
        f"median of {arguments.repeats}"
    )
    for name, seconds_of in found.items():
        median = statistics.median(seconds_of[1:])
        print(f"{name:<24} {arguments.pairs / median:10.1f} pairs/s")
    for mode in PASSES:
        whole, bare = (
            statistics.median(found[f"{n}, {mode}"][1:]) for n in ("predict", "forward alone")
        )
        print(f"{mode}: {bare / whole:.2f} of the speed of the network alone")


def _forward(network: Network, batches: list[PackedBatch], mode: Pass) -> float:
    start = time.perf_counter()
    with network.inference():
        for batch in batches:
            network.model(batch.to(network.device), mode).float().cpu()
    return time.perf_counter() - start


def _packed(network: Network, examples: list[Example], lookup: RegionLookup) -> list[PackedBatch]:
    size = network.batch_size
    groups = [examples[start : start + size] for start in range(0, len(examples), size)]
    return [
        pack(
            network.encode([example.text for example in group for _ in example.images]),
            lookup([name for example in group for name in example.images]),
        )
        for group in groups
    ]


def _network(arguments: argparse.Namespace) -> Network:
    config = SemVLPConfig.preset(arguments.preset).for_task("pair", ["False", "True"])
    return Network(
        model=SemVLPForTask(config).to(arguments.device),
        tokenizer=train_wordpiece([SENTENCE], 200),
        device=arguments.device,
        batch_size=arguments.batch_size,
    )


def _write(path: Path, examples: list[Example], count: int) -> None:
    names = [name for example in examples for name in example.images]
    plan = Plan(
        image_ids=tuple(names),
        extractor={"detector": "random numbers"},
        object_labels=("thing",),
        attribute_labels=(),
        feature_size=FEATURES,
        samples_per_shard=1000,
    )
    with open_writer(path, plan, format="lmdb") as writer:
        for seed, name in enumerate(names):
            writer.write(Sample(key=name, regions=_regions(name, seed, count, plan.profile)))
        writer.finish()


def _regions(name: str, seed: int, count: int, profile: str) -> Regions:
    random = np.random.default_rng(seed)
    boxes = np.sort(random.uniform(0, 400, (count, 2, 2)), axis=1).reshape(count, 4)
    return Regions(
        image_id=name,
        width=400,
        height=400,
        boxes=boxes.astype(np.float32),
        proposals=boxes.astype(np.float32),
        features=random.random((count, FEATURES)).astype(np.float16),
        object_ids=np.zeros(count, np.int16),
        object_conf=np.ones(count, np.float16),
        attribute_ids=np.full(count, NO_ATTRIBUTE, np.int16),
        attribute_conf=np.zeros(count, np.float16),
        profile=profile,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--regions", type=int, default=36)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
