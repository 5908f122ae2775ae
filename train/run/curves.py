"""Curves of runs as pictures that a page carries within itself."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

SINGLE, TWO = "#3f74e8", "#e8833a"
# For the runs of a comparison: told apart by colour-blind readers too (Okabe and Ito 2008).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8a8f98")
INK = "#818998"  # reads well on light and on dark pages
MOST_POINTS = 400
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    # A run may have any name; `$` begins no formula.
    "text.parse_math": False,
    # Equal curves give equal bytes.
    "svg.hashsalt": "semvlp",
}


@dataclass(frozen=True, slots=True)
class Curve:
    """Values at rising steps."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    colour: str
    dashed: bool = False


def picture(curves: Sequence[Curve], *, size: tuple[float, float] = (4.2, 2.5)) -> str:
    """Return a data URI of the curves as SVG: values faint, their running mean strong."""
    with rc_context(STYLE):
        figure = Figure(figsize=size)
        # Fixed margins: finding them by layout draws everything twice.
        axes = figure.add_axes((0.14, 0.11, 0.82, 0.8))
        for curve in curves:
            _draw(axes, curve)
        axes.grid(alpha=0.22, color=INK, linewidth=0.6)
        axes.margins(x=0.01)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=axis is axes.xaxis))
        # Long numbers would not fit into the margin.
        axes.ticklabel_format(axis="y", scilimits=(-2, 4))
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=8, loc="upper right")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def smooth(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean of each value and up to `window` - 1 values before it."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - window, 0)
    mean: NDArray[np.float64] = (total[ends] - total[begins]) / (ends - begins)
    return mean


def _draw(axes: Axes, curve: Curve) -> None:
    steps, values = np.asarray(curve.steps, float), np.asarray(curve.values, float)
    mean = smooth(values, max(1, len(values) // 15))
    shown = np.unique(np.linspace(0, len(values) - 1, MOST_POINTS).round().astype(int))
    marker = "o" if len(values) < 12 else None
    if len(values) > 15:
        axes.plot(steps[shown], values[shown], color=curve.colour, alpha=0.25, linewidth=0.8)
    axes.plot(
        steps[shown],
        mean[shown],
        color=curve.colour,
        linestyle="--" if curve.dashed else "-",
        linewidth=1.7,
        # matplotlib leaves out of the legend what begins with an underscore.
        label=curve.label if not curve.label.startswith("_") else f" {curve.label}",
        marker=marker,
        markersize=3,
    )
