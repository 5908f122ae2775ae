"""The whole pipeline on a drawn world: draw, extract, pre-train, fine-tune, evaluate, report."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semvlp import atomic, settings
from semvlp.demo import recipe
from semvlp.demo.dataset.files import MARK, WorldFiles, read_mark, write_world
from semvlp.demo.report import write_report
from semvlp.demo.world.config import WorldConfig
from semvlp.errors import ConfigError
from semvlp.eval.baselines import majority, text_only
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
TASKS = ("vqa", "nlvr2")
# Besides the world, which tells that a folder is of the demo.
MADE = ("regions", "shards", "pretrain", "finetune-*", "eval-*", "scores.json", "report.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The amount of everything in one size of the demo."""

    scenes: dict[str, int]
    world: WorldConfig
    pretrain: tuple[str, ...]
    finetune: tuple[str, ...]


SMALL = Size(
    scenes={"train": 1000, "valid": 40, "test": 200},
    world=WorldConfig(
        towers=0,
        scatter=0,
        square=1,
        covered=0,
        nlvr=0,
        captions=2,
        questions=6,
        statements=6,
        pairs=0.4,
        pair_statements=16,
        most_items=3,
    ),
    pretrain=("train.steps=1400", recipe.first_single(550)),
    finetune=("train.epochs=2",),
)
FULL = Size(
    scenes={"train": 8000, "valid": 300, "test": 1000},
    world=WorldConfig(covered=0, nlvr=0, questions=6, pairs=0.4, pair_statements=20),
    pretrain=("train.steps=20000", recipe.first_single(6000)),
    finetune=("train.epochs=6",),
)
SIZES: dict[DemoSize, Size] = {"small": SMALL, "full": FULL}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """The scores of the demo and the page that shows them."""

    out: Path
    page: Path
    scores: dict[str, dict[str, float]]
    """Accuracy by task and method: majority, text only, single, two, both."""
    seconds: float

    def values(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "out": str(self.out),
            "report": str(self.page),
            "scores": self.scores,
            "seconds": round(self.seconds, 1),
        }

    def sentence(self) -> str:
        """Write the report in a few lines."""
        methods = list(next(iter(self.scores.values())))
        lines = ["accuracy on unseen scenes (%)", " " * 8 + "".join(f"{m:>11}" for m in methods)]
        for task, score in self.scores.items():
            lines.append(f"{task:<8}" + "".join(f"{score[m]:>11.1f}" for m in methods))
        lines.append(f"The demo took {duration(self.seconds)}; open {self.page} in a browser.")
        return "\n".join(lines)


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
    overrides = (*recipe.PRETRAIN, *chosen.pretrain)
    pretrain(
        [shards],
        out / "pretrain",
        settings.load(PretrainConfig, None, overrides),
        overwrite=overwrite,
    )
    scores = {}
    for number, task in enumerate(TASKS, start=4):
        _stage(number, f"fine-tuning and evaluating {task}")
        scores[task] = _task(task, world, regions, out, chosen.finetune, overwrite)
    atomic.write_json(out / "scores.json", scores)
    page = write_report(out, world, regions, scores)
    return DemoReport(out=out, page=page, scores=scores, seconds=time.monotonic() - start)


def _stage(number: int, what: str) -> None:
    log.info("[%d/%d] %s", number, 3 + len(TASKS), what)


def _shards(world: WorldFiles, out: Path, overwrite: bool) -> tuple[Path, Path]:
    """Extract the regions of every picture; join those of the training pictures with their texts.

    A drawn scene has a handful of things, so no minimum fills it up with background.
    """
    regions, shards = out / "regions", out / "shards"
    chosen = ExtractSettings(detector="demo", min_regions=1, max_regions=36, overwrite=overwrite)
    extract(world.root / "images", regions, chosen)
    join(regions, [world.texts("train")], shards, only_matched=True, overwrite=overwrite)
    return regions, shards


def _task(
    name: str,
    world: WorldFiles,
    regions: Path,
    out: Path,
    overrides: Sequence[str],
    overwrite: bool,
) -> dict[str, float]:
    """Fine-tune on one task and score the test split, beside what needs no picture."""
    task, run = load_task(name), out / f"finetune-{name}"
    train, valid, test = (world.annotations(name, split) for split in ("train", "valid", "test"))
    finetune(
        task,
        train,
        regions,
        out / "pretrain" / "last",
        run,
        settings.load(FinetuneConfig, None, (*recipe.FINETUNE, *overrides)),
        valid=valid,
        overwrite=overwrite,
    )
    report = evaluate(
        task,
        run / "best",
        test,
        regions,
        out / f"eval-{name}",
        EvalOptions(split="test", mode="both"),
    )
    assert report.scores is not None, "the test split of the drawn world has labels"
    learned, asked = task.read(train), task.read(test)
    scores = {
        "majority": task.score(asked, majority(learned, asked)),
        "text only": task.score(asked, text_only(learned, asked)),
        **report.scores["modes"],
    }
    return {method: score[task.metric] for method, score in scores.items()}
