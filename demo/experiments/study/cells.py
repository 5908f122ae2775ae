"""The cells of the study: how a network is trained, and which are fine-tuned afterwards.

Cells differ in what a line says and in nothing else: the same pictures and texts, the same batches
in the same order for each seed, the same number of steps (`single-half`: half of them, as many in
single-stream mode as `alternate` has).

    schedule   the modes of the steps; X-then-alternate: X for the first half of them
    blocks     how many of the three have a cross-attention: the upper third, half (two), all
    cross      its weights: its own (for both directions), or those of the block's self-attention
    boxes      `model.box_encoding`
    parts      where it is trained: on ideal regions, on the drawn world by the real pipeline
"""

from dataclasses import dataclass
from typing import Literal, cast, get_args

from semvlp.names import BoxEncoding, EvalMode

Part = Literal["ideal", "drawn"]
PARTS: tuple[Part, ...] = get_args(Part)

TABLE = """
    single                 3  tied  fourier  ideal drawn
    two                    3  tied  fourier  ideal drawn
    alternate              3  tied  fourier  ideal drawn
    single-then-alternate  3  tied  fourier  ideal drawn
    two-then-alternate     3  tied  fourier  ideal drawn
    single-half            3  tied  fourier  ideal drawn

    alternate              3  own   fourier  ideal drawn
    alternate              2  tied  fourier  ideal
    alternate              2  own   fourier  ideal
    alternate              1  tied  fourier  ideal
    alternate              1  own   fourier  ideal drawn
    two                    3  own   fourier  ideal
    two                    1  tied  fourier  ideal
    two                    1  own   fourier  ideal
    single-then-alternate  3  own   fourier  ideal
    single-then-alternate  1  tied  fourier  ideal
    single-then-alternate  1  own   fourier  ideal
    two-then-alternate     3  own   fourier  ideal

    single                 3  tied  linear   ideal
    two                    3  tied  linear   ideal
    alternate              3  tied  linear   ideal
    alternate              3  own   linear   ideal
"""

# Pre-trained by one schedule, fine-tuned in one mode; on ideal regions, as the base cell otherwise.
TRANSFER_TABLE = """
    single     single
    single     two
    two        single
    two        two
    alternate  single
    alternate  two
    nothing    single
    nothing    two
"""
TUNED_SHARE = 0.1
"""Steps of fine-tuning for each step of pre-training."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to pre-train."""

    schedule: str
    blocks: int
    cross: str
    boxes: BoxEncoding

    @property
    def name(self) -> str:
        return f"{self.schedule}-{self.blocks}-{self.cross}-{self.boxes}"

    @property
    def trained(self) -> EvalMode:
        """Return the mode that it is meant to be used in."""
        schedule = self.schedule.removesuffix("-half")
        return cast(EvalMode, schedule) if schedule in ("single", "two") else "both"

    def model_settings(self) -> tuple[str, ...]:
        """Return the overrides of `model`."""
        weights = {"own": "shared", "tied": "tied"}[self.cross]
        return (
            f"model.cross_layers={self.blocks}",
            f"model.cross_attention={weights}",
            f"model.box_encoding={self.boxes}",
        )

    def settings(self, steps: int) -> tuple[str, ...]:
        """Return the overrides of pre-training where a cell has so many steps."""
        first, _, then = self.schedule.partition("-")
        half = steps // 2
        turns = f'["{first} {half}", "alternate"]' if then == "then-alternate" else f'"{first}"'
        return (
            *self.model_settings(),
            f"train.schedule={turns}",
            f"train.steps={self.own_steps(steps)}",
        )

    def own_steps(self, steps: int) -> int:
        """Return its steps, where a whole cell has so many."""
        return steps // 2 if self.schedule.endswith("-half") else steps


@dataclass(frozen=True, slots=True)
class Transfer:
    """One way to fine-tune what was pre-trained in one way."""

    before: str
    after: EvalMode

    @property
    def name(self) -> str:
        return f"{self.before}-to-{self.after}"

    @property
    def trained(self) -> EvalMode:
        """Return the mode that it was fine-tuned in."""
        return self.after

    @property
    def cell(self) -> Cell | None:
        """Return the cell that it starts from; None: from nothing."""
        if self.before == "nothing":
            return None
        return Cell(self.before, BASE.blocks, BASE.cross, BASE.boxes)


BASE = Cell("alternate", 3, "tied", "fourier")


def cells(part: Part) -> list[Cell]:
    """Return the cells of a part, in the order of the table."""
    lines = [line.split() for line in TABLE.splitlines() if line.strip()]
    return [
        Cell(schedule, int(blocks), cross, cast(BoxEncoding, boxes))
        for schedule, blocks, cross, boxes, *parts in lines
        if part in parts
    ]


def transfers(part: Part) -> list[Transfer]:
    """Return what is fine-tuned in a part."""
    lines = [line.split() for line in TRANSFER_TABLE.splitlines() if line.strip()]
    return [Transfer(before, cast(EvalMode, after)) for before, after in lines if part == "ideal"]
