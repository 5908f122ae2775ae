"""What a network answers: examples in batches to probabilities, or a score matrix, to answers.

N examples, C labels; Q captions, K images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from semvlp.distributed import ALONE, World
from semvlp.eval.lookup import RegionLookup
from semvlp.eval.matching.score_matrix import Scratch, score_matrix
from semvlp.eval.network import DEFAULT_LIMITS, Limits, Network, Pass, Scores, finite
from semvlp.eval.task import Answer, Example, ExampleId, Task
from semvlp.eval.tasks.retrieval import rank_answers
from semvlp.model.semvlp import SemVLPForTask
from semvlp.progress import Progress
from semvlp.shards.stores.store import Store

EvalMode = Literal["single", "two", "both"]
# Rows of a score matrix whose two passes are averaged at a time: they need float64.
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """How answers are computed; changes time and memory, and with `wanted` what is ranked."""

    world: World = ALONE
    scratch: Scratch | None = None
    """Where retrieval keeps what it has, to go on from; None keeps nothing."""
    wanted: NDArray[np.bool_] | None = None
    """[Q, K] the pairs of retrieval that are scored at all; None scores all."""


DEFAULT = PredictOptions()


def predict(
    model: SemVLPForTask,
    tokenizer: PreTrainedTokenizerFast,
    task: Task,
    examples: Sequence[Example],
    store: Store,
    *,
    mode: EvalMode,
    batch_size: int,
    device: str,
    limits: Limits = DEFAULT_LIMITS,
) -> Scores:
    """Probabilities [N, C] float32 in the order of `examples` and of the model's labels.

    Labels exclude each other (softmax) where the task is trained with cross-entropy, else each has
    its own probability (sigmoid). `both` is the mean over the two passes.

    Raises:
        InputError: images that the store lacks.
        SemVLPError: the network gives a value that is not finite.
    """
    network = Network(
        model=model, tokenizer=tokenizer, device=device, batch_size=batch_size, limits=limits
    )
    lookup = RegionLookup(store, examples, max_regions=limits.max_regions)
    found = [probabilities(network, task, examples, lookup, one) for one in passes_of(mode)]
    return mean_probability(found)


def answers_by_mode(
    network: Network,
    task: Task,
    examples: Sequence[Example],
    store: Store,
    mode: EvalMode,
    way: PredictOptions = DEFAULT,
) -> dict[EvalMode, dict[ExampleId, Answer]]:
    """The answers of each pass, and for `both` also those of their mean; the same on every rank.

    Raises: as `predict`.
    """
    lookup = RegionLookup(store, examples, max_regions=network.limits.max_regions)
    every: dict[EvalMode, Scores] = {}
    for one in passes_of(mode):
        every[one] = (
            score_matrix(
                network,
                examples,
                lookup,
                one,
                world=way.world,
                scratch=way.scratch,
                wanted=way.wanted,
            )
            if task.head == "match"
            else probabilities(network, task, examples, lookup, one, way.world)
        )
    if mode == "both":
        mean = mean_log_odds if task.head == "match" else mean_probability
        every["both"] = mean(list(every.values()))
    return {one: _answers(task, network.labels, examples, found) for one, found in every.items()}


def passes_of(mode: EvalMode) -> tuple[Pass, ...]:
    """The passes that a mode takes."""
    return ("single", "two") if mode == "both" else (mode,)


def probabilities(
    network: Network,
    task: Task,
    examples: Sequence[Example],
    lookup: RegionLookup,
    mode: Pass,
    world: World = ALONE,
) -> Scores:
    """Probabilities [N, C] of one pass; see `predict`."""
    texts = network.encode([example.text for example in examples])
    size, count = network.batch_size, len(examples)
    batches = [range(start, min(start + size, count)) for start in range(0, count, size)]
    share = [batches[unit] for unit in world.share(len(batches))]
    ours = []
    with (
        network.inference(),
        Progress(f"{task.name}, {mode}", total=sum(map(len, share)), unit="examples") as bar,
    ):
        for rows in share:
            # One text goes with each image: a pair of images makes two pairs, side by side.
            names = [name for row in rows for name in examples[row].images]
            ids = [texts[row] for row in rows for _ in examples[row].images]
            logits = network.logits(ids, lookup(names), mode)
            exclusive = task.loss == "cross_entropy"
            ours.append((logits.softmax(1) if exclusive else logits.sigmoid()).numpy())
            bar.advance(len(rows))
    return finite(np.concatenate(world.gathered(ours, len(batches))), mode)


def mean_probability(passes: Sequence[Scores]) -> Scores:
    """The mean of probabilities."""
    mean: Scores = np.stack(passes).mean(0, dtype=np.float64).astype(np.float32)
    return mean


def mean_log_odds(passes: Sequence[Scores]) -> Scores:
    """Log-odds of the mean of the probabilities that have these log-odds, without rounding to 1."""
    mean = np.empty_like(passes[0], np.float32)
    for start in range(0, len(mean), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        odds = np.stack([found[part] for found in passes]).astype(np.float64)
        yes, no = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
        mean[part] = np.logaddexp.reduce(yes, axis=0) - np.logaddexp.reduce(no, axis=0)
    return mean


def _answers(
    task: Task, labels: Sequence[str], examples: Sequence[Example], scores: Scores
) -> dict[ExampleId, Answer]:
    if task.head == "match":
        return rank_answers(examples, scores)
    best = scores.argmax(1)
    return {
        example.example_id: labels[index] for example, index in zip(examples, best, strict=True)
    }
