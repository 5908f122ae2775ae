"""What an assistant replies: answers and places with how probable they are, and what was seen.

Boxes are xyxy in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch

from semvlp.eval.lookup import pair_regions
from semvlp.eval.network import Network
from semvlp.eval.pages.between import Between, between_by_head, mean_of
from semvlp.eval.predict import passes_of
from semvlp.model.packing import PairRegions
from semvlp.names import EvalMode
from semvlp.shards.record import Regions


class Answer(NamedTuple):
    """A label and how probable it is."""

    answer: str
    probability: float
    """0..1; answers of VQA need not add up to 1, for several may be right."""


class Region(NamedTuple):
    """A place in a photograph and how probable it is that it is meant."""

    box: tuple[float, float, float, float]
    """xyxy in pixels."""
    probability: float
    """0..1; those of all regions add up to 1."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Reply:
    """The answers to one text about one photograph, or about two."""

    text: str
    answers: tuple[Answer, ...]
    """Most probable first."""
    mode: EvalMode
    regions: tuple[Regions, ...]
    """Of each photograph."""
    network: Network = field(repr=False)

    @property
    def answer(self) -> str:
        """The most probable answer."""
        return self.answers[0].answer

    @property
    def attention(self) -> tuple[Between, ...]:
        """What words and regions of each photograph attend to, mean over the passes of `mode`."""
        return tuple(mean_of(between) for between in self.attention_by_head)

    @cached_property
    def attention_by_head(self) -> tuple[Between, ...]:
        """The same of each block that has cross-attention and of each of its heads."""
        (ids,) = self.network.encode([self.text])
        limit = self.network.limits.max_regions
        return tuple(
            attention(self.network, ids, pair_regions(r, limit), self.mode) for r in self.regions
        )


def attention(
    network: Network, ids: Sequence[int], regions: PairRegions, mode: EvalMode
) -> Between:
    """Return what each head of each block attends to, mean over the passes of `mode`."""
    both = [between_by_head(network, ids, regions, one) for one in passes_of(mode)]
    return Between(*(torch.stack(same).mean(0) for same in zip(*both, strict=True)))
