"""Training a detector of one's own: boxes, classes and attributes from a COCO-format file."""

import hashlib
import logging
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

from semvlp.atomic import locked
from semvlp.errors import ConfigError, InputError
from semvlp.extract.detectors.zoo import load_detector
from semvlp.names import Backend
from semvlp.train.detector.average_precision import score_detector
from semvlp.train.detector.checkpoint import open_run
from semvlp.train.detector.coco import Annotations, read_annotations
from semvlp.train.detector.config import DetectorTrainConfig, DetectorTrainReport
from semvlp.train.detector.learner import open_learner, runner_of
from semvlp.train.detector.loop import DetectorLoop
from semvlp.train.run.log import RunLog
from semvlp.train.run.report import write_report

log = logging.getLogger(__name__)


def train_detector(
    annotations: Path,
    images: Path,
    out: Path,
    config: DetectorTrainConfig | None = None,
    *,
    backend: Backend = "auto",
    resume: bool = True,
    overwrite: bool = False,
) -> DetectorTrainReport:
    """Train on the COCO file `annotations` of `images`; `load_detector(str(out))` opens the result.

    Interrupted at any point, the same call goes on from the last checkpoint and ends with the very
    weights of an uninterrupted run on the same machine. `backend` is what trains and is scored:
    `auto` is detectron2 for its configs, else torchvision.

    Raises:
        InputError: a malformed annotation or image; names it.
        ConfigError: `out` holds a run with other settings or other annotations, or the backend
            does not have the network.
        Interrupted: on SIGINT or SIGTERM, after a checkpoint.
        SemVLPError: the loss is no longer finite, or a checkpoint could not be written.
    """
    started, config = monotonic(), config or DetectorTrainConfig()
    runner = runner_of(config, backend)
    data = _read(annotations, images)
    # Read before hours of training, not after.
    valid = _validation(config, images, data)
    learner = open_learner(config, data, runner)
    inputs = {**_inputs(annotations, images), **learner.identity}
    scores = {}
    with ExitStack() as stack:
        stack.enter_context(locked(out))
        open_run(out, config, inputs, resume=resume, overwrite=overwrite)
        loop = DetectorLoop(out, learner, data, config)
        run_log = None
        if not loop.state.finished:
            stack.callback(write_report, out)
            run_log = stack.enter_context(
                RunLog(
                    out,
                    "training",
                    steps=config.steps,
                    done=loop.state.step,
                    tracker=config.tracker,
                )
            )
            loop.run(run_log)
        learner.save(out)
        if valid:
            detector = load_detector(str(out), backend=runner, device=config.device)
            scores = score_detector(detector, valid)
            if run_log:
                run_log.validation(config.steps, scores)
    return DetectorTrainReport(
        out=out,
        steps=config.steps,
        images=len(data.images),
        seconds=monotonic() - started,
        scores=scores,
    )


def _inputs(annotations: Path, images: Path) -> dict[str, Any]:
    """Return what the run reads, for people, and the hash of what it must go on reading."""
    return {
        "annotations": str(annotations.absolute()),
        "annotations_sha256": hashlib.sha256(annotations.read_bytes()).hexdigest(),
        "images": str(images.absolute()),
    }


def _read(path: Path, images: Path) -> Annotations:
    """Read the COCO file `path`, which must hold a box to learn from and to define AP on."""
    data = read_annotations(path, images)
    if data.num_crowds:
        log.info("%s: nothing is learned from %d boxes around crowds", path, data.num_crowds)
    if data.empty:
        log.warning("%s: %d boxes without area in their image are left out", path, data.empty)
    if not any(image.objects for image in data.images):
        raise InputError(
            f"{path}: must hold at least one box, found none in {len(data.images)} images "
            f"beside {data.num_crowds} around crowds and {data.empty} without area"
        )
    return data


def _validation(config: DetectorTrainConfig, images: Path, data: Annotations) -> Annotations | None:
    """Read the annotations to score the detector on, which must have the labels of `data`."""
    if config.valid is None:
        if config.valid_images is not None:
            raise ConfigError("valid_images needs `valid`, the annotations of those images")
        return None
    valid = _read(config.valid, config.valid_images or images)
    if (valid.object_labels, valid.attribute_labels) != (data.object_labels, data.attribute_labels):
        raise InputError(f"{config.valid}: its labels must be those of the training annotations")
    return valid
