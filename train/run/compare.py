"""Several runs on one page, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semvlp.documents import from_toml
from semvlp.errors import InputError
from semvlp.eval.eval_report import SCORES_NAME
from semvlp.eval.pages.compare import PairedDifference, is_evaluation, score_tables
from semvlp.pages import render, write_page
from semvlp.train.run.curves import COLOURS, picture
from semvlp.train.run.going_on import flatten
from semvlp.train.run.log import METRICS
from semvlp.train.run.report import TITLES, RunFiles, curves, facts, read_run

LEFT_OUT = ("lr", "grad_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The page of several runs, and what evaluations of the same examples differ by."""

    page: Path
    differences: list[PairedDifference]

    def values(self) -> dict[str, Any]:
        """Return the report as plain values."""
        differences = [values for paired in self.differences for values in paired.values()]
        return {"page": str(self.page), "differences": differences}

    def sentence(self) -> str:
        """Tell the differences in lines of text, and where the page is."""
        lines = [
            f"{paired.evaluation} minus {paired.minus}, {paired.mode}: {score} "
            f"{d.mean:+.2f} ({d.interval[0]:+.2f} to {d.interval[1]:+.2f}), p = {d.p:.2g}"
            for paired in self.differences
            for score, d in paired.scores.items()
        ]
        return "\n".join([*lines, f"Open {self.page} in a browser."])


def compare(runs: Sequence[Path], out: Path) -> Comparison:
    """Write one page with the curves and scores of training runs and evaluations.

    Raises:
        ConfigError: `out` is something else than a page of ours.
        InputError: a folder that is neither, or one with a damaged file.
    """
    every = dict(zip(runs, unique_names(runs), strict=True))
    evaluations = [run for run in every if is_evaluation(run)]
    files = [_read(run) for run in every if run not in evaluations]
    names = [every[run.run] for run in files]
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(files))]
    tables = score_tables(evaluations, [every[run] for run in evaluations])
    text = render(
        Path(__file__).with_name("compare.html"),
        runs=[
            {"name": name, "colour": colour, "facts": facts(run)}
            for name, colour, run in zip(names, colours, files, strict=True)
        ],
        columns=list(dict.fromkeys(name for run in files for name in facts(run))),
        charts=_charts(files, names, colours),
        differences=_differences(files),
        scores=tables,
        count=len(every),
    )
    write_page(out, text)
    return Comparison(page=out, differences=[d for table in tables for d in table.differences])


def unique_names(runs: Sequence[Path]) -> list[str]:
    """Name runs by the last part of their paths, or by as many parts as tell them apart."""
    paths = [run.resolve().parts for run in runs]
    for count in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-count:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{'/'.join(parts)} ({number})" for number, parts in enumerate(paths, start=1)]


def _read(run: Path) -> RunFiles:
    if not (run / METRICS).exists():
        raise InputError(
            f"{run}: must hold {METRICS} or {SCORES_NAME}; give a folder that pretrain, finetune "
            "or eval has written"
        )
    return read_run(run)


def _charts(
    files: Sequence[RunFiles], names: Sequence[str], colours: Sequence[str]
) -> list[dict[str, str]]:
    """Draw every number that at least one run has logged."""
    scores = dict.fromkeys(n for run in files for entry in run.validation[-1:] for n in entry)
    sources = [(n, f"Validation: {n}", "validation") for n in scores if n != "step"]
    sources += [(name, title, "metrics") for name, title in TITLES.items() if name not in LEFT_OUT]
    charts = []
    for name, title, source in sources:
        drawn = [
            curve
            for label, run, colour in zip(names, files, colours, strict=True)
            for curve in curves(getattr(run, source), name, label, colour)
        ]
        if drawn:
            charts.append({"title": title, "picture": picture(drawn)})
    return charts


def _settings(run: RunFiles) -> dict[str, Any]:
    try:
        return from_toml(run.config)
    except ValueError as error:
        raise InputError(f"{run.run}: its config.toml is damaged: {error}") from error


def _differences(files: Sequence[RunFiles]) -> list[tuple[str, list[str]]]:
    """Return the settings that differ between runs: dotted name, value in each run."""
    settings = [flatten(_settings(run)) for run in files]
    names = dict.fromkeys(name for run in settings for name in run)
    rows = [(name, [str(run.get(name, "")) for run in settings]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]
