"""The commands: each parses, calls one function and returns its Result.

Rooms are imported inside the commands, so that `--help` answers without loading torch.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from semvlp.addresses import refuse_missing_checkpoint
from semvlp.atomic import refuse_inputs
from semvlp.commands.app_cli import ask, search, serve
from semvlp.commands.console import CONTEXT, Group, Result, reported, run
from semvlp.commands.detector_cli import detector
from semvlp.commands.eval_cli import evaluate, score
from semvlp.commands.installation_cli import completion, doctor, version_option
from semvlp.commands.options import (
    EXISTING,
    PATH,
    STORE_FORMAT,
    allow_http_option,
    annotations_option,
    backend_option,
    choice,
    columns_option,
    device_option,
    examples_bad_option,
    from_option,
    keep_option,
    max_bad_option,
    none_bad_option,
    other_regions_option,
    out_option,
    overwrite_option,
    precision_option,
    restart_options,
    task_option,
)
from semvlp.commands.settings_cli import CommandWithSettings, list_settings, settings_options
from semvlp.commands.shards_cli import shards
from semvlp.names import DEMO_SIZES, PRESETS, DemoSize


@click.group(cls=Group, context_settings=CONTEXT)
@version_option
def cli() -> None:
    """Region features from images, iterative vision-language pre-training on them, evaluation.

    \b
    semvlp demo                      everything, on a drawn world, in minutes
    semvlp extract images/           images -> shards/
    semvlp pretrain shards/          shards -> runs/pretrain
    semvlp eval --task nlvr2         checkpoint -> leaderboard file and scores
    semvlp ask photo.jpg "what is it?"   an answer to a question
    semvlp serve                     a page to ask on
    """


REGIONS = click.IntRange(1, 100)


@cli.command()
@out_option("runs/demo")
@choice("--size", *DEMO_SIZES, help="small: about six minutes on two CPU cores.")
@overwrite_option
def demo(out: Path, size: DemoSize, overwrite: bool) -> Result:
    """Run everything on a drawn world: no download, one report to look at."""
    from semvlp.progress import busy

    with busy("loading torch"):
        from semvlp.demo.run import run_demo
    return reported(run_demo(out, size=size, overwrite=overwrite))


@cli.command(cls=CommandWithSettings, settings="extract")
@click.argument("images", type=PATH)
@out_option("shards")
@click.option("--format", "format_", type=STORE_FORMAT, default="tar")
@click.option("--detector", help="Which network; `semvlp detector list` shows them.")
@click.option("--weights", metavar="PATH|URL|hf:NAME", help="Where its weights are.")
@backend_option
@click.option("--features", metavar="hf:NAME", help="A vision transformer to describe the regions.")
@click.option(
    "--features-side", type=click.IntRange(1), help="Side of a square of the pixels that it sees."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="A=B",
    help="A setting of the network (`semvlp settings extract`), such as shorter_side=400.",
)
@click.option(
    "--labels",
    type=PATH,
    multiple=True,
    metavar="FILE|WORDS",
    help='Names a line: of the object classes, then of the attributes; "dog, red car" to look for.',
)
@click.option("--preset", type=click.Choice(PRESETS), help="Published rule of selection.")
@click.option("--min-regions", type=REGIONS, help="36, or the preset's own, unless given.")
@click.option("--max-regions", type=REGIONS, help="100, or the preset's own, unless given.")
@click.option(
    "--boxes", type=EXISTING, help="Boxes to describe: COCO JSON, JSONL, proposals, regions."
)
@click.option("--and-detected", is_flag=True, help="Store what the detector finds behind them.")
@click.option("--texts", type=EXISTING, multiple=True, help="Captions or questions to join.")
@device_option
@precision_option
@click.option("--batch-size", type=click.IntRange(1), default=8)
@click.option("--workers", type=click.IntRange(1), default=4)
@max_bad_option
@click.option("--preview", type=click.IntRange(0), default=0, help="Images on the preview page.")
@allow_http_option
@restart_options
def extract(images: Path, out: Path, format_: Any, **options: Any) -> Result:
    """Turn IMAGES (a directory, a list, a tar) into region-feature shards."""
    from semvlp.extract.detectors.zoo import check_detector
    from semvlp.extract.images.find import find_images
    from semvlp.extract.presets import resolve
    from semvlp.progress import busy

    read = (images, options["weights"], options["boxes"])
    refuse_inputs(out, *read, *options["texts"], *filter(os.path.isfile, options["labels"]))
    named = ("detector", "weights", "settings", "features", "labels")
    check_detector(*(options[name] for name in named))
    resolve(options["preset"], options["min_regions"], options["max_regions"])
    if not (images.exists() or any(images.parent.glob(images.name))):
        find_images(images)  # says so
    with busy("loading torch"):
        from semvlp.extract import pipeline
    return reported(
        pipeline.extract(images, out, pipeline.ExtractSettings(format=format_, **options))
    )


cli.add_command(detector)
cli.add_command(shards)


@cli.command(cls=CommandWithSettings, settings="pretrain")
@click.argument("shards", nargs=-1, required=True)
@out_option("runs/pretrain")
@none_bad_option
@settings_options
@from_option
@keep_option
@allow_http_option
@other_regions_option
@restart_options
def pretrain(
    shards: Sequence[str],
    out: Path,
    config: Path | None,
    overrides: Sequence[str],
    keep: int | None,
    from_: Path | None,
    max_bad: float,
    **options: bool,
) -> Result:
    """Pre-train on SHARDS, alternating single-stream and two-stream steps."""
    from semvlp.progress import busy
    from semvlp.settings import load
    from semvlp.shards.open import local_store
    from semvlp.train.config import PretrainConfig

    settings = load(PretrainConfig, config, [*overrides, *_kept(keep)])
    refuse_inputs(out, *shards, from_, *_read_by(settings.model))
    refuse_missing_checkpoint(from_, "--from")
    stores = [local_store(address) for address in shards]
    with busy("loading torch"):
        from semvlp.train import pretrain as trainer
        from semvlp.train.run.report import check_left_out
    report = trainer.pretrain(stores, out, settings, from_=from_, **options)
    return reported(check_left_out(report, max_bad))


@cli.command(cls=CommandWithSettings, settings="finetune")
@task_option
@annotations_option
@columns_option
@click.option("--shards", required=True, help="Region features of the images.")
@click.option(
    "--init",
    default="runs/pretrain/last",
    help="A checkpoint, the Hugging Face name of one (BERT too), or `none`: from nothing.",
)
@click.option("--out", type=PATH, help="runs/finetune-TASK unless given.")
@click.option("--valid", type=EXISTING, multiple=True, help="Annotations to validate on.")
@click.option(
    "--skip-missing", is_flag=True, help="Train without examples whose images SHARDS lacks."
)
@examples_bad_option
@click.option("--seeds", type=click.IntRange(2), help="Run N seeds; tell mean and deviation.")
@settings_options
@from_option
@keep_option
@allow_http_option
@other_regions_option
@restart_options
def finetune(
    task: str,
    annotations: Sequence[Path],
    columns: Mapping[str, str],
    shards: str,
    init: str,
    out: Path | None,
    seeds: int | None,
    config: Path | None,
    overrides: Sequence[str],
    keep: int | None,
    max_bad: float,
    **options: Any,
) -> Result:
    """Fine-tune a pre-trained checkpoint on one task."""
    from semvlp.eval.tasks.table import load_task
    from semvlp.progress import busy
    from semvlp.settings import load
    from semvlp.shards.open import local_store
    from semvlp.train.config import FinetuneConfig

    if seeds and not options["valid"]:
        raise click.UsageError("--seeds compares scores, so it needs --valid")
    out = out or Path(f"runs/finetune-{task}")
    settings = load(FinetuneConfig, config, [*overrides, *_kept(keep)])
    init = "none" if options["from_"] else init
    read = (init, options["from_"], *_read_by(settings.model))
    refuse_inputs(out, shards, *annotations, *options["valid"], *read)
    loaded = load_task(task).suited_to(annotations, columns)
    start = None if init == "none" else init
    refuse_missing_checkpoint(start, "--init")
    refuse_missing_checkpoint(options["from_"], "--from")
    store = local_store(shards)
    with busy("loading torch"):
        from semvlp.train import finetune as trainer
        from semvlp.train.run.report import check_left_out
        from semvlp.train.run.seeds import finetune_seeds

    def run(seeded: FinetuneConfig, folder: Path) -> Any:
        return trainer.finetune(loaded, annotations, store, start, folder, seeded, **options)

    if not seeds:
        return reported(check_left_out(run(settings, out), max_bad))
    report = finetune_seeds(run, settings, out, count=seeds, metric=loaded.metric)
    return reported(check_left_out(report, max_bad))


cli.add_command(evaluate)
cli.add_command(score)


@cli.command()
@click.argument("runs", type=EXISTING, nargs=-1, required=True)
@out_option("runs/compare.html")
def compare(runs: Sequence[Path], out: Path) -> Result:
    """Put several runs on one page, side by side; pair evaluations of the same examples."""
    from semvlp.train.run.compare import compare as write_page

    refuse_inputs(out, *runs)
    return reported(write_page(runs, out))


cli.add_command(ask)
cli.add_command(search)
cli.add_command(serve)
cli.add_command(list_settings)
cli.add_command(completion)
cli.add_command(doctor)


def _read_by(model: Any) -> list[str | None]:
    """Return what the settings of a model name to be read, among it names that are no paths.

    Raises:
        InputError: a path at which there is nothing.
    """
    tokenizer = None if model.tokenizer == "train" else model.tokenizer
    refuse_missing_checkpoint(model.pretrained, "model.pretrained")
    refuse_missing_checkpoint(tokenizer, "model.tokenizer")
    return [model.pretrained, tokenizer]


def _kept(keep: int | None) -> list[str]:
    """Return `--keep` as a setting."""
    return [] if keep is None else [f"train.keep={keep}"]


def main() -> None:
    """Run the program and end it with its exit code."""
    sys.exit(run(cli, "semvlp", sys.argv[1:]))


if __name__ == "__main__":
    main()
