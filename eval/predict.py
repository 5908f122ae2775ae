"""Prediction: examples in batches to probabilities or to a score matrix, these to answers.

N examples, C labels; Q captions, K images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from semvlp.distributed import ALONE, World
from semvlp.eval.limits import DEFAULT_LIMITS, Limits
from semvlp.eval.lookup import RegionLookup
from semvlp.eval.matching.score_matrix import Scratch, score_matrix
from semvlp.eval.network import Network, finite
from semvlp.eval.task import (
    Answer,
    Example,
    ExampleId,
    Pass,
    Predictions,
    Scores,
    Stop,
    Task,
    never,
)
from semvlp.eval.tasks.base import mean_probability
from semvlp.model.task_network import TaskNetwork
from semvlp.names import EvalMode
from semvlp.progress import Progress
from semvlp.shards.stores.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """How answers are computed; changes time and memory, and with `wanted` what is ranked."""

    world: World = ALONE
    scratch: Scratch | None = None
    """Where retrieval saves finished blocks, to go on from; None saves nothing."""
    wanted: NDArray[np.bool_] | None = None
    """[Q, K] True: a pair of retrieval that is scored at all; None scores all."""
    stop: Stop = never
    """Ends it with Interrupted, on all ranks where it is true on one."""


DEFAULT = PredictOptions()


def predict(
    model: TaskNetwork,
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
    """Return probabilities [N, C] float32 in the order of `examples` and of the model's labels.

    Labels exclude each other (softmax) where the head was trained with cross-entropy, else each has
    its own probability (sigmoid). `both` is the mean over the two passes.

    Raises:
        InputError: images that the store lacks.
        SemVLPError: the network gives a value that is not finite.
    """
    network = Network(
        model=model, tokenizer=tokenizer, device=device, batch_size=batch_size, limits=limits
    )
    lookup = RegionLookup(store, examples, max_regions=limits.max_regions)
    return mean_probability(
        [probabilities(network, task, examples, lookup, one) for one in passes_of(mode)]
    )


def answers_by_mode(
    network: Network,
    task: Task,
    examples: Sequence[Example],
    store: Store,
    mode: EvalMode,
    options: PredictOptions = DEFAULT,
) -> dict[EvalMode, dict[ExampleId, Answer]]:
    """Return the answers of `predictions_by_mode`."""
    given = predictions_by_mode(network, task, examples, store, mode, options)
    return {one: predictions.answers for one, predictions in given.items()}


def predictions_by_mode(
    network: Network,
    task: Task,
    examples: Sequence[Example],
    store: Store,
    mode: EvalMode,
    options: PredictOptions = DEFAULT,
) -> dict[EvalMode, Predictions]:
    """Return the answers of each pass, and for `both` also those of their mean.

    They are the same on every rank.

    Raises: as `predict`; Interrupted where `options.stop` says so.
    """
    most = network.limits.max_regions
    lookup = RegionLookup(store, examples, max_regions=most, galleries=True)
    passes = _Passes(network, task, examples, lookup, options)
    scores: dict[EvalMode, Scores] = {one: task.run_pass(passes, one) for one in passes_of(mode)}
    if mode == "both":
        scores["both"] = task.mean(list(scores.values()))
    return {
        one: Predictions(
            task.answers(examples, network.labels, of, lookup),
            task.confidence(of),
            task.retrieved(examples, of),
        )
        for one, of in scores.items()
    }


def passes_of(mode: EvalMode) -> tuple[Pass, ...]:
    """Return the passes that a mode takes."""
    return ("single", "two") if mode == "both" else (mode,)


@dataclass(frozen=True, slots=True)
class _Passes:
    """The network and the examples of one task, see `Passes`."""

    network: Network
    task: Task
    examples: Sequence[Example]
    lookup: RegionLookup
    options: PredictOptions

    def probabilities(self, mode: Pass) -> Scores:
        world, stop = self.options.world, self.options.stop
        return probabilities(self.network, self.task, self.examples, self.lookup, mode, world, stop)

    def score_matrix(self, mode: Pass) -> Scores:
        return score_matrix(
            self.network,
            self.examples,
            self.lookup,
            mode,
            world=self.options.world,
            scratch=self.options.scratch,
            wanted=self.options.wanted,
            stop=self.options.stop,
        )


def probabilities(
    network: Network,
    task: Task,
    examples: Sequence[Example],
    lookup: RegionLookup,
    mode: Pass,
    world: World = ALONE,
    stop: Stop = never,
) -> Scores:
    """Return the probabilities [N, C] of one pass; see `predict`."""
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
            if stop():
                break
            # One text goes with each image: a pair of images makes two pairs, side by side.
            names = [name for row in rows for name in examples[row].images]
            ids = [texts[row] for row in rows for _ in examples[row].images]
            logits = network.logits(ids, lookup(names), mode)
            ours.append(chances(network, task, logits))
            bar.advance(len(rows))
    world.check_stop(stop())
    return finite(_one_under_another(world.gathered(ours, len(batches))), mode)


def _one_under_another(parts: Sequence[Scores]) -> Scores:
    """Return all rows as one array; batches whose images have fewer regions get zeros behind."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])


def chances(network: Network, task: Task, logits: Tensor) -> Scores:
    """Return the probabilities [N, C] of logits [N, C] of a task; see `predict`."""
    exclusive = network.is_exclusive(task)
    probable: Scores = (logits.softmax(1) if exclusive else logits.sigmoid()).numpy()
    return probable
