"""The commands: each parses, calls one function and returns its Result.

Rooms are imported inside the commands, so that `--help` answers without loading torch.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from semvlp.console import CONTEXT, Group, Result, run, show
from semvlp.errors import InputError

TASKS = ("vqa", "gqa", "nlvr2", "nlvr", "snli-ve", "retrieval")
PRESETS = ("butd_36", "butd_10_100", "maxnms_36", "vinvl_nms1", "vinvl_nms2", "top_100")
COMMUNITY_FORMATS = (
    "lxmert-tsv",
    "butd-tsv",
    "uniter-npz",
    "uniter-lmdb",
    "vilbert-lmdb",
    "volta-lmdb",
    "milvlg-npz",
    "vinvl-tsv",
    "mmf-npy",
)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value:
        return
    from semvlp.extract.doctor import versions

    found = versions()
    text = "\n".join(f"{name} {version}" for name, version in found.items())
    show(ctx, Result(found, text))
    ctx.exit()


@click.group(cls=Group, context_settings=CONTEXT)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    callback=_version,
    help="Versions of semvlp and of what it runs on.",
)
def cli() -> None:
    """Region features from images, iterative vision-language pre-training on them, evaluation.

    \b
    semvlp demo                      everything, on a drawn world, in minutes
    semvlp extract images/           images -> shards/
    semvlp pretrain shards/          shards -> runs/pretrain
    semvlp eval --task nlvr2         checkpoint -> leaderboard file and scores
    """


PATH = click.Path(path_type=Path)
EXISTING = click.Path(path_type=Path, exists=True)
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def out_option(default: str | None) -> Decorator:
    """`--out` with its default."""
    return click.option(
        "--out",
        type=PATH,
        default=default,
        required=default is None,
        help="Where the result goes.",
    )


def choice(name: str, *values: str, help: str = "", default: str | None = None) -> Decorator:
    """An option that takes one of `values`, the first unless `default` says otherwise."""
    return click.option(
        name, type=click.Choice(values), default=default or values[0], help=help or None
    )


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order given."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Start anew; replaces what an earlier run wrote there."
)
restart_options = together(
    click.option(
        "--resume/--no-resume",
        default=True,
        help="Go on where an earlier run of the same command stopped.",
    ),
    overwrite_option,
)
settings_options = together(
    click.option("--config", type=PATH, help="TOML file with settings."),
    click.option(
        "--set", "overrides", multiple=True, metavar="A.B=C", help="One setting, over --config."
    ),
)
keep_option = click.option(
    "--keep", type=click.IntRange(1), help="Newest checkpoints kept, as --set train.keep=N."
)
task_option = click.option("--task", type=click.Choice(TASKS), required=True, help="The benchmark.")
annotations_option = click.option(
    "--annotations",
    type=EXISTING,
    multiple=True,
    help="Official annotation file; repeat for tasks with two (VQA questions and answers).",
)
STORE_FORMAT = click.Choice(["tar", "lmdb"])
REGIONS = click.IntRange(1, 100)


@cli.command()
@out_option("runs/demo")
@choice("--size", "small", "full", help="small: about six minutes on two CPU cores.")
@overwrite_option
def demo(out: Path, size: str, overwrite: bool) -> Result:
    """Run everything on a drawn world: no download, one report to look at."""
    from semvlp.demo.run import run_demo

    return _reported(run_demo(out, size=size, overwrite=overwrite))


@cli.command()
@click.argument("images", type=PATH)
@out_option("shards")
@click.option("--format", "format_", type=STORE_FORMAT, default="tar")
@click.option("--detector", help="Which network; `semvlp detector list` shows them.")
@click.option("--weights", metavar="PATH|URL|hf:NAME", help="Where its weights are.")
@choice("--backend", "auto", "detectron2", "torchvision")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="A=B",
    help="A setting of the network, such as shorter_side=400.",
)
@click.option(
    "--labels",
    type=EXISTING,
    multiple=True,
    help="Names a line: of the object classes, then of the attributes.",
)
@click.option("--preset", type=click.Choice(PRESETS), help="Published rule of selection.")
@click.option("--min-regions", type=REGIONS, help="36, or the preset's own, unless given.")
@click.option("--max-regions", type=REGIONS, help="100, or the preset's own, unless given.")
@click.option("--texts", type=EXISTING, multiple=True, help="Captions or questions to join.")
@choice("--device", "auto", "cpu", "cuda")
@choice("--precision", "fp32", "bf16")
@click.option("--batch-size", type=click.IntRange(1), default=8)
@click.option("--workers", type=click.IntRange(1), default=2)
@click.option(
    "--max-bad",
    type=click.FloatRange(0, 1),
    default=0.05,
    help="Exit 4 when a larger fraction of the images is refused.",
)
@click.option("--preview", type=click.IntRange(0), default=0, help="Images on the preview page.")
@restart_options
def extract(images: Path, out: Path, format_: Any, **options: Any) -> Result:
    """Turn IMAGES (a directory, a list, a tar) into region-feature shards."""
    from semvlp.extract import pipeline

    return _reported(
        pipeline.extract(images, out, pipeline.ExtractSettings(format=format_, **options))
    )


@cli.group()
def detector() -> None:
    """Train a detector of your own, or list the known ones."""


@detector.command("train")
@click.argument("annotations", type=EXISTING)
@click.argument("images", type=EXISTING)
@out_option("runs/detector")
@choice("--backend", "auto", "detectron2", "torchvision")
@settings_options
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
    from semvlp.extract.fit import train_detector
    from semvlp.extract.fit_config import FitConfig
    from semvlp.settings import load

    settings = load(FitConfig, config, overrides)
    return _reported(train_detector(annotations, images, out, settings, **options))


@detector.command("list")
def detector_list() -> Result:
    """Known detectors: what they are and where their weights come from."""
    from semvlp.extract.detector import KNOWN

    rows = {name: {"what": spec.what, "weights": spec.weights} for name, spec in KNOWN.items()}
    lines = [f"{name}\n  {row['what']}\n  weights: {row['weights']}" for name, row in rows.items()]
    return Result(rows, "\n".join(lines))


@cli.group()
def shards() -> None:
    """Look into shards, check, convert, join texts, exchange with other systems."""


@shards.command("info")
@click.argument("path", type=PATH)
def shards_info(path: Path) -> Result:
    """What is inside."""
    from semvlp.shards.verify import info

    facts = info(path)
    return Result(facts, _listed(facts))


@shards.command("verify")
@click.argument("path", type=PATH)
@click.option("--repair", is_flag=True, help="Make manifest and indexes anew from the samples.")
def shards_verify(path: Path, repair: bool) -> Result:
    """Check every byte; exit 3 when anything is damaged."""
    from semvlp.shards.verify import verify

    if repair:
        from semvlp.shards.repair import repair as make_anew

        make_anew(path)
    findings = verify(path)
    if findings:
        raise InputError(f"{path} is damaged:\n" + "\n".join(map(str, findings)))
    return Result({"path": str(path), "findings": []}, f"{path}: every shard is whole.")


@shards.command("preview")
@click.argument("path", type=PATH)
@click.option("--images", type=EXISTING, help="The photographs the regions came from.")
@click.option("--count", type=click.IntRange(1), default=24)
@click.option("--out", type=PATH, help="The page; PATH/preview.html unless given.")
def shards_preview(path: Path, images: Path | None, count: int, out: Path | None) -> Result:
    """Write an HTML page with boxes and labels over the images."""
    from semvlp.extract.preview import write_preview
    from semvlp.shards.store import open_store

    with open_store(path) as store:
        page = write_preview(store, out or path / "preview.html", images=images, count=count)
    return Result({"page": str(page)}, f"Open {page} in a browser.")


@shards.command("convert")
@click.argument("source", type=PATH)
@click.argument("target", type=PATH)
@click.option("--to", type=STORE_FORMAT, required=True)
@overwrite_option
def shards_convert(source: Path, target: Path, to: Any, overwrite: bool) -> Result:
    """Turn tar shards into an LMDB or back; every sample keeps its bytes."""
    from semvlp.shards.convert import convert

    return _written(convert(source, target, to=to, overwrite=overwrite), target)


@shards.command("join")
@click.argument("source", type=PATH)
@click.option("--texts", type=EXISTING, multiple=True, required=True)
@out_option(None)
@click.option("--only-matched", is_flag=True, help="Leave out images that no text speaks of.")
@overwrite_option
def shards_join(source: Path, texts: Sequence[Path], out: Path, **options: bool) -> Result:
    """Join captions and questions onto images already extracted."""
    from semvlp.shards.convert import join

    return _reported(join(source, texts, out, **options))


@shards.command("import")
@click.argument("path", type=PATH)
@click.argument("target", type=PATH)
@click.option("--from", "from_", type=click.Choice(COMMUNITY_FORMATS), required=True)
@click.option("--to", type=STORE_FORMAT, default="tar")
@click.option("--source", help="Name of the extraction; files of one may be mixed in training.")
@overwrite_option
def shards_import(path: Path, target: Path, **options: Any) -> Result:
    """Read the features of another system."""
    from semvlp.shards.formats import import_format

    return _written(import_format(path, target, **options), target)


@shards.command("export")
@click.argument("source", type=PATH)
@click.argument("target", type=PATH)
@click.option("--to", type=click.Choice(COMMUNITY_FORMATS), required=True)
def shards_export(source: Path, target: Path, to: str) -> Result:
    """Write the features in the form another system reads."""
    from semvlp.shards.formats import export_format

    count = export_format(source, target, to=to)
    return Result({"images": count, "out": str(target)}, f"Wrote {count} images to {target}.")


@shards.command("parity")
@click.argument("golden", type=PATH)
@click.argument("extracted", type=PATH)
def shards_parity(golden: Path, extracted: Path) -> Result:
    """Compare extracted features with published ones, box by box."""
    from semvlp.shards.parity import parity

    found = parity(golden, extracted)
    return Result(found, json.dumps(found, indent=1))


@cli.command()
@click.argument("shards", nargs=-1, required=True)
@out_option("runs/pretrain")
@settings_options
@keep_option
@restart_options
def pretrain(
    shards: Sequence[str],
    out: Path,
    config: Path | None,
    overrides: Sequence[str],
    keep: int | None,
    **restart: bool,
) -> Result:
    """Pre-train on SHARDS, alternating single-stream and two-stream steps."""
    from semvlp.settings import load
    from semvlp.shards.remote import localize
    from semvlp.train import pretrain as trainer
    from semvlp.train.config import PretrainConfig

    settings = load(PretrainConfig, config, [*overrides, *_kept(keep)])
    stores = [localize(address) for address in shards]
    return _reported(trainer.pretrain(stores, out, settings, **restart))


@cli.command()
@task_option
@annotations_option
@click.option("--shards", required=True, help="Region features of the images.")
@click.option(
    "--init",
    default="runs/pretrain/last",
    help="A checkpoint, the Hugging Face name of one (BERT too), or `none`: from nothing.",
)
@click.option("--out", type=PATH, help="runs/finetune-TASK unless given.")
@click.option("--valid", type=EXISTING, multiple=True, help="Annotations to validate on.")
@click.option("--seeds", type=click.IntRange(2), help="Run N seeds; tell mean and deviation.")
@settings_options
@keep_option
@restart_options
def finetune(
    task: str,
    annotations: Sequence[Path],
    shards: str,
    init: str,
    out: Path | None,
    seeds: int | None,
    config: Path | None,
    overrides: Sequence[str],
    keep: int | None,
    **options: Any,
) -> Result:
    """Fine-tune a pre-trained checkpoint on one task."""
    from semvlp.eval.tasks import load_task
    from semvlp.settings import load
    from semvlp.shards.remote import localize
    from semvlp.train import finetune as trainer
    from semvlp.train.config import FinetuneConfig
    from semvlp.train.seeds import finetune_seeds

    out = out or Path(f"runs/finetune-{task}")
    settings = load(FinetuneConfig, config, [*overrides, *_kept(keep)])
    store, start, loaded = localize(shards), None if init == "none" else init, load_task(task)

    def run(seeded: FinetuneConfig, folder: Path) -> Any:
        return trainer.finetune(loaded, annotations, store, start, folder, seeded, **options)

    if not seeds:
        return _reported(run(settings, out))
    if not options["valid"]:
        raise click.UsageError("--seeds compares scores, so it needs --valid")
    return _reported(finetune_seeds(run, settings, out, count=seeds, metric=loaded.metric))


@cli.command("eval")
@task_option
@click.option("--checkpoint", type=PATH, help="runs/finetune-TASK/best unless given.")
@annotations_option
@click.option("--shards", help="Region features of the images.")
@click.option(
    "--split", help="Name in the leaderboard file; the annotation file's own unless given."
)
@choice("--mode", "both", "single", "two")
@choice("--device", "auto", "cpu", "cuda")
@choice("--precision", "fp32", "bf16")
@click.option("--batch-size", type=click.IntRange(1), default=64)
@click.option(
    "--shortlist",
    type=click.IntRange(1),
    metavar="N",
    help="Retrieval: compare only the N likeliest by the detector's labels.",
)
@click.option("--images", type=EXISTING, help="The photographs, to be shown in the report.")
@click.option(
    "--explain",
    type=click.IntRange(1),
    metavar="N",
    help="Write explain.html: N examples with what their words and regions attend to.",
)
@click.option("--out", type=PATH, help="runs/eval-TASK unless given.")
@overwrite_option
def evaluate(
    task: str,
    checkpoint: Path | None,
    annotations: Sequence[Path],
    shards: str | None,
    split: str | None,
    out: Path | None,
    overwrite: bool,
    **options: Any,
) -> Result:
    """Write the leaderboard file of a task, and its scores where the split has labels."""
    from semvlp.eval import evaluate as scorer
    from semvlp.eval.inputs import eval_inputs
    from semvlp.eval.tasks import load_task
    from semvlp.shards.remote import localize

    checkpoint = checkpoint or Path(f"runs/finetune-{task}/best")
    store = localize(shards) if shards else None
    given = eval_inputs(checkpoint, annotations=annotations, shards=store, split=split)
    return _reported(
        scorer.evaluate(
            load_task(task),
            checkpoint,
            given.annotations,
            given.shards,
            out or Path(f"runs/eval-{task}"),
            split=given.split,
            train=given.train,
            existing="replace" if overwrite else "keep",
            **options,
        )
    )


@cli.command()
@task_option
@annotations_option
@click.option("--split", default="test", help="Part of a file that holds several (Karpathy).")
@click.argument("predictions", type=EXISTING)
def score(task: str, annotations: Sequence[Path], predictions: Path, split: str) -> Result:
    """Score a leaderboard file that anyone made."""
    from semvlp.eval import evaluate as scorer
    from semvlp.eval.tasks import load_task

    scores = scorer.score(load_task(task), annotations, predictions, split=split)
    return Result(scores, _listed(scores))


@cli.command()
@click.argument("runs", type=EXISTING, nargs=-1, required=True)
@out_option("runs/compare.html")
def compare(runs: Sequence[Path], out: Path) -> Result:
    """Put several runs on one page, side by side."""
    from semvlp.train.compare import compare as write_page

    page = write_page(runs, out)
    return Result({"page": str(page)}, f"Open {page} in a browser.")


@cli.command()
def doctor() -> Result:
    """What is installed, what will be used, what is missing and how to get it."""
    from semvlp.extract.doctor import facts

    found = facts()
    values = {
        fact.name: {"value": fact.value, "ok": fact.ok, "remedy": fact.remedy} for fact in found
    }
    lines = [
        f"{'ok' if fact.ok else '--'}  {fact.name:<14} {fact.value}"
        + (f"\n    {fact.remedy}" if fact.remedy else "")
        for fact in found
    ]
    return Result(values, "\n".join(lines))


def _listed(facts: Mapping[str, Any]) -> str:
    """One line for each fact, what is nested on its line."""

    def plain(value: Any) -> str:
        nested = isinstance(value, Mapping)
        return ", ".join(f"{k} {v}" for k, v in value.items()) if nested else str(value)

    return "\n".join(f"{name:<18} {plain(value)}" for name, value in facts.items())


def _kept(keep: int | None) -> list[str]:
    """`--keep` as a setting."""
    return [] if keep is None else [f"train.keep={keep}"]


def _reported(report: Any) -> Result:
    return Result(report.values(), report.sentence())


def _written(manifest: Any, target: Path) -> Result:
    counts = manifest.counts
    return Result(
        {"out": str(target), "counts": counts},
        f"Wrote {counts['samples']} images to {target} ({counts['errors']} refused).",
    )


def main() -> None:
    """Run the program and end it with its exit code."""
    sys.exit(run(cli, "semvlp", sys.argv[1:]))


if __name__ == "__main__":
    main()
