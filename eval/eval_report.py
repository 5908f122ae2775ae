"""The report of an evaluation, for people and for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semvlp.errors import printable
from semvlp.progress import duration

SCORES_NAME = "scores.json"
PAGE_NAME = "report.html"
LOWER_IS_BETTER = ("distribution", "ece")
# More do not fit on a screen beside the scores.
SHOWN_CLASSES = 12


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
        return f"{readable(self.scores)}\n{wrote}"


def readable(scores: Mapping[str, Any]) -> str:
    """Return scores for people, lines of text: a column for each mode, the commonest classes.

    Args:
        scores: what `scores.json` holds, or what `score` found.
    """
    of = ", ".join(f"{count:,} {name}" for name, count in scores["counts"].items())
    return "\n".join([*_table(modes_of(scores)), *_classes(scores.get("classes", {})), f"of {of}"])


def modes_of(scores: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the scores by mode, whether there are several or one."""
    return dict(scores.get("modes", {scores.get("mode", ""): scores}))


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
    lines = [" " * 24 + "".join(f"{mode:>17}" for mode in modes)] if any(modes) else []
    for name in names:
        # A score may be known of one mode alone, as AUROC where another names a third class.
        values = [f"{found[name]:.2f}" if name in found else "" for found in modes.values()]
        lines.append(f"{name:<24}" + "".join(f"{value:>17}" for value in values))
        ends = [found[name] for found in map(intervals_of, modes.values()) if name in found]
        if ends:
            between = "".join(f"{f'{low:.1f} to {high:.1f}':>17}" for low, high in ends)
            lines.append(f"{'  95 % interval':<24}{between}")
    return lines


def _classes(classes: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the table by class as lines of text, the classes with most examples first."""
    if not classes:
        return []
    columns = next(iter(classes.values()))
    most = sorted(classes, key=lambda name: classes[name]["count"], reverse=True)
    lines = [f"{'class':<24}" + "".join(f"{name:>17}" for name in columns)]
    for name in most[:SHOWN_CLASSES]:
        *shares, count = classes[name].values()
        cells = [*(f"{share:.2f}" for share in shares), f"{count:.0f}"]
        lines.append(f"{printable(name)[:23]:<24}" + "".join(f"{cell:>17}" for cell in cells))
    if len(most) > SHOWN_CLASSES:
        lines.append(f"and {len(most) - SHOWN_CLASSES:,} more (all with --json)")
    return lines
