"""`semvlp shards ...`: look into shards, check, convert, exchange them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from semvlp.atomic import refuse_inputs
from semvlp.commands.console import Group, Result, listed, reported
from semvlp.commands.options import (
    EXISTING,
    PATH,
    STORE_FORMAT,
    max_bad_option,
    none_bad_option,
    out_option,
    overwrite_option,
)
from semvlp.errors import InputError
from semvlp.names import VIEWS
from semvlp.shards.formats.table import FORMATS, PARQUET


@click.group(cls=Group)
def shards() -> None:
    """Look into shards, check, convert, join texts, exchange with other systems."""


@shards.command("info")
@click.argument("path", type=PATH)
def shards_info(path: Path) -> Result:
    """Show what is inside."""
    from semvlp.shards.maintenance.verify import info

    facts = info(path)
    return Result(facts, listed(facts))


@shards.command("verify")
@click.argument("path", type=PATH)
@click.option("--repair", is_flag=True, help="Make manifest and indexes anew from the samples.")
def shards_verify(path: Path, repair: bool) -> Result:
    """Check every byte; exit 3 when anything is damaged."""
    from semvlp.shards.maintenance.verify import verify

    if repair:
        from semvlp.shards.maintenance.repair import repair as make_anew

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
    from semvlp.shards.open import open_store

    page = out or path / "preview.html"
    refuse_inputs(page, path, images)
    with open_store(path) as store:
        write_preview(store, page, images=images, count=count)
    return Result({"page": str(page)}, f"Open {page} in a browser.")


@shards.command("convert")
@click.argument("source", type=PATH)
@click.argument("target", type=PATH)
@click.option("--to", type=STORE_FORMAT, required=True)
@click.option(
    "--view",
    type=click.Choice(VIEWS),
    help="Only the regions this preset chooses, of the 100 that top_100 stored.",
)
@none_bad_option
@overwrite_option
def shards_convert(source: Path, target: Path, view: str | None, **options: Any) -> Result:
    """Turn tar shards into an LMDB or back; every sample keeps its bytes, but for a view."""
    from semvlp.extract.views import write_view
    from semvlp.shards.maintenance.convert import convert

    refuse_inputs(target, source)
    if view:
        manifest = write_view(source, target, preset=view, **options)
    else:
        manifest = convert(source, target, **options)
    return _written(manifest, target)


@shards.command("join")
@click.argument("source", type=PATH)
@click.option("--texts", type=EXISTING, multiple=True, required=True)
@out_option(None)
@click.option("--only-matched", is_flag=True, help="Leave out images that no text speaks of.")
@click.option(
    "--refer", is_flag=True, help="Copy no regions: the result reads them in SOURCE, where it lies."
)
@none_bad_option
@overwrite_option
def shards_join(source: Path, texts: Sequence[Path], out: Path, **options: Any) -> Result:
    """Join captions and questions onto images already extracted, whose regions are copied."""
    from semvlp.shards.maintenance.convert import join

    refuse_inputs(out, source, *texts)
    return reported(join(source, texts, out, **options))


@shards.command("import")
@click.argument("path", type=PATH)
@click.argument("target", type=PATH)
@click.option("--from", "from_", type=click.Choice([*FORMATS, PARQUET]), required=True)
@click.option("--to", type=STORE_FORMAT, default="tar")
@click.option(
    "--labels",
    multiple=True,
    metavar="FILE|visual-genome",
    help="Names a line: of the object classes, then of the attributes that the files number.",
)
@click.option("--source", help="Name of the extraction; files of one may be mixed in training.")
@max_bad_option
@overwrite_option
def shards_import(path: Path, target: Path, max_bad: float, **options: Any) -> Result:
    """Read the features of another system."""
    from semvlp.shards.dataset.refusals import check_refused
    from semvlp.shards.formats.import_export import import_format

    refuse_inputs(target, path, *options["labels"])
    manifest = import_format(path, target, **options)
    check_refused(target, manifest, max_bad)
    return _written(manifest, target)


@shards.command("export")
@click.argument("source", type=PATH)
@click.argument("target", type=PATH)
@click.option("--to", type=click.Choice([*FORMATS, PARQUET]), required=True)
def shards_export(source: Path, target: Path, to: str) -> Result:
    """Write the features in the form another system reads."""
    from semvlp.shards.formats.import_export import export_format

    refuse_inputs(target, source)
    count = export_format(source, target, to=to)
    return Result({"images": count, "out": str(target)}, f"Wrote {count} images to {target}.")


@shards.command("parity")
@click.argument("golden", type=PATH)
@click.argument("extracted", type=PATH)
def shards_parity(golden: Path, extracted: Path) -> Result:
    """Compare extracted features with published ones, box by box."""
    from semvlp.shards.maintenance.parity import parity

    figures = parity(golden, extracted)
    return Result(figures, json.dumps(figures, indent=1))


def _written(manifest: Any, target: Path) -> Result:
    from semvlp.shards.dataset.refusals import reasons_of

    counts = manifest.counts
    why = f": {reasons_of(manifest.refused)}" if manifest.refused else ""
    return Result(
        {"out": str(target), "counts": counts},
        f"Wrote {counts['samples']} images to {target} ({counts['errors']} refused{why}).",
    )
