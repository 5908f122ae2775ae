"""A cache of lower layers in two-stream mode, computed once for each text and each image.

N texts or images, L rows of all of them, D width.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semvlp.eval.network import Network
from semvlp.model.layers.two_stream_cache import LowerStates
from semvlp.model.packing import PairRegions, starts_of

# Above this the rows go to a memory-mapped file in float16. The captions of COCO's test split take
# 1.1 GiB in a base network in float32.
MAX_BYTES = 2 << 30


@dataclass(frozen=True, slots=True, eq=False)
class CachedRows:
    """The rows that `SemVLPModel.lower` makes of N texts or images."""

    rows: Tensor
    """[L, D], the rows of the first item, then of the second, ..."""
    lengths: Tensor
    """[N] int64, on the CPU."""
    like: Tensor
    """Rows are taken out in its dtype and on its device."""

    def take(self, items: Tensor) -> LowerStates:
        """Return the rows of some items [n] one after the other, and their lengths [n]."""
        lengths = self.lengths[items]
        shift = starts_of(self.lengths)[items] - starts_of(lengths)
        index = torch.arange(int(lengths.sum())) + shift.repeat_interleave(lengths)
        rows = self.rows.index_select(0, index.to(self.rows.device, non_blocking=True))
        return LowerStates(rows.to(self.like.device, self.like.dtype), lengths)


def cache_texts(
    network: Network,
    texts: Sequence[Sequence[int]],
    *,
    scratch: Path | None = None,
    max_bytes: int = MAX_BYTES,
) -> CachedRows:
    """Run the lower layers once for every text; inside `network.inference()`.

    Rows that would take more than `max_bytes` are cached in float16, in a file in `scratch` that
    vanishes with the process.
    """
    cache = _empty(network, [len(text) for text in texts], scratch, max_bytes)
    start = 0
    for part in _parts(len(texts), network.batch_size):
        rows = network.lower_texts([texts[index] for index in part])
        cache.rows[start : start + len(rows)] = rows
        start += len(rows)
    return cache


def cache_images(network: Network, regions: Sequence[PairRegions]) -> CachedRows:
    """Run the lower layers once for every image; inside `network.inference()`."""
    extra = network.model.config.num_image_tokens
    lengths = torch.tensor([len(features) + extra for features, *_ in regions])
    rows = [
        network.lower_regions([regions[index] for index in part])
        for part in _parts(len(regions), network.batch_size)
    ]
    return CachedRows(torch.cat(rows), lengths, network.like)


def _parts(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def _empty(
    network: Network, lengths: list[int], scratch: Path | None, max_bytes: int
) -> CachedRows:
    like, sizes = network.like, torch.tensor(lengths)
    shape = int(sizes.sum()), network.model.config.hidden_size
    if shape[0] * shape[1] * like.element_size() <= max_bytes:
        return CachedRows(torch.empty(shape, dtype=like.dtype, device=like.device), sizes, like)
    with tempfile.TemporaryFile(dir=scratch) as file:
        mapped = np.memmap(file, np.float16, "w+", shape=shape)
    return CachedRows(torch.from_numpy(mapped), sizes, like)
