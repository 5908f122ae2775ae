"""The caption x image matrix of matching scores, in blocks that a stopped run does not lose.

Q captions, K images, b images of a block, n pairs of a batch.
"""

import io
import math
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semvlp import atomic
from semvlp.distributed import ALONE, World
from semvlp.eval.matching.cache import cache_images, cache_texts
from semvlp.eval.network import Network, finite
from semvlp.eval.task import Example, Pass, Scores, Stop, never
from semvlp.eval.tasks.retrieval_ranks import UNSCORED, image_names
from semvlp.model.packing import PairRegions
from semvlp.progress import Progress

# Images that are compared with every caption before the next ones are read.
IMAGE_BLOCK = 64
FOLDER = "matrix-"
NAMED = re.compile(rf"{FOLDER}(single|two)-[0-9a-f]{{16}}")

# Numbers of captions [n] and of images within the block [n] -> logits [n, 2].
Compare = Callable[[Tensor, Tensor], Tensor]
# Names of images -> their regions; a `RegionLookup`.
Lookup = Callable[[Sequence[str]], list[PairRegions]]
# The images of a block -> how captions are compared with them.
ReadBlock = Callable[[Sequence[str]], Compare]


@dataclass(frozen=True, slots=True)
class Scratch:
    """The place of finished blocks until the whole evaluation is written."""

    out: Path
    key: str
    """A hash of what the blocks depend on: they are read again where it is the same."""

    def folder(self, mode: Pass) -> Path:
        """Return the folder of the blocks of one pass."""
        return self.out / f"{FOLDER}{mode}-{self.key[:16]}"


def clear(out: Path) -> None:
    """Remove the blocks of finished and of abandoned evaluations."""
    for folder in out.glob(f"{FOLDER}*"):
        if NAMED.fullmatch(folder.name):
            shutil.rmtree(folder)


def score_matrix(
    network: Network,
    examples: Sequence[Example],
    lookup: Lookup,
    mode: Pass,
    *,
    world: World = ALONE,
    scratch: Scratch | None = None,
    wanted: NDArray[np.bool_] | None = None,
    stop: Stop = never,
) -> Scores:
    """Return log-odds [Q, K] float32 that a caption and an image match, on every rank.

    Log-odds rather than probabilities, which would tie near 0 and 1. The columns are
    `image_names(examples)`. In two-stream mode the layers below the first cross-attention run once
    a text and once an image, and only the upper ones run for every pair.

    Args:
        scratch: finished blocks are saved there, and read where an earlier call has left them.
        wanted: [Q, K] False: not computed, the score is -inf; None computes all.

    Raises:
        Interrupted: `stop` was true on a rank; the blocks that were finished are saved.
        SemVLPError: the network gives a score that is not finite.
    """
    names, texts = image_names(examples), network.encode([example.text for example in examples])
    if wanted is None:
        wanted = np.ones((len(texts), len(names)), bool)
    starts = range(0, len(names), IMAGE_BLOCK)
    columns = [slice(start, start + IMAGE_BLOCK) for start in starts]
    folder = scratch.folder(mode) if scratch else None
    if scratch:
        atomic.make_directory(scratch.out)
    ours, left = _finished(folder, world.share(len(columns)))
    total = sum(int(wanted[:, columns[unit]].sum()) for unit in world.share(len(columns)))
    missing = sum(int(wanted[:, columns[unit]].sum()) for unit in left)
    with (
        network.inference(),
        Progress(f"retrieval, {mode}", total=total, unit="pairs", done=total - missing) as bar,
    ):
        read = (
            whole_passes(network, texts, lookup, mode)
            if mode == "single"
            else cached_passes(network, texts, lookup, scratch.out if scratch else None)
        )
        for unit in left:
            compare, chosen = read(names[columns[unit]]), wanted[:, columns[unit]]
            ours[unit] = _block(network, compare, chosen, bar, stop)
            if stop():
                break  # the block may be cut short
            finite(ours[unit][chosen], mode)
            if folder:
                _save(folder / f"{unit:06d}.npy", ours[unit])
    world.check_stop(stop())
    gathered = world.gathered([ours[unit] for unit in sorted(ours)], len(columns))
    return np.concatenate(gathered, axis=1)


def whole_passes(
    network: Network, texts: Sequence[Sequence[int]], lookup: Lookup, mode: Pass
) -> ReadBlock:
    """Run every pair through all layers: the only way in single-stream mode."""

    def read(names: Sequence[str]) -> Compare:
        regions = lookup(names)

        def compare(captions: Tensor, images: Tensor) -> Tensor:
            pairs = zip(captions.tolist(), images.tolist(), strict=True)
            chosen = [(texts[caption], regions[image]) for caption, image in pairs]
            return network.logits([t for t, _ in chosen], [r for _, r in chosen], mode)

        return compare

    return read


def cached_passes(
    network: Network,
    texts: Sequence[Sequence[int]],
    lookup: Lookup,
    scratch: Path | None = None,
) -> ReadBlock:
    """Run two-stream pairs through the upper layers alone; inside `network.inference()`."""
    cached_texts = cache_texts(network, texts, scratch=scratch)

    def read(names: Sequence[str]) -> Compare:
        cached_images = cache_images(network, lookup(names))

        def compare(captions: Tensor, images: Tensor) -> Tensor:
            text, texts_of = torch.unique(captions, return_inverse=True)
            image, images_of = torch.unique(images, return_inverse=True)
            rows = cached_texts.take(text), cached_images.take(image)
            return network.upper_logits(*rows, texts_of, images_of)

        return compare

    return read


def _block(
    network: Network, compare: Compare, wanted: NDArray[np.bool_], bar: Progress, stop: Stop
) -> Scores:
    """Return the scores [Q, b] of the wanted pairs of one block, log-odds of a match."""
    block = np.full(wanted.shape, UNSCORED, np.float32)
    rows, columns = tiled(wanted, network.batch_size)
    match = network.labels.index("match")
    for start in range(0, len(rows), network.batch_size):
        if stop():
            break
        part = slice(start, start + network.batch_size)
        logits = compare(torch.from_numpy(rows[part]), torch.from_numpy(columns[part]))
        block[rows[part], columns[part]] = (logits[:, match] - logits[:, 1 - match]).numpy()
        bar.advance(len(rows[part]))
    return block


def tiled(
    wanted: NDArray[np.bool_], batch_size: int
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return rows and columns [n] of the wanted pairs, ordered so that batches are nearly square.

    What a caption or an image brings along is then computed for few of them a batch.
    """
    height = math.isqrt(batch_size)
    tiles = [
        (rows + start, columns)
        for start in range(0, len(wanted), height)
        for columns, rows in [wanted[start : start + height].T.nonzero()]
    ]
    return np.concatenate([r for r, _ in tiles]), np.concatenate([c for _, c in tiles])


def _finished(folder: Path | None, units: Sequence[int]) -> tuple[dict[int, Scores], list[int]]:
    """Return the blocks that lie there, and the units that are left."""
    paths = {unit: folder / f"{unit:06d}.npy" for unit in units} if folder else {}
    blocks = {unit: np.load(path) for unit, path in paths.items() if path.is_file()}
    return blocks, [unit for unit in units if unit not in blocks]


def _save(path: Path, block: Scores) -> None:
    atomic.make_directory(path.parent)
    data = io.BytesIO()
    np.save(data, block, allow_pickle=False)
    atomic.write_bytes(path, data.getvalue())
