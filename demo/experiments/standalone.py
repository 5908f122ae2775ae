"""The command line of `python -m semvlp.demo.experiments.NAME DATA --out DIR`."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from semvlp.atomic import locked, refuse_inputs


class Outcome(Protocol):
    """What came out of an experiment."""

    def sentence(self) -> str:
        """Say what was measured and where it is written."""


def main(run: Callable[[Path, Path], Outcome], what: str, out: Path) -> None:
    """Run on the directories of the command line and say how it ended."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("data", type=Path, help="directory of the data set")
    parser.add_argument("--out", type=Path, default=out, help=f"where to write ({out})")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    refuse_inputs(arguments.out, arguments.data)
    with locked(arguments.out):
        report = run(arguments.data, arguments.out)
    logging.getLogger(__name__).info("%s", report.sentence())
