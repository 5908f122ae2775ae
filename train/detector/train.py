"""Training a detector of one's own: boxes, classes and attributes from a COCO-format file."""

import hashlib
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW

from semvlp.errors import ConfigError, InputError, SemVLPError
from semvlp.extract.detectors.detector import Backend
from semvlp.extract.detectors.zoo import load_detector
from semvlp.extract.images.resize import ResizeRule
from semvlp.progress import Progress
from semvlp.settings import to_tree
from semvlp.train.detector.average_precision import score_detector
from semvlp.train.detector.batches import Group, batch_indices, flips, load_groups
from semvlp.train.detector.coco import Annotations, read_annotations
from semvlp.train.detector.config import DetectorTrainConfig, DetectorTrainReport
from semvlp.train.detector.learner import Learner, open_learner, runner_of
from semvlp.train.detector.state import TrainingState

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

    Interrupted at any point, the same call goes on from the last saved state and ends with the very
    weights of an uninterrupted run on the same machine. `backend` is what trains and is scored:
    `auto` is detectron2 for its configs, else torchvision.

    Raises:
        InputError: a malformed annotation or image; names it.
        ConfigError: `out` holds a run with other settings or other annotations, or the backend
            does not have the network.
        SemVLPError: the loss is no longer finite.
    """
    started, config = monotonic(), config or DetectorTrainConfig()
    runner = runner_of(config, backend)
    data = _read(annotations, images)
    # Read before hours of training, not after.
    valid = _validation(config, images, data)
    learner = open_learner(config, data, runner)
    optimizer = AdamW(_learned(learner.network), lr=config.lr, weight_decay=config.weight_decay)
    state = TrainingState(out, {**_plan(config, annotations, data), **learner.plan})
    state.open(learner.network, optimizer, resume=resume, overwrite=overwrite)
    _steps(learner, optimizer, state, data, config)
    learner.save(out)
    scores = {}
    if valid:
        detector = load_detector(str(out), backend=runner, device=config.device)
        scores = score_detector(detector, valid)
    seconds = monotonic() - started
    return DetectorTrainReport(
        out=out, steps=config.steps, images=len(data.images), seconds=seconds, scores=scores
    )


def _steps(
    learner: Learner,
    optimizer: AdamW,
    state: TrainingState,
    data: Annotations,
    config: DetectorTrainConfig,
) -> None:
    with Progress("training", total=config.steps, unit="steps", done=state.step) as bar:
        for step in range(state.step, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            groups = _groups(data, learner.resize, config, step)
            losses = _step(learner, optimizer, groups, config, step)
            if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
                state.log(step + 1, losses)
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                state.save(step + 1, learner.network, optimizer)
            bar.advance(note=f"loss {losses['loss']:.3f}")


def _step(
    learner: Learner,
    optimizer: AdamW,
    groups: Sequence[Group],
    config: DetectorTrainConfig,
    step: int,
) -> dict[str, float]:
    """One update; every image weighs the same whatever group it is in."""
    optimizer.zero_grad(set_to_none=True)
    device = _learned(learner.network)[0].device
    sums: dict[str, float] = {}
    # A seed for each step makes the sampling of a step independent of where a run started.
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=accelerators, device_type=device.type):
        torch.manual_seed(config.seed * 1_000_003 + step)
        for images, targets in groups:
            share = len(images) / config.batch_size
            losses = learner.losses(images, targets)
            losses = {"loss": torch.stack(list(losses.values())).sum()} | losses
            (losses["loss"] * share).backward()  # type: ignore[no-untyped-call]
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) * share
    if not math.isfinite(sums["loss"]):
        raise SemVLPError(f"the loss of step {step + 1} is {sums['loss']}; try a smaller `lr`")
    torch.nn.utils.clip_grad_norm_(_learned(learner.network), config.max_grad_norm)
    optimizer.step()
    return sums


def learning_rate(step: int, config: DetectorTrainConfig) -> float:
    """Of `step`, counted from 0: linear up, then half a cosine down to 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


def _learned(network: nn.Module) -> list[nn.Parameter]:
    """What is not frozen, as the first stages of detectron2's networks are."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _groups(
    data: Annotations, rule: ResizeRule, config: DetectorTrainConfig, step: int
) -> list[Group]:
    size, count = config.batch_size, len(data.images)
    indices = batch_indices(step, batch_size=size, num_images=count, seed=config.seed)
    flipped = flips(step, batch_size=size, seed=config.seed) if config.flip else [False] * size
    chosen = [data.images[index] for index in indices]
    return load_groups(chosen, flipped, rule, len(data.attribute_labels))


def _plan(config: DetectorTrainConfig, annotations: Path, data: Annotations) -> dict[str, Any]:
    """Everything that must not change between the parts of one run."""
    unchecked = ("log_every", "save_every", "valid", "valid_images", "device")
    settings = {key: value for key, value in to_tree(config).items() if key not in unchecked}
    sha256 = hashlib.sha256(annotations.read_bytes()).hexdigest()
    return settings | {
        "settings": list(config.settings),
        "annotations_sha256": sha256,
        "images": len(data.images),
    }


def _read(path: Path, images: Path) -> Annotations:
    """The COCO file `path`, from which something can be learned and on which AP is defined."""
    data = read_annotations(path, images)
    if data.crowds:
        log.info("%s: %d boxes around crowds are left out", path, data.crowds)
    if data.empty:
        log.warning("%s: %d boxes without area in their image are left out", path, data.empty)
    if not any(image.objects for image in data.images):
        raise InputError(
            f"{path}: must hold at least one box, found none in {len(data.images)} images "
            f"beside {data.crowds} around crowds and {data.empty} without area"
        )
    return data


def _validation(config: DetectorTrainConfig, images: Path, data: Annotations) -> Annotations | None:
    if config.valid is None:
        if config.valid_images is not None:
            raise ConfigError("valid_images needs `valid`, the annotations of those images")
        return None
    valid = _read(config.valid, config.valid_images or images)
    if (valid.object_labels, valid.attribute_labels) != (data.object_labels, data.attribute_labels):
        raise InputError(f"{config.valid}: its labels must be those of the training annotations")
    return valid
