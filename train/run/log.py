"""What a run tells while it runs: progress bar, metrics.jsonl, validation.jsonl, TensorBoard, and a
tracker where one is asked for.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from torch.utils.tensorboard import SummaryWriter

from semvlp.atomic import sync
from semvlp.progress import Progress
from semvlp.train.run.files import CONFIG, METRICS, VALIDATION, read_lines, settle_log
from semvlp.train.run.tracker import Tracker
from semvlp.train.train_config import TrackerName


class RunLog:
    """The log of one run from step `done` on; what was logged of later steps is taken back."""

    def __init__(
        self, run: Path, what: str, *, steps: int, done: int, tracker: TrackerName = "none"
    ) -> None:
        settle_log(run, done=done)
        self._run, self._wanted = run, tracker
        self._tracker: Tracker | None = None
        self._bar = Progress(what, total=steps, unit="steps", done=done)
        self._notes: dict[str, str] = {}
        self._purge = done + 1

    def __enter__(self) -> Self:
        if self._wanted != "none":
            settings = (self._run / CONFIG).read_text(encoding="utf-8")
            self._tracker = Tracker(self._wanted, self._run, settings)
            if self._tracker.is_new:
                self._tell_what_was()
        self._metrics = (self._run / METRICS).open("a", encoding="utf-8")
        # Events written after the checkpoint we go on from are hidden by TensorBoard.
        self._board = SummaryWriter(str(self._run), purge_step=self._purge)
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, trace)
        if error is None:
            self.sync()
        self._metrics.close()
        self._board.close()
        if self._tracker:
            self._tracker.close()

    def sync(self) -> None:
        """Make every line survive a power cut: a checkpoint is to find what led to it."""
        for name in (METRICS, VALIDATION):
            if (self._run / name).exists():
                sync(self._run / name)

    def expect(self, seconds: float) -> None:
        """Show that a step is to take so long, until the first one is done."""
        self._bar.expect(1 / seconds)

    def advance(self, losses: Mapping[str, float]) -> None:
        """Count a step as done; show `losses` by mode ("" without modes) from now on."""
        self._notes |= {mode: f"{mode} {loss:.3f}".strip() for mode, loss in losses.items()}
        shown = ", ".join(sorted(self._notes.values()))
        self._bar.advance(note=f"loss {shown}" if shown else "")

    def metrics(self, entry: Mapping[str, Any]) -> None:
        """Write one line of metrics.jsonl; `entry` has `step`, and `mode` where there are two."""
        _write_line(self._metrics, entry)
        self._show(entry["step"], _of_metrics(entry))

    def validation(self, step: int, scores: Mapping[str, float]) -> None:
        """Write one line of validation.jsonl."""
        with (self._run / VALIDATION).open("a", encoding="utf-8") as file:
            _write_line(file, {"step": step, **scores})
        self._show(step, _of_validation(scores))

    def _show(self, step: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if self._tracker:
            self._tracker.log(step, values)

    def _tell_what_was(self) -> None:
        """Send a tracker that does not know the run what was logged before."""
        assert self._tracker is not None
        for entry in read_lines(self._run / METRICS):
            self._tracker.log(entry["step"], _of_metrics(entry))
        for entry in read_lines(self._run / VALIDATION):
            step = entry.pop("step")
            self._tracker.log(step, _of_validation(entry))


def _of_metrics(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of metrics.jsonl by the names that are shown, such as loss/loss_mlm/two."""
    mode = f"/{entry['mode']}" if "mode" in entry else ""
    return {
        f"{'loss' if name.startswith('loss') else 'run'}/{name}{mode}": value
        for name, value in entry.items()
        if name not in ("step", "mode")
    }


def _of_validation(scores: Mapping[str, float]) -> dict[str, float]:
    return {f"validation/{name}": value for name, value in scores.items()}


def _write_line(file: TextIO, entry: Mapping[str, Any]) -> None:
    file.write(json.dumps(entry, allow_nan=False) + "\n")
    file.flush()
