"""The page of the study: tables in Markdown, pictures beside it, every number as JSON and CSV."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from semvlp import atomic
from semvlp.demo.experiments.study.cells import BASE, Part, cells, transfers
from semvlp.demo.experiments.study.data import Size
from semvlp.demo.experiments.study.pictures import accuracy_picture, difference_picture
from semvlp.demo.experiments.study.results import Mean, Results, Shown
from semvlp.demo.experiments.study.run import MODES
from semvlp.demo.language.kinds import LEVELS, TOPICS
from semvlp.progress import duration

PAGE = "study.md"
TITLES: dict[Part, str] = {
    "ideal": "On ideal regions",
    "drawn": "On the drawn world, by the real pipeline",
}

_HEAD = """\
# The study

One network learns in single-stream mode, in two-stream mode, or in both in turn: which is better, where, and by how much.

`{command}` computes everything on this page; {trainings} trainings took {time} in all on two CPU cores.

Every network is `tiny`. It is trained {steps:,} steps of 128 (picture, text) pairs on {train:,} drawn scenes of one to four
things, and judges statements about {test:,} unseen scenes with the answer head of pre-training. Cells of one seed see the same
batches in the same order. Every sentence is used as often true as false: without pictures, 50 is all there is.

Low level: {low}.
High level: {high}.

Numbers are accuracies in percent, those of a level the mean over its kinds, with the standard error over seeds; differences are
taken within a seed. A cell is called schedule-blocks-weights-boxes: how many of the three blocks have a cross-attention (one is
the upper third, two the upper half, rounded up), whether its weights are its own or tied to those of the self-attention, and how
boxes are encoded. Where no mode is named, a cell is evaluated in the mode that it has learned: single, two, or both where it has
learned both. `single-half` has half of the steps, as many in single-stream mode as `alternate` has.
"""  # noqa: E501

# What is compared: a sentence, then two cells and the modes they are evaluated in.
Question = tuple[str, str, Shown, str, Shown]
_BASE = BASE.name
QUESTIONS: tuple[Question, ...] = (
    (
        "In turn, against single-stream alone at as many steps",
        *(_BASE, "as trained", "single-3-tied-fourier", "as trained"),
    ),
    (
        "In turn, against two-stream alone at as many steps",
        *(_BASE, "as trained", "two-3-tied-fourier", "as trained"),
    ),
    (
        "In turn, against half as many steps, all single-stream; both evaluated in it",
        *(_BASE, "single", "single-half-3-tied-fourier", "single"),
    ),
    (
        "In turn, against single-stream alone; both evaluated in it",
        *(_BASE, "single", "single-3-tied-fourier", "single"),
    ),
    (
        "In turn, against two-stream alone; both evaluated in it",
        *(_BASE, "two", "two-3-tied-fourier", "two"),
    ),
    (
        "In turn from the first step, against from the middle, single-stream before",
        *(_BASE, "both", "single-then-alternate-3-tied-fourier", "both"),
    ),
    (
        "In turn from the first step, against from the middle, two-stream before",
        *(_BASE, "both", "two-then-alternate-3-tied-fourier", "both"),
    ),
    (
        "Tied cross-attention, against its own weights; evaluated in two-stream mode",
        *(_BASE, "two", "alternate-3-own-fourier", "two"),
    ),
    (
        "Cross-attention in all blocks, against the upper third; in two-stream mode",
        *(_BASE, "two", "alternate-1-tied-fourier", "two"),
    ),
    ("Fourier boxes, against linear ones", *(_BASE, "both", "alternate-3-tied-linear", "both")),
)


def write_page(folder: Path, results: Mapping[Part, Results], size: Size, command: str) -> Path:
    """Write the page of all results that are there into `folder`; return its path."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = [*_head(results, size, command)]
    for part, of_part in results.items():
        if of_part.names:
            lines += _part(folder, part, of_part)
    atomic.write_text(folder / PAGE, "\n".join(lines) + "\n")
    numbers = {"size": size.made_of(), **_numbers(results)}
    atomic.write_json(folder / "results.json", numbers)
    atomic.write_text(folder / "results.csv", _csv(results))
    return folder / PAGE


def _head(results: Mapping[Part, Results], size: Size, command: str) -> Iterator[str]:
    done = [result for of_part in results.values() for result in of_part.all()]
    yield _HEAD.format(
        command=command,
        trainings=len(done),
        time=duration(sum(result.seconds for result in done)),
        steps=size.steps,
        train=size.scenes["train"],
        test=size.scenes["test"],
        low=", ".join(LEVELS["low"]),
        high=", ".join(LEVELS["high"]),
    )


def _part(folder: Path, part: Part, results: Results) -> Iterator[str]:
    names = [cell.name for cell in cells(part) if cell.name in results.names]
    pictures = {
        f"study-{part}-accuracy.svg": accuracy_picture(results, names),
        f"study-{part}-differences.svg": difference_picture(results, names, BASE.name),
    }
    for name, picture in pictures.items():
        atomic.write_bytes(folder / "images" / name, picture)
    accuracies, differences = (f"images/{name}" for name in pictures)
    yield from ("", f"## {TITLES[part]}", "", f"![Accuracy of each cell]({accuracies})", "")
    yield from _questions(results)
    yield from _levels(results, names)
    yield from ("", f"![Differences from {BASE.name}]({differences})", "")
    yield from _kinds(results, names)
    tuned = [one.name for one in transfers(part) if one.name in results.names]
    if tuned:
        yield from _transfers(results, tuned)


def _questions(results: Results) -> Iterator[str]:
    yield from _table_head("compared", "low", "high", "seeds")
    for sentence, name, mode, other, other_mode in QUESTIONS:
        low, high = (
            results.difference(name, other, level, mode, other_mode) for level in ("low", "high")
        )
        if low and high:
            yield _row(sentence, low.text(signed=True), high.text(signed=True), low.count)
    yield ""


def _levels(results: Results, names: Sequence[str]) -> Iterator[str]:
    """Write accuracies by level and mode, and the difference from the base cell."""
    columns = [f"{level}, {mode}" for level in LEVELS for mode in MODES]
    yield from _table_head("cell", *columns, "low, from base", "high, from base", "seeds")
    for name in names:
        means = [results.mean(name, mode, level) for level in LEVELS for mode in MODES]
        apart = [results.difference(name, BASE.name, level, "as trained") for level in LEVELS]
        count = means[0].count if means[0] else 0
        yield _row(f"`{name}`", *map(_text, means), *map(_signed, apart), count)


def _kinds(results: Results, names: Sequence[str]) -> Iterator[str]:
    yield from ("By kind of statement, in the mode a cell is meant for:", "")
    yield from _table_head("cell", *TOPICS)
    for name in names:
        yield _row(f"`{name}`", *(_text(results.mean(name, "as trained", t)) for t in TOPICS))


def _transfers(results: Results, names: Sequence[str]) -> Iterator[str]:
    yield from ("", "### Transfer", "")
    yield from (
        "Pre-trained in one way, then fine-tuned briefly in one mode on statements about other "
        "scenes:",
        "",
    )
    columns = [f"{level}, {mode}" for level in LEVELS for mode in MODES[:2]]
    yield from _table_head("before to after", *columns, "seeds")
    for name in names:
        means = [results.mean(name, mode, level) for level in LEVELS for mode in MODES[:2]]
        yield _row(name, *map(_text, means), means[0].count if means[0] else 0)


def _table_head(*columns: str) -> Iterator[str]:
    yield from (_row(*columns), _row(*("---" for _ in columns)))


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _text(mean: Mean | None) -> str:
    return mean.text() if mean else ""


def _signed(mean: Mean | None) -> str:
    return mean.text(signed=True) if mean else ""


def _numbers(results: Mapping[Part, Results]) -> dict[str, Any]:
    """Return every training, every mean and every difference from the base cell."""
    rows = (*LEVELS, *TOPICS)
    modes: tuple[Shown, ...] = (*MODES, "as trained")
    return {
        part: {
            "trainings": [asdict(result) for result in of_part.all()],
            "means": [
                {"name": name, "mode": mode, "row": row, **_plain(of_part.mean(name, mode, row))}
                for name in of_part.names
                for mode in modes
                for row in rows
            ],
            "differences": [
                {"name": name, "mode": mode, "row": row, **_plain(apart)}
                for name in of_part.names
                for mode in modes
                for row in rows
                if (apart := of_part.difference(name, BASE.name, row, mode))
            ],
        }
        for part, of_part in results.items()
    }


def _plain(mean: Mean | None) -> dict[str, Any]:
    return asdict(mean) if mean else {}


def _csv(results: Mapping[Part, Results]) -> str:
    """Return a line for each training, mode and kind."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("part", "name", "seed", "mode", "kind", "accuracy"))
    for part, of_part in results.items():
        for result in of_part.all():
            for mode, by_kind in result.accuracy.items():
                for kind, value in by_kind.items():
                    writer.writerow((part, result.name, result.seed, mode, kind, round(value, 3)))
    return text.getvalue()
