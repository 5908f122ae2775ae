"""Training a detector of one's own: boxes, classes and attributes from a COCO-format file."""

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import torch
from torch.optim import AdamW

from semvlp.errors import ConfigError, InputError, SemVLPError
from semvlp.extract.average_precision import score_detector
from semvlp.extract.checkpoints import Description, load_strict, save_detector
from semvlp.extract.coco import Annotations, read_annotations
from semvlp.extract.downloads import fetch
from semvlp.extract.faster_rcnn import FasterRCNN
from semvlp.extract.fit_batches import Group, batch_indices, flips, load_groups
from semvlp.extract.fit_state import FitState
from semvlp.extract.networks import NETWORKS
from semvlp.extract.passes import Place, choose_device
from semvlp.extract.published import read_published
from semvlp.extract.torchvision_backend import TorchvisionDetector
from semvlp.progress import Progress, duration
from semvlp.settings import to_tree

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How a detector is trained."""

    network: Literal["small", "resnet50_c4", "resnet101_c4"] = "small"
    """Which network; `small` is for drawings and other small domains."""
    steps: int = 4500
    """Optimiser steps."""
    batch_size: int = 2
    """Images of one step."""
    lr: float = 1e-3
    """Highest learning rate of AdamW, reached after the warm-up, 0 at the end (cosine)."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    weight_decay: float = 1e-4
    """Of AdamW, on every tensor."""
    clip: float = 5.0
    """Largest norm of a step's gradient."""
    flip: bool = False
    """Mirror half of the images; off because left and right have names in the texts."""
    seed: int = 0
    """Fixes the initial weights, the order of images and what is sampled from each."""
    log_every: int = 20
    """Steps between two lines of metrics.jsonl."""
    save_every: int = 500
    """Steps between two states to go on from."""
    init: str | None = None
    """Weights to start from (path, URL or `hf:` address): those of the trunk and of the region
    proposals are taken. The ResNets need it, because their batch norm does not learn."""
    valid: Path | None = None
    """Annotations to score the finished detector on."""
    valid_images: Path | None = None
    """Where their images are; the training images' directory unless given."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.log_every, self.save_every) < 1:
            raise ValueError("steps, batch_size, log_every and save_every must be at least 1")
        if self.lr <= 0 or self.clip <= 0 or min(self.warmup_steps, self.weight_decay) < 0:
            raise ValueError(
                "lr and clip must be positive; warmup_steps, weight_decay not negative"
            )
        if self.network != "small" and self.init is None:
            raise ValueError(f"{self.network} learns nothing from random weights; set `init`")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """What a training made."""

    out: Path
    steps: int
    images: int
    """In the training annotations."""
    seconds: float
    """Of this run."""
    scores: dict[str, float]
    """AP, AP50, AP75 and attribute_accuracy in percent, where validation annotations were given."""

    def values(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return asdict(self) | {"out": str(self.out)}

    def sentence(self) -> str:
        """What was written, how many, how long, where."""
        scores = ", ".join(f"{name} {value:.1f}" for name, value in self.scores.items())
        return (
            f"{self.out} holds a detector after {self.steps} steps on {self.images} images "
            f"({duration(self.seconds)}){f': {scores}' if scores else ''}; use it with "
            f"`semvlp extract IMAGES --detector {self.out}`."
        )


def train_detector(
    annotations: Path,
    images: Path,
    out: Path,
    config: FitConfig | None = None,
    *,
    resume: bool = True,
    overwrite: bool = False,
) -> FitReport:
    """Train on the COCO file `annotations` of `images`; `load_detector(str(out))` opens the result.

    Interrupted at any point, the same call goes on from the last saved state and ends with the very
    weights of an uninterrupted run on the same machine.

    Raises:
        InputError: a malformed annotation or image; names it.
        ConfigError: `out` holds a run with other settings or other annotations.
        SemVLPError: the loss is no longer finite.
    """
    started, config = monotonic(), config or FitConfig()
    data = read_annotations(annotations, images)
    # Read before hours of training, not after.
    valid = _validation(config, images, data)
    if data.crowds:
        log.info("%s: %d boxes around crowds are left out", annotations, data.crowds)
    network = _network(config, data)
    optimizer = AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    state = FitState(out, _plan(config, annotations, data))
    state.open(network, optimizer, resume=resume, overwrite=overwrite)
    _steps(network, optimizer, state, data, config)
    save_detector(out, network.state_dict(), _description(config, data))
    scores = _score(network, data, valid) if valid else {}
    seconds = monotonic() - started
    return FitReport(
        out=out, steps=config.steps, images=len(data.images), seconds=seconds, scores=scores
    )


def _steps(
    network: FasterRCNN,
    optimizer: AdamW,
    state: FitState,
    data: Annotations,
    config: FitConfig,
) -> None:
    network.train()
    with Progress("training", total=config.steps, unit="steps", done=state.step) as bar:
        for step in range(state.step, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            losses = _step(network, optimizer, _groups(data, config, step), config, step)
            if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
                state.log(step + 1, losses)
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                state.save(step + 1, network, optimizer)
            bar.advance(note=f"loss {losses['loss']:.3f}")


def _step(
    network: FasterRCNN, optimizer: AdamW, groups: Sequence[Group], config: FitConfig, step: int
) -> dict[str, float]:
    """One update; every image weighs the same whatever group it is in."""
    optimizer.zero_grad(set_to_none=True)
    device = network.mean.device
    sums: dict[str, float] = {}
    # A seed for each step makes the sampling of a step independent of where a run started.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed * 1_000_003 + step)
        for images, targets in groups:
            share = len(images) / config.batch_size
            moved = [type(target)(*(part.to(device) for part in target)) for target in targets]
            losses = network.losses(images.to(device), moved)
            losses = {"loss": torch.stack(list(losses.values())).sum()} | losses
            (losses["loss"] * share).backward()  # type: ignore[no-untyped-call]
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) * share
    if not math.isfinite(sums["loss"]):
        raise SemVLPError(f"the loss of step {step + 1} is {sums['loss']}; try a smaller `lr`")
    torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
    optimizer.step()
    return sums


def learning_rate(step: int, config: FitConfig) -> float:
    """Of `step`, counted from 0: linear up, then half a cosine down to 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


def _groups(data: Annotations, config: FitConfig, step: int) -> list[Group]:
    size, count = config.batch_size, len(data.images)
    indices = batch_indices(step, batch_size=size, num_images=count, seed=config.seed)
    flipped = flips(step, batch_size=size, seed=config.seed) if config.flip else [False] * size
    chosen = [data.images[index] for index in indices]
    return load_groups(chosen, flipped, NETWORKS[config.network], len(data.attribute_labels))


def _network(config: FitConfig, data: Annotations) -> FasterRCNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = FasterRCNN(
            NETWORKS[config.network],
            num_objects=len(data.object_labels),
            num_attributes=len(data.attribute_labels),
        )
    if config.init is not None:
        _start_from(network, config.network, fetch(config.init))
    return network.to(choose_device(config.device))


def _start_from(network: FasterRCNN, name: str, path: Path) -> None:
    """Everything but the predictor, whose classes are the user's own, from the weights `path`."""
    given = read_published(path, name)
    body = {name: given[name] for name in given if not name.startswith("predictor.")}
    own = network.state_dict()
    predictor = {name: own[name] for name in own if name.startswith("predictor.")}
    load_strict(network, predictor | body, str(path))


def _plan(config: FitConfig, annotations: Path, data: Annotations) -> dict[str, Any]:
    """Everything that must not change between the parts of one run."""
    unchecked = ("log_every", "save_every", "valid", "valid_images", "device")
    settings = {key: value for key, value in to_tree(config).items() if key not in unchecked}
    sha256 = hashlib.sha256(annotations.read_bytes()).hexdigest()
    return settings | {"annotations_sha256": sha256, "images": len(data.images)}


def _description(config: FitConfig, data: Annotations) -> Description:
    return Description(
        network=NETWORKS[config.network],
        object_labels=data.object_labels,
        attribute_labels=data.attribute_labels,
    )


def _validation(config: FitConfig, images: Path, data: Annotations) -> Annotations | None:
    if config.valid is None:
        if config.valid_images is not None:
            raise ConfigError("valid_images needs `valid`, the annotations of those images")
        return None
    valid = read_annotations(config.valid, config.valid_images or images)
    if (valid.object_labels, valid.attribute_labels) != (data.object_labels, data.attribute_labels):
        raise InputError(f"{config.valid}: its labels must be those of the training annotations")
    return valid


def _score(network: FasterRCNN, data: Annotations, valid: Annotations) -> dict[str, float]:
    detector = TorchvisionDetector(
        network,
        data.object_labels,
        data.attribute_labels,
        Place(str(network.mean.device)),
    )
    return score_detector(detector, valid)
