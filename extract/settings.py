"""The settings of an extraction, and the report of one that is finished."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from semvlp.errors import ConfigError
from semvlp.extract.presets import resolve
from semvlp.names import Backend, Precision, StoreFormat
from semvlp.progress import duration


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractSettings:
    """The way from images to regions; the command line sets every field.

    Raises:
        ConfigError: a number out of its range.
    """

    detector: str | None = None
    """Name that `load_detector` opens; None is its default."""
    weights: str | None = None
    """Path, URL or `hf:NAME` of weights instead of the detector's own."""
    backend: Backend = "auto"
    """Library that runs the network; auto is torchvision where it has it."""
    features: str | None = None
    """Vision transformer that describes the regions instead of the detector, `hf:OWNER/NAME`."""
    features_side: int | None = None
    """Side of the square with as many pixels as it sees; None is its own."""
    settings: tuple[str, ...] = ()
    """`name=value` over the network's own settings; see `load_detector`."""
    labels: tuple[Path, ...] = ()
    """Files with the names of object classes and of attributes, or what to look for; see
    `name_labels`."""
    format: StoreFormat = "tar"
    """Store to write: tar shards to train from, or an LMDB to look up in."""
    preset: str | None = None
    """Selection rule; None is bottom-up attention's with 36 to 100 regions."""
    min_regions: int | None = None
    """Fewest regions of an image, if a preset can take so many; None is the preset's own number."""
    max_regions: int | None = None
    """Most regions of an image; None is the preset's own number."""
    boxes: Path | None = None
    """File of boxes to describe, see `read_boxes`; None: the detector finds them."""
    and_detected: bool = False
    """The regions that the detector finds are stored behind the boxes of the file."""
    texts: tuple[Path, ...] = ()
    """Captions and questions to store with the images."""
    device: str = "auto"
    """Device of the network; see `semvlp.distributed.device_of`."""
    precision: Precision = "fp32"
    """Arithmetic of the network; scores and boxes are fp32 in both. `auto` is bf16 where the device
    multiplies it by itself, and in a data set that is gone on with what it was begun with."""
    batch_size: int = 8
    """Most images of equal shape in one pass on a GPU; on a CPU each has its own."""
    workers: int = 4
    """Threads that decode and resize images."""
    resume: bool = True
    """Go on where an earlier run stopped."""
    overwrite: bool = False
    """Replace what an earlier run wrote."""
    max_bad: float = 0.05
    """Largest fraction of refused images that still counts as success."""
    preview: int = 0
    """Images on the HTML page written beside the shards; 0 writes none."""
    samples_per_shard: int = 2000
    """Images of one tar shard: 0.8 GB at 100 regions of 2048 numbers."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "samples_per_shard"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.max_bad <= 1:
            raise ConfigError(f"max_bad is a fraction in 0..1, got {self.max_bad}")
        if self.features_side is not None and not (self.features and self.features_side > 0):
            raise ConfigError("--features-side is the pixels, at least 1, that --features sees")
        if self.preview < 0:
            raise ConfigError(f"preview must be at least 0, got {self.preview}")
        resolve(self.preset, self.min_regions, self.max_regions)
        if self.and_detected and self.boxes is None:
            raise ConfigError("--and-detected adds to the boxes of a file: give it by --boxes")
        if self.boxes and not self.and_detected and self._selects:
            raise ConfigError(
                "all boxes of --boxes are stored: --preset, --min-regions and --max-regions choose "
                "among those that --and-detected adds"
            )

    @property
    def _selects(self) -> bool:
        return (self.preset, self.min_regions, self.max_regions) != (None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractReport:
    """The content of a finished extraction and the time of this run."""

    out: Path
    written: int
    """Images with regions, those of earlier runs included."""
    refused: int
    """Images without, those of earlier runs included; `refused.jsonl` says why."""
    reasons: str
    """Why, counted; empty where none was refused."""
    processed: int
    """Images this run worked on."""
    seconds: float
    unmatched_texts: int
    """Image names in the text files that no image has."""
    without_boxes: int
    """Images that the file of boxes does not name, and that were left out."""
    preview: Path | None

    @property
    def images_per_second(self) -> float:
        """Return the rate of this run, loading of the detector included."""
        return self.processed / max(self.seconds, 1e-9)

    def values(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        paths = {"out": str(self.out), "preview": str(self.preview) if self.preview else None}
        return asdict(self) | paths | {"images_per_second": self.images_per_second}

    def sentence(self) -> str:
        """Say in a sentence what was written, how many, how long, where."""
        refused = f", {self.refused} refused ({self.reasons})" if self.refused else ""
        rate = f" ({self.images_per_second:.1f} images/s)" if self.processed else ""
        page = f"; look at {self.preview}" if self.preview else ""
        if self.without_boxes:
            refused += f" ({self.without_boxes} more have no boxes in the file)"
        return (
            f"{self.out} holds the regions of {self.written} images{refused}; this run took "
            f"{self.processed} of them in {duration(self.seconds)}{rate}{page}."
        )
