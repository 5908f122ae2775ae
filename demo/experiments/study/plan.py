"""The study as a whole: what is computed, what it costs, and the page at the end."""

import logging
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from semvlp import atomic
from semvlp.demo.experiments.study.cells import PARTS, Cell, Part, Transfer, cells, transfers
from semvlp.demo.experiments.study.data import Data, Size, prepare
from semvlp.demo.experiments.study.page import write_page
from semvlp.demo.experiments.study.results import Results
from semvlp.demo.experiments.study.run import Result, Training, read_results
from semvlp.documents import from_json
from semvlp.errors import ConfigError, InputError
from semvlp.progress import duration

COMMAND = "python -m semvlp.demo.experiments.study"
MARK = "study.json"
# Measured on a core of two: a step, and the rest of a training.
SECONDS_A_STEP, SECONDS_BESIDE = 0.1, 20.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What of the study is computed."""

    out: Path
    size: Size
    parts: Sequence[Part] = PARTS
    only: Sequence[str] = ("*",)
    """Patterns of names of cells and transfers."""

    def trainings(self, part: Part) -> list[Training]:
        """Return the trainings of a part, seed by seed, each transfer after what it starts from."""
        tuned = [each for each in transfers(part) if self._wants(each.name)]
        wanted: list[Cell | Transfer] = [each for each in cells(part) if self._wants(each.name)]
        wanted += [each.cell for each in tuned if each.cell]
        return [
            Training(part=part, what=what, seed=seed, steps=self.size.steps, out=self.out)
            for seed in range(self.size.seeds)
            for what in dict.fromkeys([*wanted, *tuned])
        ]

    def _wants(self, name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in self.only)


def run_study(
    plan: Plan,
    *,
    known: Path | None = None,
    helpers: Sequence[str] | None = None,
    jobs: int = 1,
) -> Path:
    """Compute what is missing and write the page; return its path.

    Args:
        known: `results.json` of a page of a study of this size, whose trainings are not computed
            again.
        helpers: the command of `jobs` - 1 further processes that compute as well, for each training
            is computed by the process that comes first.

    Raises:
        ConfigError: `plan.out` or `known` is of a study of another size, or nothing is called so.
        InputError: `known` is no such file.
        Interrupted: on SIGINT or SIGTERM; the same call goes on from there.
    """
    trainings = {part: plan.trainings(part) for part in plan.parts}
    if not any(trainings.values()):
        raise ConfigError(f"--only must fit a cell of the study, but none is {plan.only}")
    plan.out.mkdir(parents=True, exist_ok=True)
    _check_same(plan.out / MARK, plan.size)
    every = [one for of_part in trainings.values() for one in of_part]
    if known:
        _take(known, every, plan.size)
    log.info("%s", cost(every, jobs))
    data = {part: prepare(part, plan.out, plan.size) for part in plan.parts}
    with _started(helpers or (), jobs - 1) as others:
        _run(trainings, data)
        for process in others:
            process.wait()
    # Once more: what a helper was about when a transfer needed it is finished now.
    _run(trainings, data)
    finished = {part: Results(read_results(plan.out, part)) for part in PARTS}
    return write_page(plan.out / "page", finished, plan.size, COMMAND)


def _run(trainings: Mapping[Part, Sequence[Training]], data: Mapping[Part, Data]) -> None:
    for part, of_part in trainings.items():
        for training in of_part:
            training.run(data[part])


def cost(trainings: Sequence[Training], jobs: int) -> str:
    """Say how much is left to compute and how long that takes: as measured, where it was."""
    took = expected = left = 0.0
    count = 0
    for one in trainings:
        seconds, result = SECONDS_BESIDE + SECONDS_A_STEP * one.own_steps, one.result()
        if result:
            took, expected = took + result.seconds, expected + seconds
        else:
            left, count = left + seconds, count + 1
    left *= took / expected if expected else 1.0
    each = left / count if count else 0.0
    return (
        f"{count} of {len(trainings)} trainings are left; at {each:.0f} s each they take about "
        f"{duration(left / jobs)} of {jobs} processes, each on a core of its own"
    )


def _take(known: Path, trainings: Sequence[Training], size: Size) -> None:
    """Write down what is known of the results, but of what a transfer starts from.

    Such a training has to leave its weights.
    """
    try:
        document = from_json(known.read_bytes())
        made_of = document["size"]
        parts = (document.get(part, {}) for part in PARTS)
        entries = [Result(**one) for part in parts for one in part.get("trainings", [])]
        results = {(one.part, one.name, one.seed): one for one in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{known}: must be results.json of a study's page: {error}") from error
    if made_of != size.made_of():
        raise ConfigError(
            f"{known} must hold results of a study of this size ({size.made_of()}), but is of "
            f"another ({made_of})"
        )
    found = [(one, results.get((one.part, one.what.name, one.seed))) for one in trainings]
    needed = {start.folder for one, result in found if not result and (start := one.start)}
    for one, result in found:
        if result and one.result() is None and one.folder not in needed:
            one.keep(result)


def _check_same(mark: Path, size: Size) -> None:
    """Check that a study that was begun is of this size; the number of seeds may be another."""
    if not mark.exists():
        atomic.write_json(mark, size.made_of())
    elif (written := from_json(mark.read_bytes())) != size.made_of():
        raise ConfigError(
            f"{mark.parent} must be empty or hold a study of this size ({size.made_of()}), but "
            f"holds one of another ({written}); give another --out or delete it"
        )


@contextmanager
def _started(command: Sequence[str], count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start processes and stop those that are left at the end.

    Ctrl-C in a terminal does not reach them: a second signal would not let them save their step.
    """
    processes = [
        subprocess.Popen(command, start_new_session=True) for _ in range(count if command else 0)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
            process.wait()
