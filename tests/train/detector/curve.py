"""What a training has logged."""

from pathlib import Path
from typing import Any

from semvlp.train.run.files import METRICS, read_lines

MEASURED = ("seconds", "seconds_left", "images_per_second", "waiting")


def curve(run: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without what a clock measured."""
    lines = read_lines(run / METRICS)
    return [{name: v for name, v in line.items() if name not in MEASURED} for line in lines]
