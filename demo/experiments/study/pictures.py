"""The pictures of the study: what each cell reaches, and how far it is from the base cell."""

import io
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from semvlp.demo.experiments.study.results import Mean, Results
from semvlp.demo.language.kinds import LEVELS
from semvlp.names import EvalMode
from semvlp.train.run.curves import COLOURS, INK, SINGLE, STYLE, TWO

_MARKS: dict[EvalMode, tuple[str, str]] = {
    "single": ("o", SINGLE),
    "two": ("s", TWO),
    "both": ("D", COLOURS[2]),
}
# Inches.
_LINE, _MARGIN, _WIDTH = 0.24, 0.9, 9.0
# The marks of a cell stand so far above and below its line, in lines.
_STEP = 0.2
CHANCE = 50.0


def accuracy_picture(results: Results, names: Sequence[str]) -> bytes:
    """Draw the accuracy of each cell in each mode, low and high level side by side, as SVG."""
    with rc_context(STYLE):
        figure, panels = _figure(names)
        for panel, level in zip(panels, LEVELS, strict=True):
            for number, (mode, (mark, colour)) in enumerate(_MARKS.items()):
                means = [results.mean(name, mode, level) for name in names]
                _points(panel, means, (number - 1) * _STEP, mark, colour, mode)
            panel.axvline(CHANCE, color=INK, linewidth=0.8, linestyle=":")
        figure.supxlabel("accuracy in %", fontsize="medium")
        panels[0].legend(frameon=False, fontsize=8, loc="best")
        return _svg(figure)


def difference_picture(results: Results, names: Sequence[str], base: str) -> bytes:
    """Draw how much each cell has over the base cell within a seed, as trained, as SVG."""
    with rc_context(STYLE):
        figure, panels = _figure(names)
        for panel, level in zip(panels, LEVELS, strict=True):
            means = [results.difference(name, base, level, "as trained") for name in names]
            _points(panel, means, 0.0, "o", SINGLE, level)
            panel.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        figure.supxlabel(f"points over {base}", fontsize="medium")
        return _svg(figure)


def _figure(names: Sequence[str]) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(_WIDTH, _MARGIN + _LINE * len(names)), layout="constrained")
    panels = figure.subplots(1, len(LEVELS), sharey=True)
    for panel, level in zip(panels, LEVELS, strict=True):
        panel.set_title(f"{level} level")
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.grid(axis="x", alpha=0.22, color=INK, linewidth=0.6)
    return figure, panels


def _points(
    panel: Axes, means: Sequence[Mean | None], shift: float, mark: str, colour: str, label: str
) -> None:
    """Draw means with their standard errors, one on each line where there is one."""
    known = [(line + shift, mean) for line, mean in enumerate(means) if mean]
    panel.errorbar(
        [mean.mean for _, mean in known],
        [line for line, _ in known],
        xerr=[mean.error or 0.0 for _, mean in known],
        fmt=mark,
        color=colour,
        label=label,
        markersize=4,
        capsize=2,
        linewidth=1.2,
    )


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
