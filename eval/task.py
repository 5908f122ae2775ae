"""What a task is: annotations -> examples, which head, how answers become text, how it is scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Head = Literal["pooled", "pair", "match"]
Loss = Literal["cross_entropy", "binary_cross_entropy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One thing to predict: a text and the image or images it speaks of."""

    example_id: str | int
    """The id of the annotation file in its own type; ids are never cast."""
    text: str
    images: tuple[str, ...]
    """Names of the images as the annotation file spells them; two for the pair head."""
    target: Mapping[str, float] = field(default_factory=dict)
    """Score of each right label; empty where the split has no labels."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the scorer needs besides: question type, subsets, groups."""


class Task(Protocol):
    """One benchmark."""

    name: str
    head: Head
    loss: Loss

    def read(self, paths: Sequence[Path]) -> list[Example]:
        """Examples of the official annotation files.

        Raises:
            InputError: the file belongs to another task or is damaged; names file and entry.
        """

    def labels(self, examples: Sequence[Example]) -> list[str]:
        """The label list of a new head: fixed by the task, or built from training examples."""

    def write(self, answers: Mapping[str | int, str], path: Path) -> None:
        """Write the leaderboard file, ids in the order given, and read it back."""

    def read_answers(self, path: Path) -> dict[str | int, str]:
        """Read a leaderboard file anybody made; refuse what the leaderboard would refuse."""

    def file_name(self, split: str) -> str:
        """Name of the leaderboard file of a split."""

    def score(
        self, examples: Sequence[Example], answers: Mapping[str | int, str]
    ) -> dict[str, Any]:
        """Scores by name, in percent; every example must have exactly one answer."""
