"""What a full pre-training costs at a measured throughput.

    python benchmarks/train_cost.py --pairs-per-second 1500 --gpus 8
    python benchmarks/train_cost.py --run runs/base --gpus 8

`--run` takes the median of `pairs_per_second` in the metrics.jsonl of a run, all its processes
together; the numbers of pairs and of epochs are LXMERT's unless they are given.
"""

import argparse
import statistics
from pathlib import Path

from semvlp.train.run.files import METRICS, read_lines
from semvlp.train.run.throughput import hours

PAIRS, EPOCHS = 9_180_000, 20  # Tan and Bansal 2019; airsplay/lxmert README


def main() -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measured = parser.add_mutually_exclusive_group(required=True)
    measured.add_argument("--pairs-per-second", type=float)
    measured.add_argument("--run", type=Path)
    parser.add_argument("--gpus", type=int, default=1, help="devices that did it together (1)")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    given = parser.parse_args()
    pace = given.pairs_per_second or pace_of(given.run)
    wall = hours(given.pairs * given.epochs, pace)
    print(
        f"{given.pairs:,} pairs x {given.epochs:g} epochs at {pace:,.1f} pairs/s: "
        f"{wall:,.1f} hours, {wall * given.gpus:,.1f} device hours on {given.gpus}"
    )


def pace_of(run: Path) -> float:
    """Median pairs a second of the logged steps of a run."""
    return statistics.median(line["pairs_per_second"] for line in read_lines(run / METRICS))


if __name__ == "__main__":
    main()
