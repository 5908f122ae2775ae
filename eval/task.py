"""What a task is: its examples, its head, its leaderboard file and its scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

Head = Literal["pooled", "pair", "match"]
Loss = Literal["cross_entropy", "binary_cross_entropy"]
ExampleId = str | int


class Rank(NamedTuple):
    """Where the right candidate of a retrieval query stands."""

    rank: int
    """From 1; wrong candidates with the same score stand before it."""
    ties: int
    """How many wrong candidates have exactly its score."""
    fold_rank: int | None = None
    """Likewise among its own fold of 1,000 images; None where the split has no folds."""
    fold_ties: int | None = None


Answer = str | Rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One thing to predict: a text and the image or images it speaks of."""

    example_id: ExampleId
    """The id of the annotation file in its own type; ids are never cast."""
    text: str
    images: tuple[str, ...]
    """Names of the images as the annotation file spells them; two for the pair head."""
    target: Mapping[str, float] = field(default_factory=dict)
    """Score of each right label; empty where the split has no labels."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the scorer needs besides.

    `subset`, where present, names the part it is counted in; `parts`, for the tables of a report,
    maps the name of a table to the rows that the example is counted in.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A leaderboard file that was written and read back."""

    path: Path
    count: int
    size: int
    """Bytes."""
    sha256: str


class Task(Protocol):
    """One benchmark."""

    name: str
    head: Head
    loss: Loss
    metric: str
    """The score that tells the better of two models; higher is better."""

    def read(self, paths: Sequence[Path], *, split: str = "train") -> list[Example]:
        """Examples of the official annotation files, gzipped or not.

        Args:
            paths: one file, or several of the same task.
            split: which part to take of a file that holds several (Karpathy JSON); files that
                hold one split ignore it.

        Raises:
            InputError: the file belongs to another task or is damaged; names file and entry.
        """

    def labels(self, examples: Sequence[Example]) -> list[str]:
        """The label list of a new head: fixed by the task, or built from training examples."""

    def ids(self, examples: Sequence[Example]) -> list[ExampleId]:
        """What the leaderboard file must answer, each exactly once, in the order it is written."""

    def write(self, answers: Mapping[ExampleId, Answer], path: Path) -> Submission:
        """Write the leaderboard file, ids in the order given, and read it back."""

    def read_answers(self, path: Path) -> dict[ExampleId, Answer]:
        """Read a leaderboard file anybody made; refuse what the leaderboard would refuse."""

    def file_name(self, split: str) -> str:
        """Name of the leaderboard file of a split."""

    def example_score(self, example: Example, answer: Answer) -> float:
        """How right an answer to one example is, 0..1."""

    def warnings(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> list[str]:
        """What a leaderboard accepts but hardly anybody means, one sentence each."""

    def score(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, float]:
        """Scores by name, in percent unless the task says otherwise.

        Raises:
            InputError: an id without an answer or an answer without an id.
        """
