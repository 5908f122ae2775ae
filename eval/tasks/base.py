"""The base of all tasks: one label to each example, one leaderboard file.

N examples, C labels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from semvlp.atomic import is_plain_name
from semvlp.errors import ConfigError, shown
from semvlp.eval import metrics
from semvlp.eval.credits import Credits
from semvlp.eval.files.forms import Form
from semvlp.eval.files.submission import checked, read, write
from semvlp.eval.task import (
    Answer,
    Example,
    ExampleId,
    Pass,
    Passes,
    RegionsOf,
    Scores,
    Submission,
    Task,
)

if TYPE_CHECKING:
    from semvlp.model.packing import PairRegions


class BaseTask(Task):
    """A task whose answers are labels; it lacks its name, head, loss, metric, form and read."""

    form: Form
    fixed_labels: Sequence[str] = ()
    """The labels of a task that has the same ones for all data."""
    draws_negatives = False
    columns: Mapping[str, str] = MappingProxyType({})

    def suited_to(self, paths: Sequence[Path], columns: Mapping[str, str]) -> Task:
        """Return the task itself: official files are read as they are."""
        if columns:
            raise ConfigError(
                f"--columns names the columns of a table (--task table); the task {self.name} "
                "reads official files as they are"
            )
        return self

    def read_beside(self, paths: Sequence[Path]) -> list[Path]:
        """Return none: what is read is what is given."""
        return []

    def labels(self, examples: Sequence[Example]) -> list[str]:
        """Return the labels that the task fixes."""
        return list(self.fixed_labels)

    def zero_shot_labels(self, answers: Sequence[str]) -> list[str]:
        """Return the task's fixed labels, or else all answers, if the answer head knows them."""
        labels = self.fixed_labels or answers
        known = self.head == "pooled" and set(labels) <= set(answers)
        return list(labels) if known else []

    def spelling(self, answer: str) -> str:
        """Return the answer as it is: labels have one spelling, unless the task knows better."""
        return answer

    def ids(self, examples: Sequence[Example]) -> list[ExampleId]:
        """Return the ids of the examples: one answer to each."""
        return [example.example_id for example in examples]

    def baseline_examples(self, paths: Sequence[Path]) -> list[Example]:
        """Return all training examples."""
        return self.read(paths)

    def check_shortlist(self) -> None:
        """Refuse a shortlist: one label to each example compares no pairs."""
        raise ConfigError("a shortlist is for retrieval; leave --shortlist out for this task")

    def targets(
        self, example: Example, index_of: Mapping[str, int], images: "Sequence[PairRegions]"
    ) -> list[float]:
        """Return the score of each label; of answers that are spelled alike the best one."""
        row = [0.0] * len(index_of)
        for answer, score in example.target.items():
            index = index_of.get(self.spelling(answer))
            if index is not None:
                row[index] = max(row[index], score)
        return row

    def run_pass(self, passes: Passes, mode: Pass) -> Scores:
        """Return the probabilities [N, C] of the labels."""
        return passes.probabilities(mode)

    def mean(self, scores: Sequence[Scores]) -> Scores:
        """Return the mean probabilities."""
        return mean_probability(scores)

    def answers(
        self,
        examples: Sequence[Example],
        labels: Sequence[str],
        scores: Scores,
        regions: RegionsOf,
    ) -> dict[ExampleId, Answer]:
        """Return the most probable label of each example; of equal ones the first."""
        best = scores.argmax(1)
        return {e.example_id: labels[index] for e, index in zip(examples, best, strict=True)}

    def confidence(self, scores: Scores) -> Scores | None:
        """Return the highest probability of each example."""
        highest: Scores = scores.max(1)
        return highest

    def retrieved(
        self, examples: Sequence[Example], scores: Scores
    ) -> Mapping[ExampleId, Sequence[str]]:
        """Return nothing: an example has its images."""
        return {}

    def counted(self, examples: Sequence[Example]) -> list[Example]:
        """Return all examples."""
        return list(examples)

    def example_score(self, example: Example, answer: Answer) -> float:
        """Return the score of the answer as the target states it."""
        return example.target.get(answer, 0.0) if isinstance(answer, str) else 0.0

    def credits(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, Credits]:
        """Return those of `metric` and of each subset, the `example_score` of each example."""
        checked(self.ids(examples), answers, str)
        counted = self.counted(examples)
        values = [self.example_score(e, answers[e.example_id]) for e in counted]
        overall = metrics.of_examples(counted, values)
        return {self.metric: overall, **metrics.by_subset(counted, values)}

    def score(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, float]:
        """Return the means of `credits`."""
        return {name: own.percent for name, own in self.credits(examples, answers).items()}

    def details(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, Any]:
        """Return nothing, unless the task knows more."""
        return {}

    def warnings(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> list[str]:
        """Return nothing, unless the task knows better."""
        return []

    def write(self, answers: Mapping[ExampleId, Answer], path: Path) -> Submission:
        """Write the leaderboard file, see `submission.write`."""
        return write(self.form, answers, path)

    def read_answers(self, path: Path) -> dict[ExampleId, Answer]:
        """Read a leaderboard file, see `submission.read`."""
        return read(self.form, path)

    def file_name(self, split: str) -> str:
        """Return e.g. `nlvr2_dev.csv`."""
        name = f"{self.name.replace('-', '_')}_{split}{self.form.extension}"
        if not is_plain_name(name):
            raise ConfigError(
                f"the split must be a name, part of that of a file in --out, got {shown(split)}; "
                "give another --split"
            )
        return name


def mean_probability(scores: Sequence[Scores]) -> Scores:
    """Return the mean of probabilities, taken in float64."""
    mean: Scores = np.stack(scores).mean(0, dtype=np.float64).astype(np.float32)
    return mean
