"""Answers without looking: the majority label, and a text-only classifier.

N training examples, V distinct 1-grams and 2-grams of words, C labels.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from math import fsum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from semvlp.eval.credits import intervals
from semvlp.eval.task import Answer, Example, ExampleId, Task

STEPS = 100
LEARNING_RATE = 0.1
WEIGHT_DECAY = 1e-4
# Rarer answers are never given: what they add is below what they cost.
MAX_LABELS = 1000
# A full-batch step takes time for every example, and memory for every example and label.
MAX_EXAMPLES = 100_000
MAX_LOGITS = 50_000_000
# Rarer n-grams tell nothing about other sentences.
MIN_SENTENCES = 2

_WORD = re.compile(r"[a-z0-9]+")


def baseline_scores(
    task: Task, train: Sequence[Path], valid: Sequence[Example]
) -> dict[str, dict[str, Any]]:
    """Return scores and intervals of `majority` and `text only`, learned from `train`.

    There are none where not all of these files are there, or where the task has no labels to learn
    from them. The classifier is left out for large training sets.
    """
    if not train or not all(path.is_file() for path in train):
        return {}
    learned = task.baseline_examples(train)
    if not learned:
        return {}
    answers = {"majority": majority(learned, valid)}
    labels = _frequent_labels(learned)[:MAX_LABELS]
    if len(learned) <= MAX_EXAMPLES and len(learned) * len(labels) <= MAX_LOGITS:
        answers["text only"] = text_only(learned, valid)
    return {
        name: {**task.score(valid, given), **intervals(task.credits(valid, given))}
        for name, given in answers.items()
    }


def majority(train: Sequence[Example], valid: Sequence[Example]) -> dict[ExampleId, Answer]:
    """Return for every example the label with the highest summed score in training.

    Raises:
        ValueError: no training example has a label.
    """
    best = _frequent_labels(train)[0]
    return {example.example_id: best for example in valid}


def text_only(train: Sequence[Example], valid: Sequence[Example]) -> dict[ExampleId, Answer]:
    """Answer by logistic regression on the words of the text; what it reaches needs no image.

    Full-batch descent from zero weights for a fixed number of steps: convex and deterministic.

    Raises:
        ValueError: no training example has a label.
    """
    labels = _frequent_labels(train)[:MAX_LABELS]
    train = [example for example in train if not example.target.keys().isdisjoint(labels)]
    vocabulary = _vocabulary(train)
    weights = _fit(_bags(train, vocabulary), _targets(train, labels), len(vocabulary) + 1)
    best = _logits(weights, *_bags(valid, vocabulary)).argmax(1).tolist()
    return {e.example_id: labels[index] for e, index in zip(valid, best, strict=True)}


def _frequent_labels(examples: Sequence[Example]) -> list[str]:
    """Return labels by falling summed score, among equals alphabetically whatever their order."""
    totals = defaultdict(list)
    for example in examples:
        for label, value in example.target.items():
            totals[label].append(value)
    if not totals:
        raise ValueError("a baseline needs training examples with labels, got none")
    return sorted(totals, key=lambda label: (-fsum(totals[label]), label))


def _ngrams(text: str) -> list[str]:
    words = ["^", *_WORD.findall(text.lower()), "$"]
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    return sorted({*words, *pairs})


def _vocabulary(examples: Sequence[Example]) -> dict[str, int]:
    """Give each frequent n-gram a row of the weights; row 0 is what all others share."""
    texts = {example.text for example in examples}
    counts = Counter(ngram for text in texts for ngram in _ngrams(text))
    frequent = sorted(ngram for ngram, count in counts.items() if count >= MIN_SENTENCES)
    return {ngram: row for row, ngram in enumerate(frequent, start=1)}


def _bags(examples: Sequence[Example], vocabulary: dict[str, int]) -> tuple[Tensor, Tensor]:
    """Return rows of all n-grams, example after example, and where each example starts [N]."""
    bags = [[vocabulary.get(ngram, 0) for ngram in _ngrams(e.text)] for e in examples]
    lengths = torch.tensor([len(bag) for bag in bags])
    return torch.tensor([row for bag in bags for row in bag]), lengths.cumsum(0) - lengths


def _targets(examples: Sequence[Example], labels: Sequence[str]) -> Tensor:
    """Return the distribution [N, C] of each example over the labels."""
    column = {label: index for index, label in enumerate(labels)}
    targets = torch.zeros(len(examples), len(labels))
    for row, example in enumerate(examples):
        for label in example.target.keys() & column.keys():
            targets[row, column[label]] = example.target[label]
    return targets / targets.sum(1, keepdim=True)


def _fit(bags: tuple[Tensor, Tensor], targets: Tensor, num_rows: int) -> Tensor:
    weights = torch.zeros(num_rows, targets.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(_logits(weights, *bags), targets)
        torch.autograd.backward([loss])
        optimizer.step()
    return weights.detach()


def _logits(weights: Tensor, rows: Tensor, starts: Tensor) -> Tensor:
    return F.embedding_bag(rows, weights, starts, mode="sum")
