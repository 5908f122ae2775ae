"""What a network answers: examples in batches to probabilities, or a score matrix, to answers.

N examples, C labels; Q captions, K images.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from semvlp.errors import SemVLPError
from semvlp.eval.lookup import RegionLookup
from semvlp.eval.network import DEFAULT_LIMITS, Limits, Network, Pass
from semvlp.eval.retrieval import image_names, rank_answers
from semvlp.eval.task import Answer, Example, ExampleId, Task
from semvlp.model.semvlp import SemVLPForTask
from semvlp.progress import Progress
from semvlp.shards.store import Store

EvalMode = Literal["single", "two", "both"]
Scores = NDArray[np.float32]
# Images whose regions stay in memory while every caption is compared with them.
IMAGE_BLOCK = 64


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
    network: Network, task: Task, examples: Sequence[Example], store: Store, mode: EvalMode
) -> dict[EvalMode, dict[ExampleId, Answer]]:
    """The answers of each pass, and for `both` also those of their mean.

    Raises: as `predict`.
    """
    lookup = RegionLookup(store, examples, max_regions=network.limits.max_regions)
    every: dict[EvalMode, Scores] = {}
    for one in passes_of(mode):
        every[one] = (
            score_matrix(network, examples, lookup, one)
            if task.head == "match"
            else probabilities(network, task, examples, lookup, one)
        )
    if mode == "both":
        mean = mean_log_odds if task.head == "match" else mean_probability
        every["both"] = mean(list(every.values()))
    return {one: _answers(task, network.labels, examples, found) for one, found in every.items()}


def passes_of(mode: EvalMode) -> tuple[Pass, ...]:
    """The passes that a mode takes."""
    return ("single", "two") if mode == "both" else (mode,)


def probabilities(
    network: Network, task: Task, examples: Sequence[Example], lookup: RegionLookup, mode: Pass
) -> Scores:
    """Probabilities [N, C] of one pass; see `predict`."""
    texts = network.encode([example.text for example in examples])
    found = []
    with (
        network.inference(),
        Progress(f"{task.name}, {mode}", total=len(examples), unit="examples") as bar,
    ):
        for start in range(0, len(examples), network.batch_size):
            rows = range(start, min(start + network.batch_size, len(examples)))
            # One text goes with each image: a pair of images makes two pairs, side by side.
            names = [name for row in rows for name in examples[row].images]
            ids = [texts[row] for row in rows for _ in examples[row].images]
            logits = network.logits(ids, lookup(names), mode)
            exclusive = task.loss == "cross_entropy"
            found.append((logits.softmax(1) if exclusive else logits.sigmoid()).numpy())
            bar.advance(len(rows))
    return _finite(np.concatenate(found), mode)


def score_matrix(
    network: Network, examples: Sequence[Example], lookup: RegionLookup, mode: Pass
) -> Scores:
    """Log-odds [Q, K] that a caption and an image match, for every caption and every image.

    Log-odds rather than probabilities, which would tie near 0 and 1. The columns are
    `image_names(examples)`.
    """
    names, texts = image_names(examples), network.encode([example.text for example in examples])
    matrix = np.empty((len(texts), len(names)), np.float32)
    with (
        network.inference(),
        Progress(f"retrieval, {mode}", total=matrix.size, unit="pairs") as bar,
    ):
        for start in range(0, len(names), IMAGE_BLOCK):
            regions = lookup(names[start : start + IMAGE_BLOCK])
            block = matrix[:, start : start + IMAGE_BLOCK]
            for first in range(0, block.size, network.batch_size):
                cells = np.arange(first, min(first + network.batch_size, block.size))
                rows, columns = np.divmod(cells, len(regions))
                pairs = [texts[row] for row in rows], [regions[column] for column in columns]
                block[rows, columns] = _log_odds(network, network.logits(*pairs, mode))
                bar.advance(len(cells))
    return _finite(matrix, mode)


def mean_probability(passes: Sequence[Scores]) -> Scores:
    """The mean of probabilities."""
    mean: Scores = np.stack(passes).mean(0, dtype=np.float64).astype(np.float32)
    return mean


def mean_log_odds(passes: Sequence[Scores]) -> Scores:
    """Log-odds of the mean of the probabilities that have these log-odds, without rounding to 1."""
    odds = np.stack(passes).astype(np.float64)
    yes, no = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
    mean = np.logaddexp.reduce(yes, axis=0) - np.logaddexp.reduce(no, axis=0)
    rounded: Scores = mean.astype(np.float32)
    return rounded


def _log_odds(network: Network, logits: torch.Tensor) -> Scores:
    index = network.labels.index("match")
    values: Scores = (logits[:, index] - logits[:, 1 - index]).numpy()
    return values


def _answers(
    task: Task, labels: Sequence[str], examples: Sequence[Example], scores: Scores
) -> dict[ExampleId, Answer]:
    if task.head == "match":
        return rank_answers(examples, scores)
    best = scores.argmax(1)
    return {
        example.example_id: labels[index] for example, index in zip(examples, best, strict=True)
    }


def _finite(scores: Scores, mode: Pass) -> Scores:
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise SemVLPError(
            f"the network's scores must be finite, but {bad} of {scores.size} of the {mode} pass "
            "are not; its weights are damaged or its precision is too low"
        )
    return scores
