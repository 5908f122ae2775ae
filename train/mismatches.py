"""Wrong pairs for the matching head of retrieval: any, of the same batch, or the hardest of it.

What an example becomes follows from the seed, its position and the examples of its step, so it is
the same on any number of ranks and after any resume. The hardest is chosen later, by the network.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from semvlp.eval.task import Example
from semvlp.eval.tasks.retrieval import LABELS
from semvlp.shards.stream.order import generator
from semvlp.train.data_config import RetrievalConfig

MISMATCH, MATCH = LABELS
TRIES = 16
"""How many examples of all are drawn to find one that does not belong to the image."""


class Mismatches:
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
        if random.random() >= self._config.mismatch_rate:
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
