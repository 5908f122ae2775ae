"""Extraction: plan -> decode -> detect -> select -> write, resumable, in bounded memory."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from semvlp.atomic import refuse_source_code
from semvlp.distributed import World, joined, precision_of
from semvlp.errors import ConfigError
from semvlp.extract.detectors.detector import Detector
from semvlp.extract.detectors.published import name_labels
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.images.find import DECODING_VERSION, ImageFile, find_images
from semvlp.extract.inference import ImageResult, confirm_failures, results
from semvlp.extract.presets import resolve
from semvlp.extract.preview import write_preview
from semvlp.extract.select import select
from semvlp.names import PRECISIONS, Backend, Precision, StoreFormat
from semvlp.progress import Progress, duration
from semvlp.shards.dataset.hashes import files_sha256
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.dataset.plan import Part, Plan
from semvlp.shards.dataset.plan_file import begun_extractor
from semvlp.shards.dataset.refusals import check_refused
from semvlp.shards.open import open_store
from semvlp.shards.record import Regions, Sample, Texts
from semvlp.shards.texts.texts import read_matched
from semvlp.shards.writer import Writer, open_writer

# One rank may have all the large images; only a rank that died ends the wait, through torchrun.
PATIENCE = timedelta(days=7)
log = logging.getLogger(__name__)


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
    settings: tuple[str, ...] = ()
    """`name=value` over the network's own settings; see `load_detector`."""
    labels: tuple[Path, ...] = ()
    """Files with the names of object classes and of attributes; see `name_labels`."""
    format: StoreFormat = "tar"
    """Store to write: tar shards to train from, or an LMDB to look up in."""
    preset: str | None = None
    """Selection rule; None is bottom-up attention's with 36 to 100 regions."""
    min_regions: int | None = None
    """Fewest regions of an image, if a preset can take so many; None is the preset's own number."""
    max_regions: int | None = None
    """Most regions of an image; None is the preset's own number."""
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
        if self.preview < 0:
            raise ConfigError(f"preview must be at least 0, got {self.preview}")
        resolve(self.preset, self.min_regions, self.max_regions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractReport:
    """The content of a finished extraction and the time of this run."""

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
        """Return the rate of this run, loading of the detector included."""
        return self.processed / max(self.seconds, 1e-9)

    def values(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        paths = {"out": str(self.out), "preview": str(self.preview) if self.preview else None}
        return asdict(self) | paths | {"images_per_second": self.images_per_second}

    def sentence(self) -> str:
        """Say in a sentence what was written, how many, how long, where."""
        refused = f", {self.refused} refused" if self.refused else ""
        rate = f" ({self.images_per_second:.1f} images/s)" if self.processed else ""
        page = f"; look at {self.preview}" if self.preview else ""
        return (
            f"{self.out} holds the regions of {self.written} images{refused}; this run took "
            f"{self.processed} of them in {duration(self.seconds)}{rate}{page}."
        )


def extract(
    images: Path,
    out: Path,
    settings: ExtractSettings | None = None,
    *,
    detector: Detector | None = None,
) -> ExtractReport:
    """Write the regions of all `images` (see `find_images`) to a data set in the directory `out`.

    An image that cannot be used is one line of `out/refused.jsonl` and costs no other image.
    `detector` is used instead of the one the settings name. Stopped at any point, the same call
    goes on from there, and the shards become the same bytes; so they do under torchrun, where each
    process writes every so many-th shard.

    Raises:
        ConfigError: settings that cannot be, or another data set in `out`.
        InputError: no images, two of one id, or texts that fit none of them.
        SemVLPError: the detector fails on every image.
        TooManyRefused: finished, but a larger part than `max_bad` was refused.
    """
    settings = settings or ExtractSettings()
    start = time.monotonic()
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out must be a directory, but {out} is a file")
    refuse_source_code(out)
    files = find_images(images)
    texts, unmatched = _match(settings.texts, files)
    with joined(settings.device, patience=PATIENCE, setting="--device") as world:
        detector = detector or _load(_settled(settings, out, world), str(world.device))
        name_labels(detector, settings.labels)
        plan = _plan(files, detector, settings)
        begin: Callable[..., Writer] = partial(
            open_writer, out, plan, format=settings.format, packages=_packages(detector)
        )
        restart = {"resume": settings.resume, "overwrite": settings.overwrite}
        process = partial(_process, files, detector, settings, texts=texts)
        if world.size == 1:
            with begin(**restart) as writer:
                processed = process(writer)
                writer.finish()
        else:
            processed = _together(begin, restart, process, world)
        counts = read_manifest(out).counts
        report = ExtractReport(
            out=out,
            written=counts["samples"],
            refused=counts["errors"],
            processed=processed,
            seconds=time.monotonic() - start,
            unmatched_texts=unmatched,
            preview=_preview(images, out, settings) if world.is_first else None,
        )
    check_refused(out, counts, settings.max_bad, took=f" in {duration(report.seconds)}")
    return report


def _together(
    begin: Callable[..., Writer],
    restart: Mapping[str, bool],
    process: Callable[[Writer], int],
    world: World,
) -> int:
    """Write each rank's own shards of the plan; the first one begins and finishes the whole."""
    if world.is_first:
        begin(**restart).close()
    world.wait()
    with begin(part=Part(world.rank, world.size)) as writer:
        processed = process(writer)
    processed = int(world.sum([processed])[0])
    if world.is_first:
        with begin() as writer:
            writer.finish()
    world.wait()
    return processed


def _settled(settings: ExtractSettings, out: Path, world: World) -> ExtractSettings:
    """Return the settings with what `precision` = auto stands for.

    A data set that is gone on with keeps what it was begun with.
    """
    if settings.precision != "auto":
        return settings
    precision = precision_of("auto", world.device)
    begun = {} if settings.overwrite else begun_extractor(out)
    if begun.get("precision") in PRECISIONS:
        precision = begun["precision"]
    log.info("--precision auto takes %s", precision)
    return replace(settings, precision=precision)


def _load(settings: ExtractSettings, device: str) -> Detector:
    return load_detector(
        settings.detector,
        weights=settings.weights,
        backend=settings.backend,
        device=device,
        precision=settings.precision,
        settings=settings.settings,
    )


def _plan(files: Sequence[ImageFile], detector: Detector, settings: ExtractSettings) -> Plan:
    rule = resolve(settings.preset, settings.min_regions, settings.max_regions)
    return Plan(
        image_ids=tuple(file.image_id for file in files),
        extractor={
            **detector.profile,
            "selection": rule.stored(),
            "decoding": DECODING_VERSION,
        },
        object_labels=tuple(detector.object_labels),
        attribute_labels=tuple(detector.attribute_labels),
        feature_size=detector.feature_size,
        samples_per_shard=settings.samples_per_shard,
        texts_sha256=files_sha256(settings.texts) if settings.texts else "",
    )


def _packages(detector: Detector) -> tuple[str, ...]:
    """Return what shapes the numbers, beside the packages that every data set names."""
    backend = ("detectron2",) if detector.profile.get("backend") == "detectron2" else ()
    return ("torchvision", "pillow", *backend)


def _match(paths: Sequence[Path], files: Sequence[ImageFile]) -> tuple[dict[str, Texts], int]:
    """Return texts by image id, and the number of names that fit no image."""
    if not paths:
        return {}, 0
    texts, unmatched = read_matched(paths, [file.image_id for file in files])
    log.info("texts for %d of %d images", len(texts), len(files))
    if unmatched:
        log.info("texts of %d other images, such as %s, left out", len(unmatched), unmatched[0])
    return texts, len(unmatched)


def _process(
    files: Sequence[ImageFile],
    detector: Detector,
    settings: ExtractSettings,
    writer: Writer,
    *,
    texts: Mapping[str, Texts],
) -> int:
    """Write or refuse every pending image of the writer's part, and return their number."""
    pending = set(writer.pending)
    images_per_pass = min(settings.batch_size, detector.images_per_pass)
    total, refused = writer.num_images, len(writer.refused)
    choose = partial(
        select,
        preset=settings.preset,
        min_regions=settings.min_regions,
        max_regions=settings.max_regions,
        profile=writer.plan.profile,
    )
    stream = results(
        files,
        detector,
        choose,
        wanted=pending,
        per_shard=settings.samples_per_shard,
        images_per_pass=images_per_pass,
        workers=settings.workers,
    )
    done = total - len(pending)
    confirmed = confirm_failures(stream, images_per_pass=images_per_pass, worked=done > refused)
    with (
        closing(stream),
        Progress("extracting", total=total, unit="images", done=done) as bar,
    ):
        for result in confirmed:
            refused += not _write(result, writer, texts)
            bar.advance(note=f"{refused} refused")
    return len(pending)


def _write(result: ImageResult, writer: Writer, texts: Mapping[str, Texts]) -> bool:
    """Store the regions and return True, or the reason why there are none and return False."""
    image_id = result.file.image_id
    if isinstance(result.value, Regions):
        own = texts.get(image_id, Texts())
        writer.write(Sample(key=image_id, regions=result.value, texts=own))
        return True
    log.debug("refused %s: %s", result.file, result.reason)
    writer.refuse(image_id, str(result.file), result.reason)
    return False


def _preview(images: Path, out: Path, settings: ExtractSettings) -> Path | None:
    if not settings.preview:
        return None
    with open_store(out) as store:
        if not len(store):
            log.warning("no preview: every image was refused")
            return None
        return write_preview(store, out / "preview.html", images=images, count=settings.preview)
