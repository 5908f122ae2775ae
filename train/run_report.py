"""What a run has done, for people and for programs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semvlp.progress import duration


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The result of `pretrain` and of `finetune`."""

    what: str
    """Which kind of training, for people."""
    run: Path
    steps: int
    """Steps done since the beginning of the run."""
    new_steps: int = 0
    """Steps done by this call; 0 where the run was finished before."""
    pairs: int = 0
    """(text, image) pairs of the new steps."""
    seconds: float = 0.0
    """Time of the new steps, without validation and saving."""
    loss: float | None = None
    """Loss of the last new step."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores of the last validation."""
    best_step: int | None = None
    """Step of the best checkpoint."""

    @property
    def pairs_per_second(self) -> float:
        """Over the new steps."""
        return self.pairs / self.seconds if self.seconds else 0.0

    def values(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "run": str(self.run),
            "checkpoint": str(self.run / "last"),
            "best": str(self.run / "best") if self.best_step is not None else None,
            "best_step": self.best_step,
            "report": str(self.run / "report.html"),
            "steps": self.steps,
            "new_steps": self.new_steps,
            "pairs": self.pairs,
            "seconds": round(self.seconds, 3),
            "pairs_per_second": round(self.pairs_per_second, 1),
            "loss": self.loss,
            "scores": dict(self.scores),
        }

    def sentence(self) -> str:
        """The report as one sentence."""
        if self.loss is None:
            return f"{self.what} in {self.run} is finished after {self.steps} steps; nothing to do."
        return (
            f"{self.what}: {self.new_steps} steps with {self.pairs} pairs in "
            f"{duration(self.seconds)} ({self.pairs_per_second:.0f} pairs/s), "
            f"loss {self.loss:.3f}; checkpoint {self.run / 'last'}, "
            f"curves {self.run / 'report.html'}."
        )
