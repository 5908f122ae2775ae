"""What an extraction tells about itself when it is done."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from semvlp.progress import duration


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractReport:
    """What a finished extraction holds and how long this run took."""

    out: Path
    written: int
    """Images with regions, those of earlier runs included."""
    refused: int
    """Images without, those of earlier runs included; `refused.jsonl` says why."""
    processed: int
    """Images this run worked on."""
    seconds: float
    unmatched_texts: int
    """Image names in the text files that no image has."""
    preview: Path | None

    @property
    def images_per_second(self) -> float:
        """Rate of this run, loading of the detector included."""
        return self.processed / max(self.seconds, 1e-9)

    def values(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        paths = {"out": str(self.out), "preview": str(self.preview) if self.preview else None}
        return asdict(self) | paths | {"images_per_second": self.images_per_second}

    def sentence(self) -> str:
        """What was written, how many, how long, where."""
        refused = f", {self.refused} refused" if self.refused else ""
        rate = f" ({self.images_per_second:.1f} images/s)" if self.processed else ""
        page = f"; look at {self.preview}" if self.preview else ""
        return (
            f"{self.out} holds the regions of {self.written} images{refused}; this run took "
            f"{self.processed} of them in {duration(self.seconds)}{rate}{page}."
        )
