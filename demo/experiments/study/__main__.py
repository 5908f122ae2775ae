"""Does it help to learn in single-stream and two-stream mode in turn, where, and by how much?

Trains every cell of `cells.py` with every seed on ideal regions and on the drawn world, scores each
by kind of statement, and writes a page of results. Finished trainings are not computed again: the
same command goes on where it was stopped, or with more seeds.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from semvlp.demo.experiments.study.cells import BASE, PARTS
from semvlp.demo.experiments.study.data import FULL, QUICK
from semvlp.demo.experiments.study.plan import Plan, run_study
from semvlp.errors import SemVLPError

QUICK_CELLS = (BASE.name, "single-3-tied-fourier", "two-3-tied-fourier")
log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Run the study as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to write (runs/study, or runs/study-quick)")
    parser.add_argument("--part", choices=PARTS, action="append", help="one part alone")
    parser.add_argument("--only", action="append", help="names of cells, with * and ?")
    parser.add_argument("--steps", type=int, help=f"steps of a cell ({FULL.steps})")
    parser.add_argument("--seeds", type=int, help=f"seeds of a cell ({FULL.seeds})")
    parser.add_argument("--known", type=Path, help="results.json of a page: what is in it is done")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one for a core (1)")
    parser.add_argument("--quick", action="store_true", help="three cells, small and short")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    size = QUICK if given.quick else FULL
    plan = Plan(
        out=given.out or Path("runs/study-quick" if given.quick else "runs/study"),
        size=replace(size, steps=given.steps or size.steps, seeds=given.seeds or size.seeds),
        parts=given.part or PARTS,
        only=given.only or (QUICK_CELLS if given.quick else ("*",)),
    )
    helper = [sys.executable, "-m", "semvlp.demo.experiments.study", *arguments, "--jobs", "1"]
    try:
        page = run_study(plan, known=given.known, helpers=helper, jobs=given.jobs)
    except SemVLPError as error:
        log.error("%s", error)
        return error.exit_code
    log.info("The page of the study is %s.", page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
