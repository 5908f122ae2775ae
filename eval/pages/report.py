"""report.html of an evaluation: scores beside baselines, tables, answers to look at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semvlp.atomic import write_text
from semvlp.eval.eval_report import best_of, intervals_of, modes_of, numbers
from semvlp.eval.network import Network
from semvlp.eval.pages.gallery import cards, grouped
from semvlp.eval.task import Example, Predictions, Task
from semvlp.names import EvalMode
from semvlp.pages import render
from semvlp.shards.stores.store import Store

# Rows of a table of parts; the most frequent ones are shown.
MAX_ROWS = 30
SHORTLIST = {
    "pairs": "pairs compared",
    "ir_lost": "captions without their image",
    "tr_lost": "images without a caption",
}
METHODS = {"single": "single-stream", "two": "two-stream", "both": "mean of both"}


def write_page(
    path: Path,
    task: Task,
    network: Network,
    examples: Sequence[Example],
    predictions: Mapping[EvalMode, Predictions],
    scores: Mapping[str, Any] | None,
    store: Store,
    images: Path | None,
    checkpoint: str,
    links: Mapping[str, str],
) -> None:
    """Write the page of one evaluation.

    Args:
        predictions: by mode; those of the last one are shown.
        scores: what `scores.json` holds; None where the split has no labels.
        images: where the photographs are; without them regions are shown on blank canvases.
        checkpoint: how the page names it.
        links: addresses of other pages, by what they show.
    """
    mode = list(predictions)[-1]
    groups = grouped(task, examples, predictions[mode].answers)
    every = _methods(scores) if scores else {}
    methods = {method: numbers(values) for method, values in every.items()}
    shown = cards(groups, network, examples, predictions[mode], store, images, mode)
    page = render(
        Path(__file__).with_name("report.html"),
        title=f"{task.name}, {scores['split']}" if scores else task.name,
        facts={**_facts(examples, scores), "checkpoint": checkpoint},
        links=links,
        methods=methods,
        columns=list(dict.fromkeys(name for row in methods.values() for name in row)),
        intervals={method: intervals_of(values) for method, values in every.items()},
        best=best_of(list(methods.values())),
        parts=_parts(scores) if scores else {},
        modes={name: METHODS[name] for name in predictions},
        groups=shown,
        types=sorted(
            {name for group in shown.values() for card in group for name in card["types"]}
        ),
        counts={name: len(members) for name, members in groups.items()},
        mode=METHODS[mode],
        curves=(scores or {}).get("calibration", {}).get(mode),
        ece=(scores or {}).get("ece"),
    )
    write_text(path, page)


def _facts(examples: Sequence[Example], scores: Mapping[str, Any] | None) -> dict[str, str]:
    counts = scores["counts"] if scores else {"examples": len(examples)}
    facts = {name: f"{count:,}" for name, count in counts.items()}
    shortlist = (scores or {}).get("shortlist", {})
    if shortlist:
        facts["shortlist"] = f"{shortlist['size']:,}"
        facts |= {title: f"{shortlist[name]:.1f} %" for name, title in SHORTLIST.items()}
    return facts


def _methods(scores: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the scores and intervals of each method by its name, baselines first."""
    modes = modes_of(scores)
    return {**scores.get("baselines", {}), **{METHODS[mode]: modes[mode] for mode in modes}}


def _parts(scores: Mapping[str, Any]) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """Return the rows of each table: in order if they are numbers, else the most frequent first."""
    tables = {}
    for table, rows in scores["parts"].items():
        shown = sorted(rows.items(), key=lambda row: -row[1]["count"])[:MAX_ROWS]
        numbered = all(name.strip().isdigit() for name in rows)
        tables[table] = sorted(shown) if numbered else shown
    return tables
