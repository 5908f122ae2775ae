"""Pairs per second of retrieval: lower layers kept, not kept, and two published networks.

`python benchmarks/retrieval.py`: base size with random weights, for speed does not depend on them.
`cached` scores Q captions against K images and includes the lower layers that it keeps. The others
keep nothing from pair to pair, so the first `--pairs` of these pairs tell their rate. Methods take
turns; what is told are medians over the rounds, of rates and of the ratio to `uncached` within a
round, so a busy machine slows all methods alike. Images are of each network's own kind: 36 regions
for SemVLP and LXMERT, 384 x 384 pixels for ViLT, which has no detector before it.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    LxmertConfig,
    LxmertForPreTraining,
    ViltConfig,
    ViltForImageAndTextRetrieval,
)

from semvlp.eval.matching.score_matrix import ReadBlock, cached_passes, tiled, whole_passes
from semvlp.eval.network import Network
from semvlp.model.config import SemVLPConfig
from semvlp.model.packing import PairRegions
from semvlp.model.semvlp import SemVLPForTask
from semvlp.model.tokenizer import train_wordpiece

FEATURES, VOCABULARY = 2048, 30522
Pairs = tuple[Tensor, Tensor]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


Method = Callable[[list[Pairs]], Tensor]
"""Numbers of captions and images, batch by batch -> what is scored, on the CPU."""


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(0)
    every = _batches(arguments)
    few = every[: math.ceil(arguments.pairs / arguments.batch_size)]
    methods = _methods(arguments)
    batches = {name: every if name == "cached" else few for name in methods}
    with torch.inference_mode():
        flops = {name: _flops(methods[name], batches[name]) for name in methods}
        difference = (methods["cached"](few[:1]) - methods["uncached"](few[:1])).abs().max()
        rates: dict[str, list[float]] = {name: [] for name in methods}
        for _ in range(arguments.repeats):
            for name, method in methods.items():
                rates[name].append(_rate(method, batches[name], arguments.device))
    print(
        f"{arguments.preset}, {arguments.captions} captions x {arguments.images} images, "
        f"{arguments.regions} regions, {arguments.device}, {arguments.precision}, "
        f"batch {arguments.batch_size}, {torch.get_num_threads()} threads, "
        f"median of {arguments.repeats}; logits of cached and uncached differ by {difference:.1e}\n"
    )
    print("| method | pairs/s | x uncached | GFLOP a pair |\n| --- | --- | --- | --- |")
    for name, found in rates.items():
        ratios = [mine / plain for mine, plain in zip(found, rates["uncached"], strict=True)]
        print(
            f"| {name} | {statistics.median(found):.1f} | {statistics.median(ratios):.2f} | "
            f"{flops[name]:.2f} |"
        )


def _methods(arguments: argparse.Namespace) -> dict[str, Method]:
    network = _network(arguments)
    texts = _texts(arguments.captions)
    regions = {str(n): _regions(n, arguments.regions) for n in range(arguments.images)}

    def lookup(names: Sequence[str]) -> list[PairRegions]:
        return [regions[name] for name in names]

    def run(reader: Callable[[], ReadBlock]) -> Method:
        def score(batches: list[Pairs]) -> Tensor:
            with network.inference():
                compare = reader()(list(regions))
                return torch.cat([compare(*pairs) for pairs in batches])

        return score

    return {
        "cached": run(lambda: cached_passes(network, texts, lookup)),
        "uncached": run(lambda: whole_passes(network, texts, lookup, "two")),
        "single-stream": run(lambda: whole_passes(network, texts, lookup, "single")),
        "LXMERT (transformers)": _lxmert(texts, list(regions.values()), arguments),
        "ViLT (transformers)": _vilt(texts, arguments),
    }


def _rate(method: Method, batches: list[Pairs], device: str) -> float:
    """Pairs per second."""
    start = time.perf_counter()
    method(batches)
    if device == "cuda":
        torch.cuda.synchronize()
    return sum(len(captions) for captions, _ in batches) / (time.perf_counter() - start)


def _flops(method: Method, batches: list[Pairs]) -> float:
    """Operations of a pair in 10^9, by counting; warms up on the way."""
    with FlopCounterMode(display=False) as counted:
        method(batches)
    flops: int = counted.get_total_flops()
    return flops / sum(len(captions) for captions, _ in batches) / 1e9


def _batches(arguments: argparse.Namespace) -> list[Pairs]:
    """All pairs in the order that an evaluation takes them."""
    every = np.ones((arguments.captions, arguments.images), bool)
    rows, columns = map(torch.from_numpy, tiled(every, arguments.batch_size))
    size = arguments.batch_size
    return list(zip(rows.split(size), columns.split(size), strict=True))


def _network(arguments: argparse.Namespace) -> Network:
    config = SemVLPConfig.preset(arguments.preset).for_task("match", ["mismatch", "match"])
    model = SemVLPForTask(config)
    model.semvlp.to(DTYPES[arguments.precision])
    model.semvlp.pooler.float()
    return Network(
        model=model.requires_grad_(False).to(arguments.device),
        tokenizer=train_wordpiece(["a dog"], 100),
        device=arguments.device,
        batch_size=arguments.batch_size,
    )


def _texts(count: int) -> list[list[int]]:
    """Word pieces of captions: 10 to 18, as in COCO and Flickr30k."""
    random = np.random.default_rng(0)
    lengths = random.integers(10, 19, count)
    return [random.integers(1000, VOCABULARY, length).tolist() for length in lengths]


def _regions(seed: int, count: int) -> PairRegions:
    random = np.random.default_rng(seed)
    corners = np.sort(random.uniform(0, 400, (count, 2, 2)), axis=1)
    features = random.random((count, FEATURES)).astype(np.float16)
    return features, corners.reshape(count, 4).astype(np.float32), 400, 400


def _padded(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    ids = [torch.tensor(text) for text in texts]
    padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)
    return padded, (padded != 0).long()


def _lxmert(
    texts: Sequence[Sequence[int]], regions: Sequence[PairRegions], arguments: argparse.Namespace
) -> Method:
    """Encoder and matching head alone: its word and object predictions are left out."""
    dtype, device = DTYPES[arguments.precision], arguments.device
    whole = LxmertForPreTraining(LxmertConfig()).eval().requires_grad_(False).to(device, dtype)
    encoder, head = whole.lxmert, whole.cls.seq_relationship
    features = torch.from_numpy(np.stack([pair[0] for pair in regions])).to(device, dtype)
    boxes = torch.from_numpy(np.stack([pair[1] for pair in regions]) / 400).to(device, dtype)
    ids, mask = (tensor.to(device) for tensor in _padded(texts))

    def score(captions: Tensor, images: Tensor) -> Tensor:
        pooled = encoder(
            input_ids=ids[captions],
            attention_mask=mask[captions],
            visual_feats=features[images],
            visual_pos=boxes[images],
        ).pooled_output
        scores: Tensor = head(pooled)
        return scores.float().cpu()

    return lambda batches: torch.cat([score(*pairs) for pairs in batches])


def _vilt(texts: Sequence[Sequence[int]], arguments: argparse.Namespace) -> Method:
    dtype, device = DTYPES[arguments.precision], arguments.device
    model = (
        ViltForImageAndTextRetrieval(ViltConfig()).eval().requires_grad_(False).to(device, dtype)
    )
    pixels = torch.rand(arguments.images, 3, 384, 384).to(device, dtype)
    ids, mask = (tensor.to(device) for tensor in _padded(texts))

    def score(captions: Tensor, images: Tensor) -> Tensor:
        logits: Tensor = model(
            input_ids=ids[captions],
            attention_mask=mask[captions],
            pixel_values=pixels[images],
        ).logits
        return logits.float().cpu()

    return lambda batches: torch.cat([score(*pairs) for pairs in batches])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=64)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--regions", type=int, default=36)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=sorted(DTYPES), default="fp32")
    return parser.parse_args()


if __name__ == "__main__":
    main()
