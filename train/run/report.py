"""What a run has done: RUN/report.html, one file, and a report for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from semvlp.atomic import write_text
from semvlp.doctor import versions
from semvlp.errors import TooManyRefused
from semvlp.eval.files.inputs import DAMAGED_NAME, left_out_of, run_of
from semvlp.pages import link, render
from semvlp.progress import duration
from semvlp.train.run.curves import SINGLE, TWO, Curve, picture
from semvlp.train.run.files import INPUTS, RunFiles, read_inputs, read_run

TITLES = {
    "loss": "Loss, all objectives",
    "loss_mlm": "Masked words",
    "loss_features": "Masked region features",
    "loss_objects": "Masked region objects",
    "loss_attributes": "Masked region attributes",
    "loss_matching": "Image-text matching",
    "loss_answers": "Image question answering",
    "loss_task": "Task",
    "loss_rpn_objectness": "Region proposals: objectness",
    "loss_rpn_box": "Region proposals: boxes",
    "loss_object": "Object classes",
    "loss_box": "Boxes",
    "loss_attribute": "Attributes",
    "lr": "Learning rate",
    "grad_norm": "Gradient norm",
    "pairs_per_second": "Pairs per second",
    "images_per_second": "Images per second",
    "waiting": "Share of the time spent waiting for data",
    "mfu": "Model FLOPs utilisation",
}
MODES = {"single": ("single-stream", SINGLE), "two": ("two-stream", TWO)}
WITHOUT_MODES = ("lr",)
MISSING = "examples, whose images are missing"
DAMAGED = "images, which are damaged"
PAGE_NAME = "report.html"


def write_report(run: Path) -> Path:
    """Write `report.html` into the folder of a run; returns its path."""
    files = read_run(run)
    path = run / PAGE_NAME
    text = render(
        Path(__file__).with_name("report.html"),
        name=files.name,
        facts=facts(files),
        links=_links(run),
        charts=charts(files),
        config=files.config,
        versions=versions(),
    )
    write_text(path, text)
    return path


def _links(run: Path) -> dict[str, str]:
    """Return the address of the page of the run that this one started from, by what it shows."""
    inputs = read_inputs(run / INPUTS) if (run / INPUTS).exists() else {}
    init = inputs.get("from") or inputs.get("init")
    # What is not absolute is a name on the Hub.
    if not isinstance(init, str) or not Path(init).is_absolute():
        return {}
    first = run_of(Path(init))
    page = link(first / PAGE_NAME, run) if (first / INPUTS).is_file() else ""
    return {f"the run {first.name}, which it started from": page} if page else {}


def facts(files: RunFiles) -> dict[str, str]:
    """Return the few numbers that say how a run went."""
    state = files.newest.state if files.newest else None
    table: dict[str, str] = {}
    if state is not None:
        table["steps"] = f"{state.step:,}" + ("" if state.finished else ", not finished")
        table["time"] = duration(state.seconds)
    if files.metrics:
        table["loss"] = f"{mean_of_last(files.metrics, 'loss'):.3f}"
        for what in ("pairs", "images"):
            if f"{what}_per_second" in files.metrics[-1]:
                speed = mean_of_last(files.metrics, f"{what}_per_second")
                table[f"{what} per second"] = f"{speed:,.{0 if speed >= 10 else 1}f}"
        for name, label in (("waiting", "waiting for data"), ("mfu", "FLOPs utilisation")):
            if name in files.metrics[-1]:
                table[label] = f"{mean_of_last(files.metrics, name):.1%}"
    left_out = left_out_of(files.run / "last")
    if left_out:
        what = DAMAGED if (files.run / DAMAGED_NAME).exists() else MISSING
        table["left out"] = f"{left_out:,} {what}"
    if state is not None and state.best_step is not None:
        table["best checkpoint"] = f"step {state.best_step:,}"
    for name, value in (files.validation[-1] if files.validation else {}).items():
        if name != "step" and isinstance(value, float):
            table[f"{name}, last"] = f"{value:.2f}"
    return table


def mean_of_last(entries: Sequence[dict[str, Any]], name: str, count: int = 20) -> float:
    """Return the mean of a number over the last entries."""
    values = [entry[name] for entry in entries[-count:] if name in entry]
    return float(sum(values) / len(values))


def charts(files: RunFiles) -> list[dict[str, str]]:
    """Draw every number that the run has logged; each picture has a title."""
    names = [name for name in TITLES if any(name in entry for entry in files.metrics)]
    pictures = [
        {"title": TITLES[name], "picture": picture(curves(files.metrics, name))} for name in names
    ]
    last = files.validation[-1] if files.validation else {}
    scores = [
        Curve(name, *_series(files.validation, name), colour=SINGLE)
        for name, value in last.items()
        if name != "step" and isinstance(value, int | float)
    ]
    return [{"title": f"Validation: {c.label}", "picture": picture([c])} for c in scores] + pictures


def curves(
    entries: Sequence[dict[str, Any]], name: str, run: str = "", colour: str = ""
) -> list[Curve]:
    """Return one curve of a number for each mode, or one where there are none.

    Args:
        run: whose curves they are, on a page of several; the two modes then share its colour, and
            that of the two-stream mode is dashed.
    """
    if name in WITHOUT_MODES or not any("mode" in entry for entry in entries):
        curve = Curve(run or name, *_series(entries, name), colour=colour or SINGLE)
        return [curve] if curve.steps else []
    drawn = []
    for mode, (title, usual) in MODES.items():
        steps, values = _series([entry for entry in entries if entry["mode"] == mode], name)
        label, dashed = f"{run}, {title}" if run else title, bool(run) and mode == "two"
        if steps:
            drawn.append(Curve(label, steps, values, colour or usual, dashed))
    return drawn


def _series(entries: Sequence[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    present = [entry for entry in entries if name in entry]
    return [entry["step"] for entry in present], [entry[name] for entry in present]


class Trained(Protocol):
    """The result of one training, or of several on the same examples."""

    @property
    def examples(self) -> int: ...

    @property
    def left_out(self) -> int: ...

    def sentence(self) -> str: ...


def check_left_out(report: Trained, max_bad: float) -> Trained:
    """Return the report, of whose examples no more than a fraction was left out.

    Raises:
        TooManyRefused: more was; the run is finished all the same.
    """
    if report.left_out > max_bad * report.examples:
        raise TooManyRefused(f"{report.sentence()} --max-bad allows {max_bad:.1%}.")
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The result of `pretrain` and of `finetune`."""

    what: str
    """Which kind of training, for people."""
    run: Path
    steps: int
    """Steps done since the beginning of the run."""
    new_steps: int = 0
    """Steps done by this call; 0 where the run was finished before."""
    pairs: int = 0
    """(text, image) pairs of the new steps."""
    seconds: float = 0.0
    """Time of the new steps, without validation and saving."""
    loss: float | None = None
    """Loss of the last new step."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores of the last validation."""
    best_step: int | None = None
    """Step of the best checkpoint."""
    examples: int = 0
    """Examples of the annotations, or images of a pre-training."""
    left_out: int = 0
    """Those of them that were left out: the store lacks their images, or these are damaged."""
    left_out_are: str = MISSING
    """What they are, for people."""

    @property
    def pairs_per_second(self) -> float:
        """Return the speed over the new steps."""
        return self.pairs / self.seconds if self.seconds else 0.0

    def values(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "run": str(self.run),
            "checkpoint": str(self.run / "last"),
            "best": str(self.run / "best") if self.best_step is not None else None,
            "best_step": self.best_step,
            "report": str(self.run / "report.html"),
            "steps": self.steps,
            "new_steps": self.new_steps,
            "pairs": self.pairs,
            "seconds": round(self.seconds, 3),
            "pairs_per_second": round(self.pairs_per_second, 1),
            "loss": self.loss,
            "scores": dict(self.scores),
            **({"left_out": self.left_out} if self.left_out else {}),
        }

    def sentence(self) -> str:
        """Tell the report as one sentence."""
        lost = f"without {self.left_out} of {self.examples} {self.left_out_are}"
        without = f" {lost};" if self.left_out else ""
        if self.loss is None:
            return (
                f"{self.what} in {self.run} is finished after {self.steps} steps;{without} "
                "nothing to do."
            )
        return (
            f"{self.what}: {self.new_steps} steps with {self.pairs} pairs in "
            f"{duration(self.seconds)} ({self.pairs_per_second:.0f} pairs/s), "
            f"loss {self.loss:.3f};{without} checkpoint {self.run / 'last'}, "
            f"curves {self.run / 'report.html'}."
        )
