"""The whole pipeline on a drawn world: draw, extract, pre-train, fine-tune, evaluate, report."""

import logging
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semvlp import atomic, settings
from semvlp.demo import recipe
from semvlp.demo.dataset.files import MARK, WorldFiles, read_mark, write_world
from semvlp.demo.report import Accuracies, Accuracy, write_report
from semvlp.demo.world.config import WorldConfig
from semvlp.errors import ConfigError
from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.eval.tasks.table import load_task
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.names import DemoSize
from semvlp.progress import duration
from semvlp.shards.maintenance.convert import join
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.finetune import finetune
from semvlp.train.pretrain import pretrain

log = logging.getLogger(__name__)

SEED = 0
STAGES = 5
# Examples whose attention is shown on a page beside each evaluation.
EXPLAINED = 6
# Besides the world, which tells that a folder is of the demo.
MADE = ("regions", "shards", "pretrain", "finetune-*", "eval-*", "scores.json", "report.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The amount of everything in one size of the demo."""

    scenes: dict[str, int]
    world: WorldConfig
    steps: int
    """Of pre-training."""
    epochs: dict[str, float]
    """Of fine-tuning on each task."""


SMALL = Size(
    scenes={"train": 3000, "valid": 40, "test": 200},
    world=WorldConfig(
        towers=0,
        scatter=0,
        square=1,
        covered=0,
        nlvr=0,
        captions=2,
        questions=12,
        statements=12,
        pairs=1.0,
        pair_statements=8,
        most_items=3,
    ),
    steps=1200,
    epochs={"vqa": 1, "nlvr2": 2},
)
FULL = Size(
    scenes={"train": 8000, "valid": 300, "test": 1000},
    world=WorldConfig(covered=0, nlvr=0, questions=6, pair_statements=20),
    steps=20_000,
    epochs={"vqa": 6, "nlvr2": 6},
)
SIZES: dict[DemoSize, Size] = {"small": SMALL, "full": FULL}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """The scores of the demo and the page that shows them."""

    out: Path
    page: Path
    scores: Accuracies
    """By task and method: majority, text only, single, two, both."""
    seconds: float

    def values(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "out": str(self.out),
            "report": str(self.page),
            **self.figures(),
            "seconds": round(self.seconds, 1),
        }

    def figures(self) -> dict[str, Any]:
        """Return the accuracies and the ends of their intervals as plain values."""
        return {
            "scores": {
                task: {method: accuracy.mean for method, accuracy in of_task.items()}
                for task, of_task in self.scores.items()
            },
            "intervals": {
                task: {
                    method: [accuracy.low, accuracy.high] for method, accuracy in of_task.items()
                }
                for task, of_task in self.scores.items()
            },
        }

    def sentence(self) -> str:
        """Write the report in a few lines, the last of which says what to do next."""
        methods = list(next(iter(self.scores.values())))
        lines = [
            "accuracy on unseen scenes (%), with 95 % intervals clustered by picture",
            " " * 6 + "".join(f"{method:>13}" for method in methods),
        ]
        for task, found in self.scores.items():
            lines.append(f"{task:<6}" + "".join(f"{found[method]!s:>13}" for method in methods))
        return "\n".join(
            [
                *lines,
                f"The demo took {duration(self.seconds)}; open {self.page} in a browser.",
                "Next: `semvlp extract FOLDER` makes shards of pictures of your own, docs/data.md "
                "goes on from there; `semvlp demo --size full` draws a larger world.",
                "Ask what it has learned, from here by `semvlp ask PHOTO TEXT` or on a page by "
                f"`{self.serving()}`.",
            ]
        )

    def serving(self) -> str:
        """Return the command that opens a page to ask the checkpoints on, with the pictures."""
        checkpoints = [f"finetune-{task}/best" for task in self.scores] + ["pretrain/last"]
        runs = [f"--checkpoint={self.out / name}" for name in checkpoints]
        images = self.out / "world" / "images"
        return shlex.join(
            ["semvlp", "serve", *runs, f"--shards={self.out / 'regions'}", f"--images={images}"]
        )


def run_demo(out: Path, *, size: DemoSize, overwrite: bool = False) -> DemoReport:
    """Run every stage in `out`; a stage that an earlier run has finished is not done again.

    Raises:
        ConfigError: another process works in `out`, or it holds source code or somebody else's
            files under the names of ours.
    """
    atomic.refuse_source_code(out)
    with atomic.locked(out):
        refuse_strangers(out)
        return _run_stages(out, size=size, overwrite=overwrite)


def refuse_strangers(out: Path) -> None:
    """Refuse a folder with something that the demo would replace, and no drawn world.

    Raises:
        ConfigError: names the first such file.
    """
    strangers = [path.name for pattern in MADE for path in out.glob(pattern)]
    if strangers and not read_mark(out / "world"):
        raise ConfigError(
            f"{out} holds {strangers[0]}, but no demo of ours (world/{MARK}), so nothing there is "
            "replaced; name another --out"
        )


def _run_stages(out: Path, *, size: DemoSize, overwrite: bool) -> DemoReport:
    start, chosen = time.monotonic(), SIZES[size]
    _stage(1, f"drawing a world of {sum(chosen.scenes.values())} scenes")
    world = write_world(out / "world", scenes=chosen.scenes, seed=SEED, config=chosen.world)
    _stage(2, "extracting region features")
    regions, shards = _shards(world, out, overwrite)
    _stage(3, "pre-training, single-stream and two-stream in turn")
    overrides = (*recipe.PRETRAIN, f"train.steps={chosen.steps}")
    pretrain(
        [shards],
        out / "pretrain",
        settings.load(PretrainConfig, None, overrides),
        overwrite=overwrite,
    )
    scores = {}
    for number, (task, epochs) in enumerate(chosen.epochs.items(), start=4):
        _stage(number, f"fine-tuning and evaluating {task}")
        scores[task] = _task(task, world, regions, out, epochs, overwrite)
    page = write_report(out, world, regions, scores)
    report = DemoReport(out=out, page=page, scores=scores, seconds=time.monotonic() - start)
    atomic.write_json(out / "scores.json", report.figures())
    return report


def _stage(number: int, what: str) -> None:
    log.info("[%d/%d] %s", number, STAGES, what)


def _shards(world: WorldFiles, out: Path, overwrite: bool) -> tuple[Path, Path]:
    """Extract the regions of every picture; join those of the training pictures with their texts.

    They are such as `semvlp extract FOLDER --detector demo` makes, so that what the demo has
    learned can be asked about any folder.
    """
    regions, shards = out / "regions", out / "shards"
    chosen = ExtractSettings(detector="demo", precision="auto", overwrite=overwrite)
    extract(world.root / "images", regions, chosen)
    join(regions, [world.texts("train")], shards, only_matched=True, overwrite=overwrite)
    return regions, shards


def _task(
    name: str,
    world: WorldFiles,
    regions: Path,
    out: Path,
    epochs: float,
    overwrite: bool,
) -> dict[str, Accuracy]:
    """Fine-tune on one task and score the test split, beside what needs no picture."""
    task, run = load_task(name), out / f"finetune-{name}"
    train, valid, test = (world.annotations(name, split) for split in ("train", "valid", "test"))
    finetune(
        task,
        train,
        regions,
        out / "pretrain" / "last",
        run,
        settings.load(FinetuneConfig, None, (*recipe.FINETUNE, f"train.epochs={epochs}")),
        valid=valid,
        overwrite=overwrite,
    )
    report = evaluate(
        task,
        run / "best",
        test,
        regions,
        out / f"eval-{name}",
        EvalOptions(
            split="test",
            mode="both",
            train=train,
            images=world.root / "images",
            explain=EXPLAINED,
        ),
    )
    assert report.scores is not None, "the test split of the drawn world has labels"
    scores = {**report.scores["baselines"], **report.scores["modes"]}
    return {
        method: Accuracy(score[task.metric], *score[f"{task.metric}_interval"])
        for method, score in scores.items()
    }
