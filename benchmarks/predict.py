"""NLVR2 pairs per second through `eval.predict`, lookup and packing included, beside the bare pass.

`python benchmarks/predict.py`: random weights and random regions in an LMDB of their own, each
image once a pair. `forward alone` is the same batches packed beforehand: the ratio is what reading,
packing and gathering leave of the network's speed. ViLT's head for NLVR2 in transformers takes the
photographs themselves, 384 x 384 pixels, and has no detector before it; it answers `--peer-pairs`
of them. Methods take turns; rates and ratios are medians over the rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import ViltConfig, ViltForImagesAndTextClassification

from semvlp.eval.lookup import RegionLookup
from semvlp.eval.network import Network
from semvlp.eval.predict import probabilities
from semvlp.eval.task import Example, Pass
from semvlp.eval.tasks.table import load_task
from semvlp.model.config import SemVLPConfig
from semvlp.model.packing import PackedBatch, pack
from semvlp.model.semvlp import SemVLPForTask
from semvlp.model.tokenizer import train_wordpiece
from semvlp.shards.dataset.plan import Plan
from semvlp.shards.open import open_store
from semvlp.shards.record import NO_ATTRIBUTE, Regions, Sample
from semvlp.shards.writer import open_writer

FEATURES = 2048
SENTENCE = "the left image contains twice as many dogs as the right image , and at least two run"
VILT = "ViLT (transformers)"
Method = Callable[[], object]
PASSES: tuple[Pass, ...] = ("single", "two")


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(0)
    task, network = load_task("nlvr2"), _network(arguments)
    examples = [
        Example(example_id=str(n), text=SENTENCE, images=(f"i{n}-img0", f"i{n}-img1"))
        for n in range(arguments.pairs)
    ]
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / "lmdb", examples, arguments.regions)
        with open_store(Path(folder) / "lmdb") as store:
            lookup = RegionLookup(store, examples, max_regions=100)
            packed = _packed(network, examples, lookup)
            methods: dict[str, Method] = {}
            for one in PASSES:
                predict = partial(probabilities, network, task, examples, lookup, one)
                methods[f"predict, {one}"] = predict
                methods[f"forward alone, {one}"] = partial(_forward, network, packed, one)
            methods[VILT] = _vilt(arguments)
            rates = _rates(methods, arguments)
    print(
        f"{arguments.preset}, {arguments.pairs} pairs, 2 x {arguments.regions} regions, "
        f"{arguments.device}, batch {arguments.batch_size}, {torch.get_num_threads()} threads, "
        f"median of {arguments.repeats}\n"
    )
    print("| method | pairs/s | x forward alone |\n| --- | --- | --- |")
    for name, found in rates.items():
        alone = rates.get(f"forward alone, {name.removeprefix('predict, ')}")
        ratios = [mine / bare for mine, bare in zip(found, alone or [], strict=bool(alone))]
        told = f"{statistics.median(ratios):.2f}" if ratios else ""
        print(f"| {name} | {statistics.median(found):.1f} | {told} |")


def _rates(methods: dict[str, Method], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Pairs per second of each method in each round; the first round warms up."""
    rates: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(arguments.repeats + 1):
        for name, method in methods.items():
            start = time.perf_counter()
            method()
            if arguments.device == "cuda":
                torch.cuda.synchronize()
            pairs = arguments.peer_pairs if name == VILT else arguments.pairs
            rates[name].append(pairs / (time.perf_counter() - start))
    return {name: found[1:] for name, found in rates.items()}


def _forward(network: Network, batches: list[PackedBatch], mode: Pass) -> None:
    with network.inference():
        for batch in batches:
            network.model(batch.to(network.device), mode).logits.float().cpu()


def _vilt(arguments: argparse.Namespace) -> Method:
    config = ViltConfig(num_images=2, modality_type_vocab_size=3, num_labels=2)
    model = ViltForImagesAndTextClassification(config).eval().to(arguments.device)
    pixels = torch.rand(arguments.peer_pairs, 2, 3, 384, 384).to(arguments.device)
    ids = torch.randint(1000, 30_000, (arguments.peer_pairs, len(SENTENCE.split()) + 2))
    ids = ids.to(arguments.device)

    def run() -> None:
        size = arguments.batch_size
        with torch.inference_mode():
            for text, images in zip(ids.split(size), pixels.split(size), strict=True):
                model(input_ids=text, pixel_values=images).logits.float().cpu()

    return run


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
    parser.add_argument("--peer-pairs", type=int, default=16)
    parser.add_argument("--regions", type=int, default=36)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
