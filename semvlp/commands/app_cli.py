"""What a finished checkpoint is used by: `semvlp ask`, `semvlp search` and `semvlp serve`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from semvlp.addresses import refuse_missing_checkpoint
from semvlp.atomic import refuse_inputs
from semvlp.commands.console import Command, Result, reported
from semvlp.commands.options import (
    EXISTING,
    PATH,
    allow_http_option,
    choice,
    device_option,
    other_regions_option,
    require_extra,
)
from semvlp.names import EVAL_MODES, SERVE


@click.command(cls=Command)
@click.argument("words", metavar="PHOTO [PHOTO2] TEXT...", nargs=-1, required=True)
@click.option(
    "--checkpoint",
    metavar="RUN",
    help="runs/finetune-vqa/best unless given, else that of the demo; or a name on the Hub.",
)
@choice("--mode", "both", *(mode for mode in EVAL_MODES if mode != "both"))
@click.option("--top", type=click.IntRange(1), default=5, help="Answers to tell.")
@click.option("--page", type=PATH, metavar="FILE", help="Also write a page with the regions.")
@click.option("--detector", metavar="SPEC", help="Where the checkpoint's is not known by name.")
@device_option
def ask(words: Sequence[str], page: Path | None, checkpoint: str | None, **options: Any) -> Result:
    """Ask a checkpoint a question about a photograph, or whether a statement holds of it.

    Several questions, a folder of photographs, or two photographs for a checkpoint of pairs work
    as well.
    """
    from semvlp.app import ask as app

    if page:
        refuse_inputs(page, checkpoint, *words)
    return reported(app.ask(words, page=page, checkpoint=checkpoint, **options))


@click.command(cls=Command)
@click.argument("shards")
@click.argument("text")
@click.option(
    "--checkpoint",
    metavar="RUN",
    help="runs/finetune-retrieval/best unless given, else the demo's pre-trained one; or a name on "
    "the Hub.",
)
@click.option("--top", type=click.IntRange(1), default=12, help="Photographs to tell.")
@click.option("--page", type=PATH, metavar="FILE", help="Also write a page that shows them.")
@click.option("--images", type=EXISTING, help="The photographs, to be named and shown.")
@click.option(
    "--shortlist",
    type=click.IntRange(1),
    metavar="N",
    help="Compare only the N likeliest by the detector's labels; 500 unless given.",
)
@other_regions_option
@device_option
@allow_http_option
def search(
    shards: str,
    text: str,
    page: Path | None,
    checkpoint: str | None,
    images: Path | None,
    **options: Any,
) -> Result:
    """Search the photographs of SHARDS for what a text says.

    What a network knows of each photograph is kept in SHARDS/search/ and used again.
    """
    from semvlp.progress import busy

    if page:
        refuse_inputs(page, checkpoint, shards, images)
    refuse_missing_checkpoint(checkpoint, "--checkpoint")
    with busy("loading torch"):
        from semvlp.app import search as app
    return reported(
        app.search(shards, text, page=page, checkpoint=checkpoint, images=images, **options)
    )


@click.command(cls=Command)
@click.option(
    "--checkpoint",
    "checkpoints",
    metavar="RUN",
    multiple=True,
    help="One to choose from on the page; that of `semvlp ask` unless given.",
)
@click.option("--shards", help="Photographs to choose from: regions that were extracted.")
@click.option("--images", type=EXISTING, help="The photographs that these regions came from.")
@click.option(
    "--host",
    metavar="H",
    help="Listen there, such as 0.0.0.0, and not to this machine alone; needs a token then.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8765, help="0: any that is free.")
@click.option("--detector", metavar="SPEC", help="Where the checkpoint's is not known by name.")
@device_option
@other_regions_option
@allow_http_option
def serve(checkpoints: Sequence[str], **options: Any) -> Result:
    """Open a page to ask checkpoints on, until Ctrl-C."""
    from semvlp.progress import busy

    require_extra("serve", *SERVE)
    for checkpoint in checkpoints:
        refuse_missing_checkpoint(checkpoint, "--checkpoint")
    with busy("loading torch"):
        from semvlp.app.serve import server

    # What an end of the command prints comes too late, and --json keeps stdout for it.
    def announce(address: str) -> None:
        click.echo(f"Open {address} in a browser; Ctrl-C ends it.", err=True)

    return reported(server.serve(checkpoints, announce=announce, **options))
