"""Extraction: plan -> decode -> detect -> select -> write, resumable, in bounded memory."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from semvlp.atomic import refuse_source_code
from semvlp.distributed import World, joined, precision_of
from semvlp.errors import ConfigError
from semvlp.extract.detectors.detector import Detector
from semvlp.extract.detectors.published import name_labels
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.images.file import as_begun
from semvlp.extract.images.find import DECODING_VERSION, ImageFile, find_images
from semvlp.extract.images.given import Given, GivenBoxes, given_boxes, rule_of
from semvlp.extract.inference import ImageResult, confirm_failures, results
from semvlp.extract.presets import resolve
from semvlp.extract.preview import write_preview
from semvlp.extract.select import select
from semvlp.extract.settings import ExtractReport, ExtractSettings
from semvlp.names import PRECISIONS
from semvlp.progress import Progress, duration
from semvlp.shards.dataset.hashes import files_sha256
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.dataset.plan import Part, Plan
from semvlp.shards.dataset.plan_file import begun_extractor, begun_ids
from semvlp.shards.dataset.refusals import check_refused, printable, reasons_of
from semvlp.shards.open import open_store
from semvlp.shards.record import Regions, Sample, Texts
from semvlp.shards.texts.texts import read_matched
from semvlp.shards.writer import Writer, open_writer

__all__ = ["ExtractReport", "ExtractSettings", "extract"]

# One rank may have all the large images; only a rank that died ends the wait, through torchrun.
PATIENCE = timedelta(days=7)
log = logging.getLogger(__name__)


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
    begun = () if settings.overwrite else begun_ids(out)
    files: Sequence[ImageFile] = as_begun(find_images(images, others=True), begun)
    boxes = _given_boxes(settings, files)
    files = boxes.files if boxes else files
    texts, unmatched = _match(settings.texts, files)
    with joined(settings.device, patience=PATIENCE, setting="--device") as world:
        detector = detector or _load(_settled(settings, out, world), str(world.device))
        name_labels(detector, settings.labels)
        given = _in_classes_of(detector, boxes)
        plan = _plan(files, detector, settings, given, boxes)
        begin: Callable[..., Writer] = partial(
            open_writer, out, plan, format=settings.format, packages=_packages(detector)
        )
        restart = {"resume": settings.resume, "overwrite": settings.overwrite}
        process = partial(_process, files, detector, settings, given=given, texts=texts)
        if world.size == 1:
            with begin(**restart) as writer:
                processed = process(writer)
                writer.finish()
        else:
            processed = _together(begin, restart, process, world)
        manifest = read_manifest(out)
        counts = manifest.counts
        report = ExtractReport(
            out=out,
            written=counts["samples"],
            refused=counts["errors"],
            reasons=reasons_of(manifest.refused),
            processed=processed,
            seconds=time.monotonic() - start,
            unmatched_texts=unmatched,
            without_boxes=boxes.left_out if boxes else 0,
            preview=_preview(images, out, settings) if world.is_first else None,
        )
    check_refused(out, manifest, settings.max_bad, took=f" in {duration(report.seconds)}")
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
        features=settings.features,
        features_side=settings.features_side,
    )


def _given_boxes(settings: ExtractSettings, files: Sequence[ImageFile]) -> GivenBoxes | None:
    if settings.boxes is None:
        return None
    return given_boxes(settings.boxes, files, and_detected=settings.and_detected)


def _in_classes_of(detector: Detector, boxes: GivenBoxes | None) -> dict[str, Given]:
    """Return the given boxes by image id, with the classes that a detector has for their names.

    Raises:
        ConfigError: it describes nothing but what it finds itself.
    """
    if boxes is None:
        return {}
    if not detector.describes_boxes:
        raise ConfigError(
            "--boxes: the states of this detector's queries describe what they found themselves, "
            "never a box that is given; take a detector that pools features from regions, such as "
            "the default one"
        )
    return boxes.of_images(detector.object_labels)


def _plan(
    files: Sequence[ImageFile],
    detector: Detector,
    settings: ExtractSettings,
    given: Mapping[str, Given],
    boxes: GivenBoxes | None,
) -> Plan:
    rule = resolve(settings.preset, settings.min_regions, settings.max_regions).stored()
    if boxes:
        rule = rule_of(given) | (rule if settings.and_detected else {})
    return Plan(
        image_ids=tuple(file.image_id for file in files),
        extractor={
            **detector.profile,
            "selection": rule,
            "decoding": DECODING_VERSION,
        },
        object_labels=tuple(detector.object_labels),
        attribute_labels=tuple(detector.attribute_labels),
        feature_size=detector.feature_size,
        samples_per_shard=settings.samples_per_shard,
        texts_sha256=files_sha256(settings.texts) if settings.texts else "",
        boxes_sha256=boxes.sha256 if boxes else "",
    )


def _packages(detector: Detector) -> tuple[str, ...]:
    """Return what shapes the numbers, beside the packages that every data set names."""
    backend = detector.profile.get("backend", "torchvision")
    describing = ("transformers",) if "features" in detector.profile else ()
    return tuple(dict.fromkeys(("torchvision", "pillow", backend, *describing)))


def _match(paths: Sequence[Path], files: Sequence[ImageFile]) -> tuple[dict[str, Texts], int]:
    """Return texts by image id, and the number of names that fit no image."""
    if not paths:
        return {}, 0
    matched, unmatched = read_matched(paths, [file.image_id for file in files])
    with matched:
        texts = dict(matched)
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
    given: Mapping[str, Given],
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
        given=given,
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
        own, name = texts.get(image_id, Texts()), printable(result.file.name)
        writer.write(Sample(key=image_id, regions=result.value, texts=own, name=name))
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
