"""Examples of a task become packed batches and targets, in an order that follows from the seed.

B examples, N pairs (2 B for the pair head), C labels, or most regions of an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from semvlp.distributed import World
from semvlp.errors import InputError
from semvlp.eval.lookup import IN_TRAINING, RegionLookup
from semvlp.eval.task import Example, Loss, Task
from semvlp.model.packing import PairRegions, pack, to_device
from semvlp.shards.stores.store import Store
from semvlp.train.config import FinetuneConfig
from semvlp.train.data.hard_negatives import (
    Candidate,
    Candidates,
    HardNegatives,
    candidates_of,
)
from semvlp.train.data.sampling import Order, balanced_weights
from semvlp.train.data.texts import TextCache
from semvlp.train.step import MicroBatch, split


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TaskTargets:
    """The targets of one packed batch."""

    scores: Tensor
    """[B, C] float32, score of each label in 0..1; of each region for the region head."""
    loss: Loss
    """How predictions are compared with them."""
    weights: Tensor
    """[B] float32, how much each example counts."""
    candidates: Candidates | None = None
    """The pairs that each example may become where the network is to choose: then the packed batch
    holds the first candidate of each."""

    def to(self, device: torch.device) -> Self:
        """Return the same targets on another device."""
        candidates = self.candidates.to(device) if self.candidates else None
        scores, weights = (to_device(one, device) for one in (self.scores, self.weights))
        return replace(self, scores=scores, weights=weights, candidates=candidates)


class RegionCache:
    """Regions by image name; the first `size` images that are read stay in memory."""

    def __init__(self, lookup: RegionLookup, size: int) -> None:
        self._lookup, self._size = lookup, size
        self._kept: dict[str, PairRegions] = {}

    def __call__(self, names: Sequence[str]) -> list[PairRegions]:
        """Return the regions of each image; one that is named several times is read once."""
        missing = list(dict.fromkeys(name for name in names if name not in self._kept))
        read = dict(zip(missing, self._lookup(missing), strict=True))
        self._kept.update(list(read.items())[: self._size - len(self._kept)])
        return [read[name] if name in read else self._kept[name] for name in names]


class FinetuningBatches:
    """The steps of fine-tuning: seeded epochs over the examples, each exactly once an epoch.

    With `data.sampling` = balanced it is each class that comes equally often. Steps cross the end
    of an epoch, so every step is full. The state is one position.
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
        self._labels = {task.spelling(label): index for index, label in enumerate(labels)}
        classes = [task.spelling(_likeliest(example)) for example in examples]
        self._order = Order(classes, config.data.sampling, config.train.seed)
        # By identity: two examples may be equal in all but their place.
        weights = balanced_weights(classes) if config.train.class_weights == "balanced" else ()
        self._weights = {id(e): weight for e, weight in zip(examples, weights, strict=False)}
        self._texts = TextCache(tokenizer, config.data.max_text_length)
        lookup = RegionLookup(
            *(store, examples),
            max_regions=config.data.max_regions,
            otherwise=IN_TRAINING,
        )
        self._regions = RegionCache(lookup, config.data.cache_images)
        self._train, self._world = config.train, world
        matching = task.draws_negatives
        self._negatives = (
            HardNegatives(examples, config.retrieval, config.train.seed) if matching else None
        )
        hard = matching and config.retrieval.negatives == "hard"
        self._pool = config.retrieval.pool if hard else 0
        self._known_step: tuple[int, list[Example]] = (-1, [])
        self._position = 0

    @property
    def num_answerable(self) -> int:
        """Return how many examples have an answer among the labels, and so teach something."""
        return sum(
            any(self._task.spelling(answer) in self._labels for answer in example.target)
            for example in self._examples
        )

    def next_step(self) -> list[MicroBatch]:
        """Return the micro-batches of the next step of this rank."""
        share = self._train.batch_size // self._world.size
        first = self._position + self._world.rank * share
        self._position += self._train.batch_size
        return self.micro_batches(range(first, first + share))

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and what it is a position in."""
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

    def micro_batches(self, positions: Sequence[int]) -> list[MicroBatch]:
        """Pack the examples at positions of the endless sequence, split as the settings say."""
        examples = [self._candidates(position) for position in positions]
        names = dict.fromkeys(
            n for candidates in examples for one in candidates for n in one.images
        )
        regions = dict(zip(names, self._regions(list(names)), strict=True))

        def rows(example: Example) -> int:
            (text,) = self._texts([example.text])
            return sum(len(text) + len(regions[name][0]) for name in example.images)

        sizes = [max(map(rows, candidates)) for candidates in examples]
        return [self._micro_batch(examples[run], regions) for run in split(sizes, self._train)]

    def _candidates(self, position: int) -> list[Example]:
        """Return the example there, or the pairs it may become where its task tells matches."""
        example = self._at(position)
        if self._negatives is None:
            return [example]
        return self._negatives.of(example, position, self._step(position))

    def _micro_batch(
        self, candidates: Sequence[Sequence[Example]], regions: Mapping[str, PairRegions]
    ) -> MicroBatch:
        """Pack examples with their targets; all candidates of one have the same label."""
        examples = [first for first, *_ in candidates]
        # One text goes with each image: a pair of images makes two pairs, side by side.
        texts = self._texts([example.text for example in examples for _ in example.images])
        names = [name for example in examples for name in example.images]
        scores = _stacked(
            [
                self._task.targets(example, self._labels, [regions[n] for n in example.images])
                for example in examples
            ]
        )
        answerable = scores.any(dim=1) if self._task.loss == "cross_entropy" else len(examples)
        return MicroBatch(
            batch=pack([text.tolist() for text in texts], [regions[name] for name in names]),
            targets=TaskTargets(
                scores=scores,
                loss=self._task.loss,
                weights=torch.tensor([self._weights.get(id(e), 1.0) for e in examples]),
                candidates=self._pooled(candidates, regions) if self._pool else None,
            ),
            counts={"task": int(torch.as_tensor(answerable).sum())},
            image_ids=tuple(dict.fromkeys(names)),
        )

    def _pooled(
        self, candidates: Sequence[Sequence[Example]], regions: Mapping[str, PairRegions]
    ) -> Candidates:
        """Pool the candidates that the network is to choose from."""
        texts = iter(self._texts([one.text for row in candidates for one in row]))
        return candidates_of(
            [
                [Candidate(tuple(next(texts).tolist()), one.images[0]) for one in row]
                for row in candidates
            ],
            regions,
            self._pool,
        )

    def _step(self, position: int) -> list[Example]:
        """Return all examples of the optimiser step of a position, whatever rank they fall to."""
        size = self._train.batch_size
        first = position // size * size
        if first != self._known_step[0]:
            self._known_step = first, [self._at(other) for other in range(first, first + size)]
        return self._known_step[1]

    def _at(self, position: int) -> Example:
        return self._examples[self._order(position)]


def _likeliest(example: Example) -> str:
    """Return the best answer, which is the class of the example; of equals the first."""
    return max(example.target, key=lambda answer: example.target[answer], default="")


def _stacked(rows: Sequence[Sequence[float]]) -> Tensor:
    """Return [B, C] of B rows; those of images with fewer regions get zeros behind."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows])
