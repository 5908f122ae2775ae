"""Scores of several evaluations side by side, one table for each task and split.

Evaluations of the same examples are also paired: what a later one has more than the first one.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.eval.credits import Credits, Difference, difference
from semvlp.eval.eval_report import SCORES_NAME, best_of, intervals_of, modes_of, numbers
from semvlp.eval.files.credits_file import CREDITS_NAME, read_credits


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """What one evaluation scores more than another one with the same examples, in one mode."""

    evaluation: str
    minus: str
    mode: str
    scores: dict[str, Difference]

    def values(self) -> list[dict[str, Any]]:
        """Return one plain object for each score."""
        names = {"evaluation": self.evaluation, "minus": self.minus, "mode": self.mode}
        return [
            {**names, "score": score, **_plain(paired)} for score, paired in self.scores.items()
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """The evaluations of one task and split."""

    title: str
    rows: dict[str, Mapping[str, Any]]
    """Scores and intervals: baselines, then each evaluation by mode."""
    differences: list[PairedDifference]
    """Of each later evaluation to the first one."""
    remarks: list[str]
    """Why a difference is missing."""

    @property
    def numbers(self) -> dict[str, dict[str, float]]:
        """Return the scores of each row."""
        return {name: numbers(values) for name, values in self.rows.items()}

    @property
    def intervals(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Return the intervals of each row."""
        return {name: intervals_of(values) for name, values in self.rows.items()}

    @property
    def columns(self) -> list[str]:
        """Return the scores that any row has."""
        return list(dict.fromkeys(name for row in self.numbers.values() for name in row))

    @property
    def best(self) -> dict[str, float]:
        """Return the best value of each score."""
        return best_of(list(self.numbers.values()))


def is_evaluation(folder: Path) -> bool:
    """Tell whether `semvlp eval` has written scores into it."""
    return (folder / SCORES_NAME).is_file()


def score_tables(folders: Sequence[Path], names: Sequence[str]) -> list[SideBySide]:
    """Return a table for each task and split.

    Raises:
        InputError: a scores.json or credits.jsonl that `semvlp eval` has not written.
    """
    tables: dict[str, dict[str, tuple[Path, dict[str, Any]]]] = {}
    for folder, name in zip(folders, names, strict=True):
        scores = _read(folder)
        title = f"{scores['task']}, {scores['split']}"
        tables.setdefault(title, {})[name] = folder, scores
    return [_table(title, evaluations) for title, evaluations in tables.items()]


def _table(title: str, evaluations: Mapping[str, tuple[Path, dict[str, Any]]]) -> SideBySide:
    # Baselines need no network, so they are the same in every evaluation of a split.
    baselines = [scores["baselines"] for _, scores in evaluations.values()]
    rows = {name: values for learned in reversed(baselines) for name, values in learned.items()}
    for name, (_, scores) in evaluations.items():
        rows |= {f"{name}, {mode}": values for mode, values in modes_of(scores).items()}
    differences, remarks = _differences({n: folder for n, (folder, _) in evaluations.items()})
    return SideBySide(title=title, rows=rows, differences=differences, remarks=remarks)


def _differences(folders: Mapping[str, Path]) -> tuple[list[PairedDifference], list[str]]:
    """Return the differences of the evaluations to the first one, and why some are missing."""
    if len(folders) < 2:
        return [], []
    remarks = [
        f"{name} holds no {CREDITS_NAME}, so it is not paired with the others; evaluate again with "
        "--overwrite"
        for name, folder in folders.items()
        if not (folder / CREDITS_NAME).is_file()
    ]
    known = {
        name: read_credits(folder / CREDITS_NAME)
        for name, folder in folders.items()
        if (folder / CREDITS_NAME).is_file()
    }
    first, *others = known or [""]
    differences = []
    for name in others:
        pairs = _paired(known[first], known[name])
        if not pairs:
            remarks.append(f"{name} answers other examples than {first}, so they are not paired")
        differences += [
            PairedDifference(evaluation=name, minus=first, mode=mode, scores=scores)
            for mode, scores in pairs.items()
        ]
    return differences, remarks


def _paired(
    first: Mapping[str, Mapping[str, Credits]], other: Mapping[str, Mapping[str, Credits]]
) -> dict[str, dict[str, Difference]]:
    """Return the differences of scores by mode that both have; none where the examples differ."""
    if _units(first) != _units(other):
        return {}
    return {
        mode: {
            name: difference(credits, other[mode][name])
            for name, credits in scores.items()
            if name in other[mode]
        }
        for mode, scores in first.items()
        if mode in other
    }


def _units(modes: Mapping[str, Mapping[str, Credits]]) -> set[Hashable]:
    return {unit for scores in modes.values() for own in scores.values() for unit in own.units}


def _plain(paired: Difference) -> dict[str, Any]:
    values = paired._asdict()
    return {"difference": values.pop("mean"), **values, "interval": list(paired.interval)}


def _read(folder: Path) -> dict[str, Any]:
    path = folder / SCORES_NAME
    try:
        scores = from_json(path.read_bytes())
        missing = {"task", "split", "mode", "baselines"} - scores.keys()
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: must be the JSON that `semvlp eval` writes: {error}") from error
    if missing:
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}; evaluate again")
    return dict(scores)
