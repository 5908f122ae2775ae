"""`semvlp detector ...`: train a detector, list the known ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from semvlp.atomic import refuse_inputs
from semvlp.commands.console import Group, Result, reported
from semvlp.commands.options import (
    EXISTING,
    allow_http_option,
    backend_option,
    out_option,
    restart_options,
)
from semvlp.commands.settings_cli import CommandWithSettings, settings_options


@click.group(cls=Group)
def detector() -> None:
    """Train a detector of your own, or list the known ones."""


@detector.command("train", cls=CommandWithSettings, settings="detector")
@click.argument("annotations", type=EXISTING)
@click.argument("images", type=EXISTING)
@out_option("runs/detector")
@backend_option
@settings_options
@allow_http_option
@restart_options
def detector_train(
    annotations: Path,
    images: Path,
    out: Path,
    config: Path | None,
    overrides: Sequence[str],
    **options: Any,
) -> Result:
    """Train a detector with attributes on COCO-format ANNOTATIONS of IMAGES."""
    from semvlp.progress import busy
    from semvlp.settings import load
    from semvlp.train.detector.config import DetectorTrainConfig

    settings = load(DetectorTrainConfig, config, overrides)
    read = (settings.init, settings.valid, settings.valid_images)
    refuse_inputs(out, annotations, images, *read)
    with busy("loading torch"):
        from semvlp.train.detector.train import train_detector
    return reported(train_detector(annotations, images, out, settings, **options))


@detector.command("list")
def detector_list() -> Result:
    """List known detectors: what they are and where their weights come from."""
    from semvlp.extract.detectors.known import KNOWN

    rows: dict[str, Any] = {}
    lines = []
    for name, spec in KNOWN.items():
        sources = [source.values() for source in spec.sources]
        rows[name] = {"what": spec.what, "weights": spec.weights, "sources": sources}
        lines += [name, f"  {spec.what}"]
        lines += [f"  weights: {source.sentence()}" for source in spec.sources]
    lines.append(
        "hf:OWNER/NAME\n  a detector of Hugging Face's library: RT-DETR, D-FINE, DETR ..., and "
        'with --labels "dog, red car" OWLv2 and Grounding DINO'
    )
    return Result(rows, "\n".join(lines))
