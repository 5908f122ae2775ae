"""Examples of a task become packed batches and targets, in an order that follows from the seed.

B examples, N pairs (2 B for the pair head), C labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from semvlp.errors import InputError
from semvlp.eval.lookup import RegionLookup
from semvlp.eval.task import Example, Loss, Task
from semvlp.model.packing import PairRegions, pack
from semvlp.shards.order import generator, key, permute
from semvlp.shards.store import Store
from semvlp.train.config import FinetuneConfig
from semvlp.train.cutting import cut
from semvlp.train.distributed import World
from semvlp.train.step import Part
from semvlp.train.text_cache import TextCache

MISMATCH_RATE = 0.5
"""Share of the pairs of the match head whose text is taken from another image."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TaskTargets:
    """What the network should have said about one packed batch."""

    scores: Tensor
    """[B, C] float32, score of each label in 0..1."""
    loss: Loss
    """How predictions are compared with them."""

    def to(self, device: torch.device) -> Self:
        """The same targets on another device."""
        return replace(self, scores=self.scores.to(device, non_blocking=True))


class RegionCache:
    """Regions by image name; the first `size` images that are read stay in memory."""

    def __init__(self, lookup: RegionLookup, size: int) -> None:
        self._lookup, self._size = lookup, size
        self._kept: dict[str, PairRegions] = {}

    def __call__(self, names: Sequence[str]) -> list[PairRegions]:
        """Regions of each image; one that is named several times is read once."""
        missing = list(dict.fromkeys(name for name in names if name not in self._kept))
        read = dict(zip(missing, self._lookup(missing), strict=True))
        self._kept.update(list(read.items())[: self._size - len(self._kept)])
        return [read[name] if name in read else self._kept[name] for name in names]


class ExampleSource:
    """The steps of fine-tuning: seeded epochs over the examples, each exactly once an epoch.

    Steps cross the end of an epoch, so every step is full. The state is one position.
    """

    def __init__(
        self,
        task: Task,
        examples: Sequence[Example],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerFast,
        store: Store,
        config: FinetuneConfig,
        world: World,
    ) -> None:
        self._task, self._examples = task, examples
        self._labels = {label: index for index, label in enumerate(labels)}
        self._texts = TextCache(tokenizer, config.data.max_text_length)
        lookup = RegionLookup(store, examples, max_regions=config.data.max_regions)
        self._regions = RegionCache(lookup, config.data.cache_images)
        self._train, self._world = config.train, world
        self._position = 0

    def next_step(self) -> list[Part]:
        """The parts of the next step of this rank."""
        share = self._train.batch_size // self._world.size
        first = self._position + self._world.rank * share
        self._position += self._train.batch_size
        return self.parts(range(first, first + share))

    def state_dict(self) -> dict[str, Any]:
        """Position, and what it is a position in."""
        return {"position": self._position, "examples": len(self._examples)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on there; an empty state is the beginning.

        Raises:
            InputError: the state was taken with another number of examples.
        """
        if state and state["examples"] != len(self._examples):
            raise InputError(
                f"to go on, the annotations must hold {state['examples']} examples as when the run "
                f"began, but they hold {len(self._examples)}; give the same files, or --overwrite"
            )
        self._position = state.get("position", 0)

    def parts(self, positions: Sequence[int]) -> list[Part]:
        """The examples at some positions of the endless sequence, cut as the settings say."""
        examples = [self._at(position) for position in positions]
        names = dict.fromkeys(name for example in examples for name in example.images)
        regions = dict(zip(names, self._regions(list(names)), strict=True))
        rows = [self._rows(example, regions) for example in examples]
        return [self._part(examples[run], regions) for run in cut(rows, self._train)]

    def _rows(self, example: Example, regions: Mapping[str, PairRegions]) -> int:
        """Tokens and regions of one example."""
        (text,) = self._texts([example.text])
        return sum(len(text) + len(regions[name][0]) for name in example.images)

    def _part(self, examples: Sequence[Example], regions: Mapping[str, PairRegions]) -> Part:
        """Examples packed, with what they should give."""
        # One text goes with each image: a pair of images makes two pairs, side by side.
        texts = self._texts([example.text for example in examples for _ in example.images])
        names = [name for example in examples for name in example.images]
        scores = torch.tensor([self._scores(example) for example in examples])
        answerable = scores.any(dim=1) if self._task.loss == "cross_entropy" else len(examples)
        return Part(
            batch=pack([text.tolist() for text in texts], [regions[name] for name in names]),
            targets=TaskTargets(scores=scores, loss=self._task.loss),
            counts={"task": int(torch.as_tensor(answerable).sum())},
            image_ids=tuple(dict.fromkeys(names)),
        )

    def _at(self, position: int) -> Example:
        example = self._examples[self._index(position)]
        if self._task.head == "match":
            return self._matched(example, position)
        return example

    def _index(self, position: int) -> int:
        epoch, index = divmod(position, len(self._examples))
        return permute(index, len(self._examples), key(self._train.seed, epoch))

    def _matched(self, example: Example, position: int) -> Example:
        """The example, or its image with the text of another image and the label `mismatch`."""
        random = generator(self._train.seed, position, "mismatch")
        if random.random() >= MISMATCH_RATE:
            return example
        for index in random.integers(len(self._examples), size=16):
            other = self._examples[index]
            if other.images != example.images and other.text != example.text:
                return replace(example, text=other.text, target={"mismatch": 1.0})
        # Nearly all texts belong to this image; it is honest as it stands.
        return example

    def _scores(self, example: Example) -> list[float]:
        row = [0.0] * len(self._labels)
        for label, score in example.target.items():
            if label in self._labels:
                row[self._labels[label]] = score
        return row
