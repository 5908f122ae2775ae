"""credits.jsonl: the credits of every unit in each mode, from which evaluations are compared.

The first line names the scores, each with the highest mean that there can be.
Each other line is one unit: an example, or what else a score counts (a sentence, an image).

    {"most": {"accuracy": 1.0}}
    {"unit": 9001, "cluster": ["9"], "single": {"accuracy": 1.0}, "two": {"accuracy": 0.3}}
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from semvlp.atomic import write_text
from semvlp.documents import from_json
from semvlp.errors import InputError
from semvlp.eval.credits import Credits

CREDITS_NAME = "credits.jsonl"
CreditsByMode = Mapping[Any, Mapping[str, Credits]]
"""Those of each score, by mode."""


def write_credits(path: Path, credits: CreditsByMode) -> None:
    """Write the credits of an evaluation."""
    lines: dict[tuple[Hashable, Hashable], dict[str, dict[str, float]]] = {}
    most: dict[str, float] = {}
    for mode, scores in credits.items():
        for name, own in scores.items():
            most[name] = own.most
            for unit, cluster, value in zip(own.units, own.clusters, own.values, strict=True):
                lines.setdefault((unit, cluster), {}).setdefault(mode, {})[name] = float(value)
    entries = [{"unit": unit, "cluster": of, **modes} for (unit, of), modes in lines.items()]
    write_text(path, "".join(f"{json.dumps(entry)}\n" for entry in [{"most": most}, *entries]))


def read_credits(path: Path) -> dict[str, dict[str, Credits]]:
    """Return the credits that `write_credits` wrote.

    Raises:
        InputError: no such file, or it is damaged; names the line.
    """
    columns: dict[str, dict[str, list[tuple[float, Hashable, Hashable]]]] = {}
    where = f"{path}, line 1"
    try:
        with path.open(encoding="utf-8") as lines:
            head = from_json(next(lines, ""))["most"]
            most = {name: float(limit) for name, limit in head.items()}
            for number, line in enumerate(lines, start=2):
                where = f"{path}, line {number}"
                entry = from_json(line)
                key = _hashable(entry.pop("cluster")), _hashable(entry.pop("unit"))
                for mode, scores in entry.items():
                    for name, value in scores.items():
                        rows = columns.setdefault(mode, {}).setdefault(name, [])
                        rows.append((float(value), *key))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{where}: must hold the credits that `semvlp eval` writes, but: {error!r}; evaluate "
            "again with --overwrite"
        ) from error
    return {
        mode: {name: _credits(scores[name], most[name]) for name in most if name in scores}
        for mode, scores in columns.items()
    }


def _credits(rows: Sequence[tuple[float, Hashable, Hashable]], most: float) -> Credits:
    values, clusters, units = zip(*rows, strict=True)
    return Credits(values, clusters, units, most)


def _hashable(value: Any) -> Hashable:
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    if not isinstance(value, str | int):
        raise TypeError(f"no name or number: {value!r}")
    return value
