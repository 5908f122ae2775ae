"""Scores of several evaluations side by side, one table for each task and split."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.eval.eval_report import SCORES_NAME, best_of, modes_of

# Baselines need no network, so they are the same in every evaluation of a split.
Row = tuple[str, dict[str, float]]


def is_evaluation(folder: Path) -> bool:
    """Tell whether `semvlp eval` has written scores into it."""
    return (folder / SCORES_NAME).is_file()


def score_tables(folders: Sequence[Path], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return title, columns, rows and best values of each table.

    Rows are baselines, then each evaluation by mode.

    Raises:
        InputError: a scores.json that `semvlp eval` has not written.
    """
    tables: dict[str, list[Row]] = {}
    for folder, name in zip(folders, names, strict=True):
        scores = _read(folder)
        rows = tables.setdefault(f"{scores['task']}, {scores['split']}", [])
        known = [row for row, _ in rows]
        rows += [entry for entry in _numbers(scores["baselines"]) if entry[0] not in known]
        rows += [(f"{name}, {mode}", values) for mode, values in _numbers(modes_of(scores))]
    return [
        {
            "title": title,
            "columns": list(dict.fromkeys(column for _, values in rows for column in values)),
            "rows": rows,
            "best": best_of([values for _, values in rows]),
        }
        for title, rows in tables.items()
    ]


def _numbers(scores: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    return [
        (name, {key: value for key, value in values.items() if isinstance(value, float)})
        for name, values in scores.items()
    ]


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
