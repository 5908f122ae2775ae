"""Pairs per second of retrieval: lower layers kept, not kept, and two published networks.

`python benchmarks/retrieval.py`: base size with random weights, for speed does not depend on them.
Q captions are scored against K images; rounds are interleaved and medians are compared, so a busy
machine slows all methods alike. `cached` includes the lower layers that it keeps. The networks of
transformers keep nothing from pair to pair, so the first pairs tell their rate. Images are of each
network's own kind: 36 regions for SemVLP and LXMERT, 384 x 384 pixels for ViLT, which has no
detector before it.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from transformers import (
    LxmertConfig,
    LxmertForPreTraining,
    ViltConfig,
    ViltForImageAndTextRetrieval,
)

from semvlp.eval.matrix import Compare, ReadBlock, kept_halves, whole_passes
from semvlp.eval.network import Network
from semvlp.model.config import SemVLPConfig
from semvlp.model.packing import PairRegions
from semvlp.model.semvlp import SemVLPForTask
from semvlp.model.tokenizer import train_wordpiece

FEATURES, VOCABULARY = 2048, 30522
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(0)
    methods = _methods(arguments)
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    with torch.inference_mode():
        for _ in range(arguments.repeats + 1):  # the first round warms up
            for name, method in methods.items():
                seconds[name].append(_timed(method, arguments.device))
    rates = {
        name: _pairs(name, arguments) / statistics.median(found[1:])
        for name, found in seconds.items()
    }
    print(
        f"{arguments.captions} captions x {arguments.images} images, {arguments.regions} regions, "
        f"{arguments.device}, {arguments.precision}, batch {arguments.batch_size}, "
        f"{torch.get_num_threads()} threads, median of {arguments.repeats}"
    )
    for name, rate in rates.items():
        print(f"{name:<22} {rate:10.1f} pairs/s {rate / rates['uncached']:6.2f} x uncached")


def _pairs(name: str, arguments: argparse.Namespace) -> int:
    """How many pairs a method scores in a round."""
    every = int(arguments.captions * arguments.images)
    return min(every, arguments.peer_pairs) if "transformers" in name else every


def _methods(arguments: argparse.Namespace) -> dict[str, Callable[[], object]]:
    network = _network(arguments)
    texts = _texts(arguments.captions)
    regions = {str(n): _regions(n, arguments.regions) for n in range(arguments.images)}

    def lookup(names: Sequence[str]) -> list[PairRegions]:
        return [regions[name] for name in names]

    def run(reader: Callable[[], ReadBlock]) -> None:
        with network.inference():
            _compare_all(reader()(list(regions)), arguments)

    return {
        "cached": lambda: run(lambda: kept_halves(network, texts, lookup)),
        "uncached": lambda: run(lambda: whole_passes(network, texts, lookup, "two")),
        "single-stream": lambda: run(lambda: whole_passes(network, texts, lookup, "single")),
        "LXMERT (transformers)": _lxmert(texts, list(regions.values()), arguments),
        "ViLT (transformers)": _vilt(texts, arguments),
    }


def _timed(method: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    method()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _compare_all(compare: Compare, arguments: argparse.Namespace) -> None:
    for captions, images in _batches(arguments):
        compare(captions, images)


def _batches(
    arguments: argparse.Namespace, count: int | None = None
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Numbers of captions and images of the first pairs or of all, caption by caption."""
    cells = torch.arange(arguments.captions * arguments.images)[:count]
    return [
        (part // arguments.images, part % arguments.images)
        for part in cells.split(arguments.batch_size)
    ]


def _network(arguments: argparse.Namespace) -> Network:
    config = SemVLPConfig.preset(arguments.preset).for_task("match", ["mismatch", "match"])
    model = SemVLPForTask(config)
    model.semvlp.to(DTYPES[arguments.precision])
    model.semvlp.pooler.float()
    return Network(
        model=model.to(arguments.device),
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


def _padded(texts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = [torch.tensor(text) for text in texts]
    padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)
    return padded, (padded != 0).long()


def _lxmert(
    texts: Sequence[Sequence[int]], regions: Sequence[PairRegions], arguments: argparse.Namespace
) -> Callable[[], object]:
    """Encoder and matching head alone: its word and object predictions are left out."""
    dtype, device = DTYPES[arguments.precision], arguments.device
    whole = LxmertForPreTraining(LxmertConfig()).eval().to(device, dtype)
    encoder, head = whole.lxmert, whole.cls.seq_relationship
    features = torch.from_numpy(np.stack([pair[0] for pair in regions])).to(device, dtype)
    boxes = torch.from_numpy(np.stack([pair[1] for pair in regions]) / 400).to(device, dtype)
    ids, mask = (tensor.to(device) for tensor in _padded(texts))

    def run() -> None:
        for captions, images in _batches(arguments, arguments.peer_pairs):
            pooled = encoder(
                input_ids=ids[captions],
                attention_mask=mask[captions],
                visual_feats=features[images],
                visual_pos=boxes[images],
            ).pooled_output
            head(pooled).float().cpu()

    return run


def _vilt(texts: Sequence[Sequence[int]], arguments: argparse.Namespace) -> Callable[[], object]:
    dtype, device = DTYPES[arguments.precision], arguments.device
    model = ViltForImageAndTextRetrieval(ViltConfig()).eval().to(device, dtype)
    pixels = torch.rand(arguments.images, 3, 384, 384).to(device, dtype)
    ids, mask = (tensor.to(device) for tensor in _padded(texts))

    def run() -> None:
        for captions, images in _batches(arguments, arguments.peer_pairs):
            model(
                input_ids=ids[captions],
                attention_mask=mask[captions],
                pixel_values=pixels[images],
            ).logits.float().cpu()

    return run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=32)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--peer-pairs", type=int, default=64)
    parser.add_argument("--regions", type=int, default=36)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=sorted(DTYPES), default="fp32")
    return parser.parse_args()


if __name__ == "__main__":
    main()
