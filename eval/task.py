"""The contract of a task: its examples, its head, its answers, its leaderboard file, its scores.

N examples, C labels; Q texts and K images that are compared with each other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from semvlp.eval.credits import Credits

if TYPE_CHECKING:  # tasks are named and files are scored without PyTorch
    from semvlp.model.packing import PairRegions

Head = Literal["pooled", "pair", "match", "region"]
Loss = Literal["cross_entropy", "binary_cross_entropy"]
Pass = Literal["single", "two"]
Scores = NDArray[np.float32]
ExampleId = str | int
RegionsOf = Callable[[Sequence[str]], "Sequence[PairRegions]"]
"""Gives the regions of images by their names."""


class Rank(NamedTuple):
    """The place of the right candidate of a retrieval query among all candidates."""

    rank: int
    """From 1; wrong candidates with the same score stand before it."""
    ties: int
    """How many wrong candidates have exactly its score."""
    fold_rank: int | None = None
    """Likewise among its own fold of 1,000 images; None where the split has no folds."""
    fold_ties: int | None = None


class Choice(NamedTuple):
    """The label that was chosen and how probable it is."""

    label: str
    probability: float | None = None
    """0..1; None where whoever chose does not say."""


Box = tuple[float, float, float, float]


class Reach(NamedTuple):
    """How well regions fit the box that an expression speaks of: IoU, 0..1, of some of them."""

    best: float
    """Of the one that fits best: who chooses among regions gets no further."""
    first: float
    """Of the first one, which is the most confident where a detector chose them."""
    largest: float


class Referent(NamedTuple):
    """The box that a referring expression is said to speak of."""

    ref_id: int
    box: Box
    """x, y, width, height in pixels of the original image."""
    reach: Reach | None = None
    """Of the regions that it was chosen from; None where they are not known."""


Answer = str | Rank | Choice | Referent


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
    gallery: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Names of the images that its text is compared with, those without a text among them."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """More that the scorer needs.

    `subset`, where present, names the part it is counted in; `cluster` what it is right and wrong
    together with, where that is more than its images; `parts`, for the tables of a report, maps
    the name of a table to the rows that the example is counted in.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A leaderboard file that was written and read back."""

    path: Path
    count: int
    size: int
    """Bytes."""
    sha256: str


Stop = Callable[[], bool]
"""Asked between batches: whether to stop there."""


def never() -> bool:
    """Go on to the end."""
    return False


class Predictions(NamedTuple):
    """The answers of one mode."""

    answers: dict[ExampleId, Answer]
    confidence: Scores | None
    """[N] The probability of each answer; None where answers have none."""
    retrieved: Mapping[ExampleId, Sequence[str]] = MappingProxyType({})
    """The images that fit each caption best, best first; none where nothing is compared."""


class Passes(Protocol):
    """A network that can be run over all examples of a task; each process runs its share."""

    def probabilities(self, mode: Pass) -> Scores:
        """Return the probabilities [N, C] of the labels of each example.

        With the region head C is the number of regions of the image that has most of them, and
        others have zeros behind theirs.
        """

    def score_matrix(self, mode: Pass) -> Scores:
        """Return the log-odds [Q, K] that each text belongs to each image; -inf: not computed."""


class Task(Protocol):
    """One benchmark."""

    name: str
    head: Head
    loss: Loss
    metric: str
    """The score that tells the better of two models; higher is better."""
    draws_negatives: bool
    """Whether fine-tuning also shows wrong pairs, as `retrieval.*` says."""

    columns: Mapping[str, str]
    """Names of columns by role that the user gave; none but for tables."""

    def suited_to(self, paths: Sequence[Path], columns: Mapping[str, str]) -> "Task":
        """Return the task as it is for some annotation files: itself, but for tables.

        Args:
            columns: names of columns by role that the user gave.

        Raises:
            ConfigError: columns are named and the task has none.
            InputError: as `read`.
        """

    def read_beside(self, paths: Sequence[Path]) -> list[Path]:
        """Return the files that `read` takes besides those it is given, because they lie there."""

    def read(self, paths: Sequence[Path], *, split: str = "train") -> list[Example]:
        """Return the examples of the official annotation files, gzipped or not.

        Args:
            paths: one file, or several of the same task.
            split: which part to take of a file that holds several (Karpathy JSON); files that
                hold one split ignore it.

        Raises:
            InputError: the file belongs to another task or is damaged; names file and entry.
        """

    def labels(self, examples: Sequence[Example]) -> list[str]:
        """Return the labels of a new head: fixed by the task, or built from training examples."""

    def zero_shot_labels(self, answers: Sequence[str]) -> list[str]:
        """Return the labels under which a head of pre-training, as it stands, answers the task.

        Args:
            answers: all that the answer head of a pre-training checkpoint knows, in its order.

        Returns:
            labels of the matching head or of rows of the answer head; none: fine-tune first.
        """

    def spelling(self, answer: str) -> str:
        """Return what answers that are the same have in common, however they are written."""

    def ids(self, examples: Sequence[Example]) -> list[ExampleId]:
        """Return the ids that the leaderboard file must answer, each once, in the order written."""

    def baseline_examples(self, paths: Sequence[Path]) -> list[Example]:
        """Return the training examples that baselines learn labels from; none where it has none.

        Raises: as `read`.
        """

    def check_shortlist(self) -> None:
        """Check that the task compares pairs, so that a shortlist can leave some of them out.

        Raises:
            ConfigError: it compares none.
        """

    def targets(
        self, example: Example, index_of: Mapping[str, int], images: "Sequence[PairRegions]"
    ) -> list[float]:
        """Return the score, 0..1, that each logit of an example is trained towards.

        Args:
            index_of: the place of each label among the network's, by its spelling.
            images: the regions of each image of the example.
        """

    def run_pass(self, passes: Passes, mode: Pass) -> Scores:
        """Run one pass of the network over the examples and return the scores it gives."""

    def mean(self, scores: Sequence[Scores]) -> Scores:
        """Return the mean over passes of what `run_pass` gave for each."""

    def answers(
        self,
        examples: Sequence[Example],
        labels: Sequence[str],
        scores: Scores,
        regions: RegionsOf,
    ) -> dict[ExampleId, Answer]:
        """Return the answer to each of the task's ids that the scores of `run_pass` say.

        Args:
            labels: of the network, in the order of its logits.
            regions: gives the regions of images by their names, as the network saw them.
        """

    def write(self, answers: Mapping[ExampleId, Answer], path: Path) -> Submission:
        """Write the leaderboard file, ids in the order given, and read it back."""

    def read_answers(self, path: Path) -> dict[ExampleId, Answer]:
        """Read a leaderboard file that anybody made; refuse what the leaderboard would refuse."""

    def file_name(self, split: str) -> str:
        """Return the name of the leaderboard file of a split."""

    def example_score(self, example: Example, answer: Answer) -> float:
        """Return how right an answer to one example is, 0..1."""

    def warnings(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> list[str]:
        """Return one sentence for each likely mistake that a leaderboard would accept.

        Such as answers that are all the same, or spelled so that they count as wrong.
        """

    def confidence(self, scores: Scores) -> Scores | None:
        """Return the probability [N] of the answer to each example; None where there is no such.

        Args:
            scores: what `run_pass` gave, or their mean.
        """

    def retrieved(
        self, examples: Sequence[Example], scores: Scores
    ) -> Mapping[ExampleId, Sequence[str]]:
        """Return the few images that fit each example best, best first; none for other tasks.

        Args:
            scores: what `run_pass` gave, or their mean.
        """

    def counted(self, examples: Sequence[Example]) -> list[Example]:
        """Return the examples that the main score is over."""

    def credits(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, Credits]:
        """Return the credits of scores that are means, by the names that `score` uses.

        Their intervals, and differences to other answers, come from them.

        Raises: as `score`.
        """

    def details(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, Any]:
        """Return what stands beside the scores and is none: tables, by what rule they are."""

    def score(
        self, examples: Sequence[Example], answers: Mapping[ExampleId, Answer]
    ) -> dict[str, float]:
        """Return scores by name, in percent unless the task says otherwise.

        Raises:
            InputError: an id without an answer or an answer without an id.
        """
