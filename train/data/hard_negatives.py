"""Wrong pairs for the matching head of retrieval: any, of the same batch, or the hardest of it.

What an example becomes follows from the seed, its position and the examples of its step, so it is
the same on any number of ranks and after any resume. The hardest is chosen later: the one that the
network as it is now thinks fits best.

B examples of P choices each, M of them with more than one; N texts and images on a deck.
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


class Choice(NamedTuple):
    """One text and one image that an example may become."""

    text: tuple[int, ...]
    """Ids `[CLS] ... [SEP]`."""
    image: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Candidates:
    """What each example may become, as places on a deck."""

    deck: PackedBatch
    """The texts and the images of all choices, each once; what lies side by side is no pair."""
    texts: Tensor
    """[B, P] int64, on the CPU; what has fewer than P choices repeats its first one."""
    images: Tensor
    """[B, P] int64, likewise."""

    def to(self, device: torch.device) -> Self:
        """The same choices, the deck on another device."""
        return replace(self, deck=self.deck.to(device))


def choices_of(
    examples: Sequence[Sequence[Choice]], regions: Mapping[str, PairRegions], width: int
) -> Candidates:
    """The 1..P choices of each of B examples; P is `width` everywhere, or ranks would wait.

    Args:
        regions: of the images by their names.
    """
    every = [choice for choices in examples for choice in choices]
    texts = {text: place for place, text in enumerate(dict.fromkeys(c.text for c in every))}
    images = {name: place for place, name in enumerate(dict.fromkeys(c.image for c in every))}
    rows = [list(islice(chain(choices, repeat(choices[0])), width)) for choices in examples]
    return Candidates(
        deck=_deck(list(texts), [regions[name] for name in images]),
        texts=torch.tensor([[texts[choice.text] for choice in row] for row in rows]),
        images=torch.tensor([[images[choice.image] for choice in row] for row in rows]),
    )


def mine_hard_negative(model: SemVLPForTask, choices: Candidates, mode: Mode) -> PackedBatch:
    """The B pairs of each example's choice that the match head of `model` scores highest.

    Scores are taken without gradients and without dropout, P batches of M pairs one after another.
    """
    texts, images = choices.texts, choices.images
    open_rows = ((texts != texts[:, :1]) | (images != images[:, :1])).any(dim=1).nonzero().flatten()
    # Weights that are cut among ranks are gathered by all together: even without a choice, score.
    rows = open_rows if len(open_rows) else torch.zeros(1, dtype=torch.int64)
    with _as_it_is(model):
        columns = [
            _log_odds(model(paired(choices.deck, texts[rows, p], images[rows, p]), mode))
            for p in range(texts.shape[1])
        ]
    best = torch.zeros(len(texts), 1, dtype=torch.int64)
    best[rows, 0] = torch.stack(columns, dim=1).argmax(dim=1).cpu()
    return paired(choices.deck, texts.gather(1, best)[:, 0], images.gather(1, best)[:, 0])


def paired(deck: PackedBatch, texts: Tensor, images: Tensor) -> PackedBatch:
    """The pairs of texts [N] and images [N], places on the deck int64 on the CPU."""
    tokens = to_device(_rows(deck.text_lengths, texts), deck.device)
    regions = to_device(_rows(deck.region_lengths, images), deck.device)
    return PackedBatch(
        input_ids=deck.input_ids.index_select(0, tokens),
        region_features=deck.region_features.index_select(0, regions),
        region_boxes=deck.region_boxes.index_select(0, regions),
        text_lengths=deck.text_lengths[texts],
        region_lengths=deck.region_lengths[images],
    )


def _rows(lengths: Tensor, places: Tensor) -> Tensor:
    return row_indices(starts_of(lengths)[places], lengths[places])


def _deck(texts: list[tuple[int, ...]], images: list[PairRegions]) -> PackedBatch:
    """Texts beside images, the fewer of them filled up with what nobody points to."""
    size = images[0][0].shape[1]
    nothing = np.zeros((0, size), images[0][0].dtype), np.zeros((0, 4), np.float32), 1, 1
    missing = len(texts) - len(images)
    return pack(texts + texts[:1] * -missing, images + [nothing] * missing)


def _log_odds(logits: Tensor) -> Tensor:
    """[M] of class 1, match, from logits [M, 2]."""
    return (logits[:, 1] - logits[:, 0]).float()


@contextmanager
def _as_it_is(model: SemVLPForTask) -> Iterator[None]:
    """Neither gradients nor dropout inside; nothing is left behind."""
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


MISMATCH, MATCH = LABELS
TRIES = 16
"""How many examples of all are drawn to find one that does not belong to the image."""


class HardNegatives:
    """What the examples of a matching task are trained as."""

    def __init__(self, examples: Sequence[Example], config: RetrievalConfig, seed: int) -> None:
        self._examples, self._config, self._seed = examples, config, seed
        self._texts_of: dict[tuple[str, ...], set[str]] = {}
        for example in examples:
            self._texts_of.setdefault(example.images, set()).add(example.text)

    def of(self, example: Example, position: int, step: Sequence[Example]) -> list[Example]:
        """The example alone, or the mismatches that it may become.

        One mismatch where chance decides, up to `pool` where the network is to choose. Never a text
        that a caption of the image says too: an example without any other stays as it is.

        Args:
            position: of the example in the endless sequence of training.
            step: all examples of its optimiser step, those of other ranks too.
        """
        random = generator(self._seed, position, "mismatch")
        if random.random() >= self._config.negative_rate:
            return [example]
        replaced = self._config.replaced
        with_text = replaced == "text" or (replaced == "either" and bool(random.integers(2)))
        count = self._config.pool if self._config.negatives == "hard" else 1
        found: dict[tuple[str, tuple[str, ...]], Example] = {}
        for other in self._drawn(random, step):
            wrong = _with_text(example, other) if with_text else _with_images(example, other)
            if wrong.text not in self._texts_of[wrong.images]:
                found.setdefault((wrong.text, wrong.images), wrong)
            if len(found) == count:
                break
        return list(found.values()) or [example]

    def _drawn(self, random: np.random.Generator, step: Sequence[Example]) -> Iterator[Example]:
        """Examples in a random order."""
        if self._config.negatives == "random":
            every = self._examples
            return (every[index] for index in random.integers(len(every), size=TRIES))
        return (step[index] for index in random.permutation(len(step)))


def _with_text(example: Example, other: Example) -> Example:
    return replace(example, text=other.text, target={MISMATCH: 1.0})


def _with_images(example: Example, other: Example) -> Example:
    return replace(example, images=other.images, target={MISMATCH: 1.0})
