"""Lower halves of two-stream passes, computed once for each text or image and kept.

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
from semvlp.model.packing import PairRegions, starts_of
from semvlp.model.two_stream_cache import LowerStates

# Above this the rows go to a memory-mapped file in float16. The captions of COCO's test split take
# 1.1 GiB in a base network in float32.
MAX_BYTES = 2 << 30


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What `SemVLPModel.lower` makes of N texts or images."""

    rows: Tensor
    """[L, D], the rows of the first item, then of the second, ..."""
    lengths: Tensor
    """[N] int64, on the CPU."""
    like: Tensor
    """Rows are taken out in its dtype and on its device."""

    def take(self, items: Tensor) -> LowerStates:
        """The rows of some items [n] one after the other, and their lengths [n]."""
        lengths = self.lengths[items]
        shift = starts_of(self.lengths)[items] - starts_of(lengths)
        index = torch.arange(int(lengths.sum())) + shift.repeat_interleave(lengths)
        rows = self.rows.index_select(0, index.to(self.rows.device, non_blocking=True))
        return LowerStates(rows.to(self.like.device, self.like.dtype), lengths)


def keep_texts(
    network: Network,
    texts: Sequence[Sequence[int]],
    *,
    scratch: Path | None = None,
    max_bytes: int = MAX_BYTES,
) -> Kept:
    """The lower half of every text; inside `network.inference()`.

    Rows that would take more than `max_bytes` are kept in float16, in a file in `scratch` that
    vanishes with the process.
    """
    kept = _empty(network, [len(text) for text in texts], scratch, max_bytes)
    start = 0
    for part in _parts(len(texts), network.batch_size):
        rows = network.lower_texts([texts[index] for index in part])
        kept.rows[start : start + len(rows)] = rows
        start += len(rows)
    return kept


def keep_images(network: Network, regions: Sequence[PairRegions]) -> Kept:
    """The lower half of every image; inside `network.inference()`."""
    extra = network.model.config.num_image_tokens
    lengths = torch.tensor([len(features) + extra for features, *_ in regions])
    rows = [
        network.lower_regions([regions[index] for index in part])
        for part in _parts(len(regions), network.batch_size)
    ]
    return Kept(torch.cat(rows), lengths, network.like)


def _parts(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def _empty(network: Network, lengths: list[int], scratch: Path | None, max_bytes: int) -> Kept:
    like, sizes = network.like, torch.tensor(lengths)
    shape = int(sizes.sum()), network.model.config.hidden_size
    if shape[0] * shape[1] * like.element_size() <= max_bytes:
        return Kept(torch.empty(shape, dtype=like.dtype, device=like.device), sizes, like)
    with tempfile.TemporaryFile(dir=scratch) as file:
        mapped = np.memmap(file, np.float16, "w+", shape=shape)
    return Kept(torch.from_numpy(mapped), sizes, like)
