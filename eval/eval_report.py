"""The report of an evaluation, for people and for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semvlp.progress import duration

SCORES_NAME = "scores.json"
PAGE_NAME = "report.html"
LOWER_IS_BETTER = ("distribution", "ece")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalReport:
    """The files and the scores of an evaluation."""

    out: Path
    file: Path
    """The leaderboard file."""
    count: int
    """How many answers it holds."""
    scores: dict[str, Any] | None
    """What `scores.json` holds; None where the split has no labels."""
    examples: int
    seconds: float

    def values(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "out": str(self.out),
            "file": str(self.file),
            "report": str(self.out / PAGE_NAME),
            "examples": self.examples,
            "scores": self.scores,
            "seconds": round(self.seconds, 3),
        }

    def sentence(self) -> str:
        """Say what was written, how long it took, where it is; with labels, the scores by mode."""
        wrote = (
            f"Wrote {self.count} answers to {self.file} in {duration(self.seconds)}; "
            f"open {self.out / PAGE_NAME} in a browser."
        )
        if self.scores is None:
            return wrote + " The split has no labels, so there are no scores."
        return "\n".join([*_table(modes_of(self.scores)), wrote])


def modes_of(scores: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the scores by mode, whether there are several or one."""
    return dict(scores.get("modes", {scores["mode"]: scores}))


def numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return what is a score: intervals, counts and names are left out."""
    return {name: value for name, value in scores.items() if isinstance(value, float)}


def intervals_of(scores: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return the ends of the interval of each score that has one."""
    return {name: tuple(scores[key]) for name in scores if (key := f"{name}_interval") in scores}


def best_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the best value of each score; none where all rows that have it are equal."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row[name] for row in rows if name in row] for name in names}
    better = {name: min if name in LOWER_IS_BETTER else max for name in columns}
    return {name: better[name](values) for name, values in columns.items() if len(set(values)) > 1}


def _table(modes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the scores as lines of text: one column for each mode."""
    names = numbers(next(iter(modes.values())))
    lines = [" " * 24 + "".join(f"{mode:>17}" for mode in modes)]
    for name in names:
        # A score may be known of one mode alone, as AUROC where another names a third class.
        values = [f"{found[name]:.2f}" if name in found else "" for found in modes.values()]
        lines.append(f"{name:<24}" + "".join(f"{value:>17}" for value in values))
        ends = [found[name] for found in map(intervals_of, modes.values()) if name in found]
        if ends:
            between = "".join(f"{f'{low:.1f} to {high:.1f}':>17}" for low, high in ends)
            lines.append(f"{'  95 % interval':<24}{between}")
    return lines
