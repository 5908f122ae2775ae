"""The command line of `python -m semvlp.demo.experiments.NAME DATA --out DIR`."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from semvlp.atomic import locked, refuse_inputs
from semvlp.eval.eval_report import EvalReport


def main(run: Callable[[Path, Path], EvalReport], what: str, out: Path) -> None:
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
