"""Wrong pairs for the matching head of retrieval: any, of the same batch, or the hardest of it.

What an example becomes follows from the seed, its position and the examples of its step, so it is
the same on any number of ranks and after any resume. The hardest is chosen later: the one that the
network as it is now thinks fits best.

B examples of P candidates each, M of them with more than one; N texts and images in a pool.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from semvlp.eval.task import Example
from semvlp.eval.tasks.retrieval import LABELS
from semvlp.model.packing import (
    Mode,
    PackedBatch,
    PairRegions,
    pack,
    row_indices,
    starts_of,
    to_device,
)
from semvlp.model.semvlp import SemVLPForTask
from semvlp.shards.stream.order import generator
from semvlp.train.config import RetrievalConfig

MISMATCH, MATCH = LABELS
TRIES = 16
"""How many examples of all are drawn to find one that does not belong to the image."""


class HardNegatives:
    """The wrong pairs that the examples of a matching task may become."""

    def __init__(self, examples: Sequence[Example], config: RetrievalConfig, seed: int) -> None:
        self._examples, self._config, self._seed = examples, config, seed
        self._texts_of: dict[tuple[str, ...], set[str]] = {}
        for example in examples:
            self._texts_of.setdefault(example.images, set()).add(example.text)

    def of(self, example: Example, position: int, step: Sequence[Example]) -> list[Example]:
        """Return the example alone, or the negatives that it may become.

        One negative where chance decides, up to `pool` where the network is to choose. Never a text
        that a caption of the image says too: an example without any other stays as it is.

        Args:
            position: of the example in the endless sequence of training.
            step: all examples of its optimiser step, those of other ranks too.
        """
        config = self._config
        random = generator(self._seed, position, "mismatch")
        if random.random() >= config.negative_rate:
            return [example]
        replaced = config.replaced
        with_text = replaced == "text" or (replaced == "either" and bool(random.integers(2)))
        count = config.pool if config.negatives == "hard" else 1
        negatives: dict[tuple[str, tuple[str, ...]], Example] = {}
        for other in self._in_random_order(random, step):
            changed = {"text": other.text} if with_text else {"images": other.images}
            negative = replace(example, target={MISMATCH: 1.0}, **changed)
            if negative.text not in self._texts_of[negative.images]:
                negatives.setdefault((negative.text, negative.images), negative)
            if len(negatives) == count:
                break
        return list(negatives.values()) or [example]

    def _in_random_order(
        self, random: np.random.Generator, step: Sequence[Example]
    ) -> Iterator[Example]:
        """Give TRIES of all examples, or each of the step's."""
        if self._config.negatives == "random":
            every = self._examples
            return (every[index] for index in random.integers(len(every), size=TRIES))
        return (step[index] for index in random.permutation(len(step)))


class Candidate(NamedTuple):
    """One text and one image that an example may become."""

    text: tuple[int, ...]
    """Ids `[CLS] ... [SEP]`."""
    image: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Candidates:
    """The pairs that each example may become, as indices into a pool of texts and images."""

    pool: PackedBatch
    """The texts and the images of all candidates, each once; what lies side by side is no pair."""
    texts: Tensor
    """[B, P] int64, on the CPU; what has fewer than P candidates repeats its first one."""
    images: Tensor
    """[B, P] int64, likewise."""

    def to(self, device: torch.device) -> Self:
        """Return the same candidates, their pool on another device."""
        return replace(self, pool=self.pool.to(device))


def candidates_of(
    examples: Sequence[Sequence[Candidate]], regions: Mapping[str, PairRegions], width: int
) -> Candidates:
    """Pool the 1..P candidates of each of B examples.

    Args:
        regions: of the images by their names.
        width: P, the same everywhere, or ranks would wait for each other.
    """
    every = [candidate for candidates in examples for candidate in candidates]
    texts = {text: index for index, text in enumerate(dict.fromkeys(c.text for c in every))}
    images = {name: index for index, name in enumerate(dict.fromkeys(c.image for c in every))}
    rows = [list(islice(chain(own, repeat(own[0])), width)) for own in examples]
    return Candidates(
        pool=_pool(list(texts), [regions[name] for name in images]),
        texts=torch.tensor([[texts[candidate.text] for candidate in row] for row in rows]),
        images=torch.tensor([[images[candidate.image] for candidate in row] for row in rows]),
    )


def mine_hard_negative(model: SemVLPForTask, candidates: Candidates, mode: Mode) -> PackedBatch:
    """Return the B pairs: of each example's candidates the one that `model` scores highest.

    Scores are those of the match head, taken without gradients and without dropout, P batches of M
    pairs one after another.
    """
    pool, texts, images = candidates.pool, candidates.texts, candidates.images
    open_rows = ((texts != texts[:, :1]) | (images != images[:, :1])).any(dim=1).nonzero().flatten()
    # Weights that are cut among ranks are gathered by all together: even without a choice, score.
    rows = open_rows if len(open_rows) else torch.zeros(1, dtype=torch.int64)
    columns = []
    with _as_it_is(model):
        for p in range(texts.shape[1]):
            logits = model(paired(pool, texts[rows, p], images[rows, p]), mode).logits  # [M, 2]
            columns.append((logits[:, 1] - logits[:, 0]).float())
    best = torch.zeros(len(texts), 1, dtype=torch.int64)
    best[rows, 0] = torch.stack(columns, dim=1).argmax(dim=1).cpu()
    return paired(pool, texts.gather(1, best)[:, 0], images.gather(1, best)[:, 0])


def paired(pool: PackedBatch, texts: Tensor, images: Tensor) -> PackedBatch:
    """Pack the pairs of texts [N] and images [N], indices into the pool, int64 on the CPU."""
    tokens = to_device(_rows(pool.text_lengths, texts), pool.device)
    regions = to_device(_rows(pool.region_lengths, images), pool.device)
    return PackedBatch(
        input_ids=pool.input_ids.index_select(0, tokens),
        region_features=pool.region_features.index_select(0, regions),
        region_boxes=pool.region_boxes.index_select(0, regions),
        text_lengths=pool.text_lengths[texts],
        region_lengths=pool.region_lengths[images],
    )


def _rows(lengths: Tensor, indices: Tensor) -> Tensor:
    return row_indices(starts_of(lengths)[indices], lengths[indices])


def _pool(texts: list[tuple[int, ...]], images: list[PairRegions]) -> PackedBatch:
    """Pack texts beside images, the fewer of them filled up with what nobody points to."""
    size = images[0][0].shape[1]
    nothing = np.zeros((0, size), images[0][0].dtype), np.zeros((0, 4), np.float32), 1, 1
    missing = len(texts) - len(images)
    return pack(texts + texts[:1] * -missing, images + [nothing] * missing)


@contextmanager
def _as_it_is(model: SemVLPForTask) -> Iterator[None]:
    """Switch gradients and dropout off inside, and leave nothing behind."""
    module: nn.Module = model
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)
        # Autocast keeps weights in bfloat16 until its end, and these know of no gradient.
        torch.clear_autocast_cache()
