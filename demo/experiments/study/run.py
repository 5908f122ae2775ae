"""One training of the study, scored on unseen scenes; finished ones are read, not computed."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from semvlp import atomic, settings
from semvlp.demo import recipe
from semvlp.demo.experiments.study.cells import BASE, TUNED_SHARE, Cell, Part, Transfer
from semvlp.demo.experiments.study.data import Data
from semvlp.documents import from_json
from semvlp.errors import ConfigError
from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.eval.tasks.table import load_task
from semvlp.names import EvalMode
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.finetune import finetune
from semvlp.train.pretrain import pretrain
from semvlp.train.run.state import newest

RESULT = "result.json"
MODES: tuple[EvalMode, ...] = ("single", "two", "both")
# Nothing is gone on with but the newest checkpoint.
KEEP = "train.keep=1"
# To read the texts of a picture takes long for so small a network.
TEXTS = "data.texts_per_image=8"
log = logging.getLogger(__name__)

Accuracy = Mapping[EvalMode, Mapping[str, float]]
"""In percent, by mode of the evaluation and kind of statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The scores of one training."""

    part: Part
    name: str
    seed: int
    trained: EvalMode
    """The mode that the network is meant to be used in."""
    accuracy: Accuracy
    seconds: float
    """Time of training and evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One cell or transfer with one seed."""

    part: Part
    what: Cell | Transfer
    seed: int
    steps: int
    out: Path

    @property
    def folder(self) -> Path:
        return self.out / self.part / "runs" / self.what.name / f"seed-{self.seed}"

    @property
    def own_steps(self) -> int:
        """Return the steps of this training, where a whole cell has `steps`."""
        if isinstance(self.what, Transfer):
            return max(1, round(TUNED_SHARE * self.steps))
        return self.what.own_steps(self.steps)

    def result(self) -> Result | None:
        """Return its result; None where it is not finished."""
        path = self.folder / RESULT
        return Result(**from_json(path.read_bytes())) if path.exists() else None

    def run(self, data: Data) -> None:
        """Train and score, unless that is done, or another process is about it.

        Raises:
            Interrupted: on SIGINT or SIGTERM; the same call goes on from there.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(atomic.locked(self.folder))
            except ConfigError:
                log.info("%s: another process computes it", self.folder)
                return
            if self.result() is None and self._can_start():
                log.info("%s, %s, seed %d", self.part, self.what.name, self.seed)
                self.keep(self._scored(data))

    def keep(self, result: Result) -> None:
        """Write its result, with which it is finished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic.write_json(self.folder / RESULT, asdict(result))

    @property
    def start(self) -> "Training | None":
        """Return the training whose weights a transfer starts from."""
        cell = self.what.cell if isinstance(self.what, Transfer) else None
        return replace(self, what=cell) if cell else None

    def _can_start(self) -> bool:
        """Tell whether the training that a transfer starts from is finished."""
        return self.start is None or self.start.result() is not None

    def _scored(self, data: Data) -> Result:
        run = self.folder / "run"
        if isinstance(self.what, Cell):
            self._pretrain(self.what, data, run)
        else:
            self._finetune(self.what, data, run)
        options = EvalOptions(split="test", mode="both")
        report = evaluate(
            load_task("gqa"), run / "last", [data.test], data.regions, self.folder / "eval", options
        )
        assert report.scores is not None, "the statements have labels"
        kinds = report.scores["parts"]["semantic type"]
        checkpoint = newest(run)
        assert checkpoint is not None, "the run is finished"
        return Result(
            part=self.part,
            name=self.what.name,
            seed=self.seed,
            trained=self.what.trained,
            accuracy={mode: {kind: row[mode] for kind, row in kinds.items()} for mode in MODES},
            seconds=checkpoint.state.seconds + report.seconds,
        )

    def _pretrain(self, cell: Cell, data: Data, run: Path) -> None:
        overrides = (
            *recipe.PRETRAIN,
            *cell.settings(self.steps),
            f"model.tokenizer={data.tokenizer.absolute()}",
            f"train.seed={self.seed}",
            TEXTS,
            KEEP,
        )
        pretrain([data.shards], run, settings.load(PretrainConfig, None, overrides))

    def _finetune(self, transfer: Transfer, data: Data, run: Path) -> None:
        # Read only where it starts from nothing.
        model = [each for each in recipe.PRETRAIN if each.startswith("model.")]
        overrides = (
            *recipe.FINETUNE,
            *model,
            *BASE.model_settings(),
            f"model.tokenizer={data.tokenizer.absolute()}",
            f"train.steps={self.own_steps}",
            f"train.schedule={transfer.after}",
            f"train.seed={self.seed}",
            KEEP,
        )
        init = self.start.folder / "run" / "last" if self.start else None
        config = settings.load(FinetuneConfig, None, overrides)
        finetune(load_task("gqa"), [data.tune], data.regions, init, run, config)


def read_results(out: Path, part: Part) -> list[Result]:
    """Read what is finished of a part, whichever cells were asked for."""
    paths = (out / part / "runs").glob(f"*/seed-*/{RESULT}")
    return [Result(**from_json(path.read_bytes())) for path in sorted(paths)]
