"""One fine-tuning with several seeds: what they score on average, and how far they lie apart."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from semvlp.atomic import write_json
from semvlp.distributed import World
from semvlp.documents import from_json
from semvlp.errors import ConfigError, InputError
from semvlp.train.config import FinetuneConfig
from semvlp.train.distributed import training_world
from semvlp.train.run.checkpoint import turn_link
from semvlp.train.run.files import VALIDATION, read_lines
from semvlp.train.run.report import MISSING, RunReport
from semvlp.train.run.state import newest

SUMMARY = "seeds.json"
Finetune = Callable[[FinetuneConfig, Path], RunReport]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One score over several seeds."""

    mean: float
    deviation: float
    """Sample standard deviation: of n values around their mean, divided by n - 1."""
    interval: tuple[float, float]
    """95 % interval of the mean over all seeds there could be, by Student's t."""
    values: tuple[float, ...]
    """In the order of the seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedsReport:
    """The result of a fine-tuning with several seeds."""

    out: Path
    seeds: tuple[int, ...]
    metric: str
    scores: Mapping[str, Spread]
    """Of the best checkpoint of each seed."""
    examples: int
    """Examples of the annotations, the same for each seed ..."""
    left_out: int
    """... and those of them that were left out, for the store lacks their images."""

    def values(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "out": str(self.out),
            "best": str(self.out / "best"),
            "metric": self.metric,
            "seeds": {str(seed): str(folder(self.out, seed)) for seed in self.seeds},
            "scores": {
                name: {
                    "mean": s.mean,
                    "deviation": s.deviation,
                    "interval": list(s.interval),
                    "values": list(s.values),
                }
                for name, s in self.scores.items()
            },
            **({"left_out": self.left_out} if self.left_out else {}),
        }

    def sentence(self) -> str:
        """Tell the report as lines of text, one for each score."""
        lines = [
            f"{name:<24}{spread.mean:>8.2f} ± {spread.deviation:<8.2f}"
            f"{spread.interval[0]:.2f} to {spread.interval[1]:.2f}"
            for name, spread in self.scores.items()
        ]
        told = (
            f"Mean and deviation over {len(self.seeds)} seeds and the 95 % interval of that mean "
            f"(Student's t): how training varies, on these examples; runs in {self.out}."
        )
        lost = f" Without {self.left_out} of {self.examples} {MISSING}." if self.left_out else ""
        return "\n".join([*lines, told + lost])


def finetune_seeds(
    finetune: Finetune, config: FinetuneConfig, out: Path, *, count: int, metric: str
) -> SeedsReport:
    """Fine-tune with `count` seeds from `train.seed` on, each into `out`/seed-N.

    `out`/best becomes the best checkpoint of the seed that scores best; `out`/seeds.json holds what
    is returned. The same command goes on where it was stopped.

    Args:
        finetune: runs one fine-tuning with validation, or goes on with it.
        metric: the score that tells the better of two runs.

    Raises:
        ConfigError: fewer than two seeds, or `out` holds a run of its own or something else.
        SemVLPError: whatever `finetune` raises.
    """
    if count < 2:
        raise ConfigError(f"--seeds must be at least 2, got {count}; without it one seed is run")
    if (out / "checkpoints").exists():
        raise ConfigError(f"{out} already holds a run of one seed; choose another --out")
    _refuse_strangers(out)
    seeds = tuple(range(config.train.seed, config.train.seed + count))
    # One group of processes for all runs: forming it anew for each would race.
    with training_world(config.train) as world:
        for seed in seeds:
            seeded = replace(config, train=replace(config.train, seed=seed))
            run = finetune(seeded, folder(out, seed))
            world.wait()
        return _report(out, seeds, metric, world, run)


def _refuse_strangers(out: Path) -> None:
    """Refuse to replace a `best` that is no link of ours, or a summary of something else."""
    best, summary = out / "best", out / SUMMARY
    ours = not best.exists() or (best.is_symlink() and best.readlink().parts[0].startswith("seed-"))
    try:
        ours &= (
            not summary.exists()
            or {"metric", "seeds"} <= dict(from_json(summary.read_bytes())).keys()
        )
    except (ValueError, TypeError):
        ours = False
    if not ours:
        raise ConfigError(
            f"{out} holds {best.name} or {SUMMARY} of something else than a fine-tuning with "
            "seeds, so nothing there is replaced; name another --out"
        )


def folder(out: Path, seed: int) -> Path:
    """Return where the run of a seed lies."""
    return out / f"seed-{seed}"


def spreads(runs: list[Mapping[str, Any]]) -> dict[str, Spread]:
    """Return mean and deviation of every number that all runs have."""
    names = [name for name, value in runs[0].items() if isinstance(value, int | float)]
    columns = {name: tuple(float(run[name]) for run in runs) for name in names if name != "step"}
    return {name: _spread(values) for name, values in columns.items()}


def _spread(values: tuple[float, ...]) -> Spread:
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    margin = float(stdtrit(len(values) - 1, 0.975)) * deviation / len(values) ** 0.5
    interval = mean - margin, mean + margin
    return Spread(mean=mean, deviation=deviation, interval=interval, values=values)


def _report(
    out: Path, seeds: tuple[int, ...], metric: str, world: World, run: RunReport
) -> SeedsReport:
    report = SeedsReport(
        out=out,
        seeds=seeds,
        metric=metric,
        scores=spreads([_best_scores(folder(out, seed)) for seed in seeds]),
        examples=run.examples,
        left_out=run.left_out,
    )
    if world.is_first:
        values = report.scores[metric].values
        turn_link(out / "best", folder(out, seeds[values.index(max(values))]) / "best")
        write_json(out / SUMMARY, report.values())
    return report


def _best_scores(run: Path) -> Mapping[str, Any]:
    """Read the validation of a run's best checkpoint."""
    last = newest(run)
    assert last is not None, "the run has just been finished"
    best = last.state.best_step
    for line in read_lines(run / VALIDATION):
        if line["step"] == best:
            return line
    raise InputError(
        f"{run / VALIDATION} must hold the scores of the best checkpoint, of step {best}, but does "
        f"not; remove {run} to train this seed again"
    )
